"""What a template reads, and what it must not contain: found in its tree, before it ever runs."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes
from jinja2.meta import find_undeclared_variables

from .errors import known
from .misuses import misuses
from .sandbox import METHODS, environment, reaches

Reference = tuple[str, ...]
"""A dotted path from its root: ("steps", "text", "pages")."""

_FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
}
_METHODS = METHODS[dict] | METHODS[str] | METHODS[list] | {"replace", "join"}


def references(tree: nodes.Template | nodes.Expr) -> frozenset[Reference]:
    """List every path that the template reads from its scope, names of its own left out."""
    free = {chain[0] for chain in _chains(tree)}
    if any(name.ctx != "load" for name in tree.find_all(nodes.Name)):
        assert isinstance(tree, nodes.Template)  # only statements make names
        free = find_undeclared_variables(tree)
    free -= set(environment().globals)
    return frozenset(found for found in _chains(tree) if found[0] in free)


def _chains(node: nodes.Node) -> Iterator[Reference]:
    chain = chain_of(node)
    if chain is not None:
        yield chain
        return
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        # `doc.get('x')` reads some key of `doc`: all of it, as far as one can see.
        owner = chain_of(node.node.node)
        if owner is not None and node.node.attr in _METHODS:
            yield owner
            children: Iterator[nodes.Node] = node.iter_child_nodes(exclude=("node",))
            for child in children:
                yield from _chains(child)
            return
    for child in node.iter_child_nodes():
        yield from _chains(child)


def chain_of(node: nodes.Node) -> Reference | None:
    """Read `a.b['c']` as a path; None for anything else."""
    parts: list[str] = []
    while not isinstance(node, nodes.Name):
        if isinstance(node, nodes.Getattr):
            parts.append(node.attr)
        elif (
            isinstance(node, nodes.Getitem)
            and isinstance(node.arg, nodes.Const)
            and isinstance(node.arg.value, str)
        ):
            parts.append(node.arg.value)
        else:
            return None
        node = node.node
    return (node.name, *reversed(parts)) if node.ctx == "load" else None


ELEMENT = "[]"
"""Stands in a path for the items of a list: ("steps", "each", "results", "[]", "kind")."""
_WITH_ATTRIBUTE = ("map", "sort", "sum", "min", "max", "unique", "join", "groupby")
_FIRST_IS_ATTRIBUTE = ("groupby", "selectattr", "rejectattr")


def element_reads(tree: nodes.Template | nodes.Expr) -> frozenset[Reference]:
    """List what is read of the items of lists that steps give: by number, filter or loop."""
    return frozenset(path for path in _element_reads(tree) if path[0] == "steps")


def _element_reads(tree: nodes.Template | nodes.Expr) -> Iterator[Reference]:
    for read in [tree, *tree.find_all((nodes.Getattr, nodes.Getitem))]:
        if isinstance(read, nodes.Getattr | nodes.Getitem):
            path, name = _list_of(read.node), _name_read(read)
            if path is not None and name is not None and name not in _METHODS:
                yield (*path, ELEMENT, name)
    for filter_ in [tree, *tree.find_all(nodes.Filter)]:
        if isinstance(filter_, nodes.Filter) and filter_.node is not None:
            path, name = chain_of(filter_.node), _attribute_of(filter_)
            if path is not None and name:
                yield (*path, ELEMENT, name.split(".")[0])
    for loop in tree.find_all(nodes.For):
        path = chain_of(loop.iter)
        if path is not None and isinstance(loop.target, nodes.Name):
            yield from ((*path, ELEMENT, name) for name in _read_in(loop, loop.target.name))


def _list_of(node: nodes.Node) -> Reference | None:
    """Return the path of the list of which a node is one item: `a.b[0]`, `a.b | first`."""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return chain_of(node.node) if type(node.arg.value) is int else None
    if isinstance(node, nodes.Filter) and node.name in ("first", "last") and node.node is not None:
        return chain_of(node.node)
    return None


def _name_read(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    is_text = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
    return node.arg.value if is_text and isinstance(node.arg, nodes.Const) else None


def _attribute_of(node: nodes.Filter) -> str | None:
    given = [one.value for one in node.kwargs if one.key == "attribute"]
    given += node.args[:1] if node.name in _FIRST_IS_ATTRIBUTE else []
    if node.name not in (*_WITH_ATTRIBUTE, *_FIRST_IS_ATTRIBUTE) or not given:
        return None
    first = given[0]
    is_text = isinstance(first, nodes.Const) and isinstance(first.value, str)
    return first.value if is_text and isinstance(first, nodes.Const) else None


def _read_in(loop: nodes.For, var: str) -> Iterator[str]:
    """Yield the fields of a loop's variable that its body reads; none if the body sets its name."""
    body = nodes.Template(loop.body, lineno=loop.lineno)
    if any(name.name == var and name.ctx != "load" for name in body.find_all(nodes.Name)):
        return
    for read in body.find_all(nodes.Getattr):
        is_of_var = isinstance(read.node, nodes.Name) and read.node.name == var
        if is_of_var and read.attr not in _METHODS:
            yield read.attr


def refusals(tree: nodes.Template) -> Iterator[tuple[str, str, int]]:
    """Tell what the template may not contain: sentence, remedy and line of each."""
    sandbox = environment()
    for node in tree.find_all(tuple(_FORBIDDEN)):
        word = _FORBIDDEN[type(node)]
        yield (
            f"it uses '{word}', and templates cannot read other files",
            "Write the text out here, or give it as a parameter.",
            node.lineno,
        )
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("__"):
            yield reaches(attribute.attr), "Remove it.", attribute.lineno
    filters = [name for name in sandbox.filters if not name.startswith("_")]
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        assert isinstance(node, nodes.Filter | nodes.Test)
        kind, names = "filter", filters
        if isinstance(node, nodes.Test):
            kind, names = "test", list(sandbox.tests)
        if node.name not in names:
            yield f"there is no {kind} '{node.name}'", known(node.name, sorted(names)), node.lineno
        elif isinstance(node, nodes.Filter):
            for message, remedy in misuses(node):
                yield message, remedy, node.lineno
