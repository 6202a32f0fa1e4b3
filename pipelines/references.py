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
