"""Expressions, values and templates: the API of the expression language.

A text is compiled once: its tree, what it reads (`Reference`), what it must not contain, whether
it is one expression. It is rendered in the sandbox over scopes of plain JSON data. Every failure,
when compiling or running, is an `ExpressionError`. Knows no steps and no files.

`Expression.of` compiles a text without braces, `Template.of` one with them, `Value.of` and
`Value.scan` every text of nested data; behind all is `compile_text`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from jinja2 import TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.runtime import Undefined
from pydantic_core import core_schema

from paddock.engine.system.records import SelectiveFields, Struct
from paddock.engine.system.template_limits import TemplateLimitExceeded
from paddock.engine.system.template_sandbox import (
    METHODS,
    closed_attribute_message,
    undeclared_variables,
)
from paddock.engine.system.text import nested_values, one_line

from .errors import MustBe, did_you_mean
from .filter_misuses import misuses
from .template_sandbox import MissingValueError, environment
from .typed_rows import without_types

Reference = tuple[str, ...]
"""A dotted path from its root: ("steps", "text", "pages")."""


def step_of(reference: Sequence[str]) -> str | None:
    """Return the step or block that is read; None: no single one is."""
    return reference[1] if reference[0] == "steps" and len(reference) > 1 else None


def steps_read(references: Iterable[Reference]) -> set[str]:
    return {step for step in map(step_of, references) if step is not None}


_FORBIDDEN_NODES: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
}
_METHODS = METHODS[dict] | METHODS[str] | METHODS[list] | {"replace", "join"}


def references(tree: nodes.Template | nodes.Expr) -> frozenset[Reference]:
    chains = [*_chains(tree)]
    free = {chain[0] for chain in chains}
    if any(name.ctx != "load" for name in tree.find_all(nodes.Name)):
        assert isinstance(tree, nodes.Template)  # only statements make names
        free = undeclared_variables(tree)
    free -= set(environment().globals)
    return frozenset(chain for chain in chains if chain[0] in free)


def _chains(node: nodes.Node) -> Iterator[Reference]:
    chain = chain_of(node)
    if chain is not None:
        yield chain
        return
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        # `doc.get('x')` reads an unknown key of `doc`, so it counts as all of it.
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
        elif isinstance(node, nodes.Getitem) and (name := _constant_text(node.arg)) is not None:
            parts.append(name)
        else:
            return None
        node = node.node
    return (node.name, *reversed(parts)) if node.ctx == "load" else None


def _constant_text(node: nodes.Node) -> str | None:
    is_text = isinstance(node, nodes.Const) and isinstance(node.value, str)
    return node.value if is_text else None  # type: ignore[attr-defined]  # a constant has a value


LIST_ELEMENT = "[]"
"""In a path: the items of a list: ("steps", "each", "results", "[]", "kind")."""
_WITH_ATTRIBUTE = ("map", "sort", "sum", "min", "max", "unique", "join", "groupby")
_FIRST_IS_ATTRIBUTE = ("groupby", "selectattr", "rejectattr")


def element_reads(tree: nodes.Template | nodes.Expr) -> Iterator[Reference]:
    """Yield what is read of items in lists: by index, filter or loop."""
    kinds = (nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.For)
    for node in [tree, *tree.find_all(kinds)]:
        path, names = _list_read(node)
        if path is not None:
            yield from ((*path, LIST_ELEMENT, name) for name in names)


def _list_read(node: nodes.Node) -> tuple[Reference | None, Iterable[str]]:
    """Return the path of a list, and the names that a node reads of its items."""
    match node:
        case nodes.Getattr() | nodes.Getitem():
            name = node.attr if isinstance(node, nodes.Getattr) else _constant_text(node.arg)
            names = {name} - _METHODS if name is not None else ()
            match node.node:  # one item of a list: `a.b[0]`, `a.b | first`
                case nodes.Getitem(arg=nodes.Const(value=int() as index)) as item:
                    return chain_of(item.node) if type(index) is int else None, names
                case nodes.Filter(name="first" | "last", node=nodes.Node() as filtered):
                    return chain_of(filtered), names
            return None, names
        case nodes.Filter(node=nodes.Node() as filtered):
            given = [keyword.value for keyword in node.kwargs if keyword.key == "attribute"]
            given += node.args[:1] if node.name in _FIRST_IS_ATTRIBUTE else []
            takes_one = node.name in (*_WITH_ATTRIBUTE, *_FIRST_IS_ATTRIBUTE)
            name = _constant_text(given[0]) if takes_one and given else None
            return chain_of(filtered), [name.split(".")[0]] if name else ()
        case nodes.For(
            target=nodes.Name() as item,
            iter=nodes.Filter(name="_turns", node=nodes.Node() as over),  # compiled before
        ):
            return chain_of(over), _read_in(node, item.name)
        case nodes.For(target=nodes.Name() as item):
            return chain_of(node.iter), _read_in(node, item.name)
    return None, ()


def _read_in(loop: nodes.For, var: str) -> Iterator[str]:
    """Yield the fields of a loop's variable that its body reads; none if the body sets its name."""
    body = nodes.Template(loop.body, lineno=loop.lineno)
    if any(name.name == var and name.ctx != "load" for name in body.find_all(nodes.Name)):
        return
    for read in body.find_all(nodes.Getattr):
        is_of_var = isinstance(read.node, nodes.Name) and read.node.name == var
        if is_of_var and read.attr not in _METHODS:
            yield read.attr


def forbidden_nodes(tree: nodes.Template) -> Iterator[tuple[str, str, int]]:
    """Yield sentence, remedy and line of everything that a template may not contain."""
    sandbox = environment()
    for node in tree.find_all(tuple(_FORBIDDEN_NODES)):
        word = _FORBIDDEN_NODES[type(node)]
        yield (
            f"it uses '{word}', but templates cannot read other files",
            "Write the text out here, or give it as a parameter.",
            node.lineno,
        )
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("__"):
            yield closed_attribute_message(attribute.attr), "Remove it.", attribute.lineno
    filters = [name for name in sandbox.filters if not name.startswith("_")]
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        assert isinstance(node, nodes.Filter | nodes.Test)
        kind, names = "filter", filters
        if isinstance(node, nodes.Test):
            kind = "test"
            names = list(sandbox.tests)
        if node.name not in names:
            yield (
                f"there is no {kind} '{node.name}'",
                did_you_mean(node.name, sorted(names)),
                node.lineno,
            )
        elif isinstance(node, nodes.Filter):
            for message, remedy in misuses(node):
                yield message, remedy, node.lineno


Path: TypeAlias = tuple[str | int, ...]
"""The path of a value within another: keys and indexes."""

MAX_SOURCE_CHARS = 1024 * 1024
MAX_TAGS = 10_000  # Jinja takes 0.1 ms for each
_RESULT = "result"


class ExpressionError(Exception):
    def __init__(
        self, message: str, remedy: str = "", *, path: Path = (), line: int | None = None
    ) -> None:
        self.message = message
        self.remedy = remedy
        self.path = path
        """Where within a nested value."""
        self.line = line
        """The line within the template, from 1."""
        super().__init__(f"{message}. {remedy}".strip() if remedy else message)


class Expression(SelectiveFields, Struct, frozen=True, dict=True):
    """A bare expression, as under `if`, `for_each`, `key`, `check` and `returns`, or a template.

    Its code is made when it is first needed.
    """

    hidden = ("tree", "references", "reads", "is_text", "chain")
    uncompared = ("tree", "references", "reads", "is_text", "chain")

    source: str
    tree: nodes.Template
    """Its syntax tree; read-only."""
    references: frozenset[Reference]
    reads: frozenset[Reference]
    """The same, and what it reads of items in lists (see `element_reads`)."""
    is_text: bool
    """A template with more than one expression: its value is a text."""
    chain: Reference | None
    """The path, if the expression is only a path."""

    @classmethod
    def of(cls, source: str) -> Expression:
        return compile_text(source, bare=True)

    @cached_property
    def _code(self) -> Any:
        code = environment().from_string(self.tree)
        code.globals = {**code.globals}  # Jinja makes a chain of mappings, and reads all each time
        return code

    def evaluate(self, scope: Mapping[str, Any], *, keeps_types: bool = False) -> Any:
        """Return its value; rows with types are plain lists unless these are kept."""
        if self.chain is not None:
            found = _look_up(scope, self.chain)
            if found is not _ABSENT:
                return found if keeps_types else without_types(found)
        try:
            with environment().rendering(scope):
                if self.is_text:
                    return self._code.render(scope)
                context = self._code.new_context(dict(scope))
                for _ in self._code.root_render_func(context):
                    pass
                return plain_data(context.vars[_RESULT])
        except ExpressionError:
            raise
        except Exception as error:
            raise _as_expression_error(self.source, error) from error


_ABSENT = object()


def _look_up(scope: Mapping[str, Any], chain: Reference) -> Any:
    value: Any = scope
    for name in chain:
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def plain_data(value: Any) -> Any:
    """Convert a value to plain JSON data: tuples and generators become lists."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): plain_data(item) for name, item in value.items()}
    if isinstance(value, Undefined):
        str(value)  # raises, with the name
    if hasattr(value, "__iter__") and not callable(value):
        return [plain_data(item) for item in value]
    raise TemplateLimitExceeded("its result is not plain data")


def _as_expression_error(source: str, error: Exception) -> ExpressionError:
    shown = _excerpt(source)
    if isinstance(error, MissingValueError):
        return ExpressionError(f"{error.message} (in '{shown}')", error.remedy)
    if isinstance(error, TemplateLimitExceeded):
        return ExpressionError(f"'{shown}' is refused: {error}")
    if isinstance(error, RecursionError | MemoryError | SyntaxError):
        return ExpressionError(f"'{shown}' is refused: it is nested too deeply")
    remedy = _KINDS_DIFFER if isinstance(error, TypeError) else ""
    return ExpressionError(f"'{shown}' failed: {error or type(error).__name__}", remedy)


_KINDS_DIFFER = (
    "Values of different kinds: `| number_in` makes a number of a text. Cells of a CSV are texts "
    "unless `columns` or `types: auto` of `files.rows` says otherwise."
)


def _excerpt(source: str, line_number: int | None = None) -> str:
    lines = source.splitlines()
    if line_number is not None and 0 < line_number <= len(lines):
        source = lines[line_number - 1]
    return one_line(source, 80)


@lru_cache(maxsize=512)  # checks, taint analysis and binding of a pipeline compile the same texts
def compile_text(source: str, *, bare: bool) -> Expression:
    """Compile a template, or with `bare` an expression without braces."""
    if len(source) > MAX_SOURCE_CHARS:
        raise ExpressionError(f"the text has more than {MAX_SOURCE_CHARS:,} characters")
    if not bare and source.count("{{") + source.count("{%") > MAX_TAGS:
        raise ExpressionError(f"the text has more than {MAX_TAGS:,} `{{{{ }}}}` and `{{% %}}`")
    try:
        return _compiled(source, bare=bare)
    except TemplateSyntaxError as error:
        raise _syntax_error(source, error, bare=bare) from error
    except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise _as_expression_error(source, error) from error


def _compiled(source: str, *, bare: bool) -> Expression:
    lone: nodes.Expr | None = None
    if bare:
        parser = Parser(environment(), source, state="variable")
        lone = parser.parse_expression()
        if not parser.stream.eos:
            raise TemplateSyntaxError(f"unexpected '{parser.stream.current.value}'", 1)
    else:
        tree = environment().parse(source)
        match tree.body:
            case [nodes.Output(nodes=[nodes.Expr() as only])]:
                is_whole = source.startswith("{{") and source.endswith("}}")
                lone = only if is_whole and not isinstance(only, nodes.TemplateData) else None
    if lone is not None:
        tree = _assigned(lone)
    for message, remedy, line in forbidden_nodes(tree):
        shown = _excerpt(source, line)
        raise ExpressionError(f"'{shown}' is refused: {message}", remedy, line=line)
    if tree.find(nodes.For) is not None:
        environment().with_metered_loops(tree)
    return _expression(source, tree, lone)


def _assigned(lone: nodes.Expr) -> nodes.Template:
    target = nodes.Name(_RESULT, "store", lineno=1)
    return nodes.Template([nodes.Assign(target, lone, lineno=1)], lineno=1)


def _expression(source: str, tree: nodes.Template, lone: nodes.Expr | None) -> Expression:
    """`lone`: the only expression, which `tree` assigns; None: `tree` is a text."""
    whole = tree if lone is None else lone
    read = references(whole)
    reads = read
    if "results" in source:  # only results of blocks have fields that are known before a run
        reads = read.union(path for path in element_reads(whole) if path[0] == "steps")
    chain = chain_of(lone) if lone is not None else None
    return Expression(source, tree, read, reads, lone is None, chain)


def template_pieces(source: str) -> list[str | Expression]:
    """Return the texts and expressions of a template in their order.

    From its first statement on all is one piece, since statements may make names.

    Raises:
        ExpressionError: it cannot be read.
    """
    expression = compile_text(source, bare=False)
    if not expression.is_text:
        return [expression]
    pieces: list[str | Expression] = []
    for number, node in enumerate(expression.tree.body):
        if not isinstance(node, nodes.Output):
            rest = nodes.Template(
                expression.tree.body[number:], lineno=1, environment=environment()
            )
            return [*pieces, _expression(source, rest, None)]
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                pieces.append(part.data)
            else:
                pieces.append(_expression(source, _assigned(part), part))
    return pieces


def _syntax_error(source: str, error: TemplateSyntaxError, *, bare: bool) -> ExpressionError:
    if bare and "{{" in source:
        # Texts and expressions, by turns: `~` joins them.
        pieces = re.split(r"\{\{(.*?)\}\}", source.strip(), flags=re.DOTALL)
        parts = [
            piece.strip() if n % 2 else json.dumps(piece, ensure_ascii=False)
            for n, piece in enumerate(pieces)
            if piece
        ]
        return ExpressionError(
            f"'{_excerpt(source)}' stands in braces where a bare expression is expected",
            f"Write `{_excerpt(' ~ '.join(parts))}`.",
        )
    what = str(error.message or "it ends too early")
    for theirs, ours in (
        ("end of print statement", "}}"),
        ("end of statement block", "%}"),
        ("end of template", "the end"),
        ("Unexpected end of template.", "It ends too early."),
    ):
        what = what.replace(theirs, ours)
    return ExpressionError(
        f"cannot read the expression '{_excerpt(source, error.lineno)}': {what.rstrip('.')}",
        "Correct it; the language is Jinja2's.",
        line=error.lineno,
    )


TEMPLATE_START = re.compile(r"\{\{|\{%|\{#")
"""What begins an expression, a statement or a comment in a template."""
_BARE_STEP = re.compile(r"steps(\.[a-z][a-z0-9_]*)+\Z")


class Value(Struct, frozen=True, eq=False, dict=True):
    data: Any
    """As it is written."""
    expressions: Mapping[Path, Expression]
    tables: Collection[str] = ()
    """Names at the top whose values keep the types of rows."""

    @classmethod
    def of(cls, data: Any, *, bare: bool = False) -> Value:
        """Compile every text in `data`; with `bare`, each text is an expression without braces."""
        value, errors = cls.scan(data, bare=bare)
        if errors:
            raise errors[0]
        return value

    @classmethod
    def scan(
        cls, data: Any, *, bare: bool = False, tables: Collection[str] = ()
    ) -> tuple[Value, list[ExpressionError]]:
        """Compile every text; return the value and what could not be parsed."""
        places: dict[Path, Expression] = {}
        errors: list[ExpressionError] = []
        for path, text in nested_values(data):
            if not isinstance(text, str):
                continue
            try:
                if bare or TEMPLATE_START.search(text):
                    places[path] = compile_text(text, bare=bare)
                elif _BARE_STEP.match(text):
                    what, remedy = (
                        f"'{text}' is only a text here",
                        f"Did you mean `{{{{ {text} }}}}`?",
                    )
                    errors.append(ExpressionError(what, remedy, path=path))
            except ExpressionError as error:
                error.path = path
                errors.append(error)
        return cls(data, places, tables), errors

    @property
    def references(self) -> frozenset[Reference]:
        return frozenset().union(*(made.references for made in self.expressions.values()))

    def template(self, name: str) -> Template:
        """Return the text under a key as a template, without compiling it again."""
        source = self.data[name]
        made = self.expressions.get((name,))
        return Template.of(source) if made is None else Template(source, made, None, {})

    @cached_property
    def _render(self) -> Callable[[Mapping[str, Any]], Any]:
        """Renders `data`; checks of a pipeline need no such function."""
        return _renderer(self.data, (), self.expressions, self.tables)

    def render(
        self, scope: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        """Return the data with every expression's value in its place.

        `others`: the scopes of some of its keys.
        """
        if not others:
            return self._render(scope)
        parts = {
            name: _renderer(item, (name,), self.expressions, self.tables)
            for name, item in self.data.items()
        }
        return {name: render(others.get(name, scope)) for name, render in parts.items()}


def _renderer(
    data: Any, path: Path, places: Mapping[Path, Expression], tables: Collection[str]
) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that renders `data`; parts without expressions are constant."""
    if path in places:
        made, keeps_types = places[path], path[:1] != () and path[0] in tables

        def render_text(scope: Mapping[str, Any]) -> Any:
            try:
                return made.evaluate(scope, keeps_types=keeps_types)
            except ExpressionError as error:
                error.path = path
                raise

        return render_text
    if not any(place[: len(path)] == path for place in places):
        return lambda scope: data
    if isinstance(data, dict):
        items = [
            (name, _renderer(item, (*path, name), places, tables)) for name, item in data.items()
        ]
        return lambda scope: {name: render(scope) for name, render in items}
    parts = [_renderer(item, (*path, n), places, tables) for n, item in enumerate(data)]
    return lambda scope: [render(scope) for render in parts]


def loop_parts(block: Mapping[str, Any]) -> tuple[str, str]:
    """Return the loop variable and the list of a block as recorded: `{"for_each": "doc in …"}`."""
    var, _, listed = str(block.get("for_each", "")).partition(" in ")
    return var, listed


class Template(SelectiveFields, Struct, eq=False):
    """A text that a step renders itself, bound to the scope of its item.

    A step's `Params` declares `prompt: Template`; the step calls `params.prompt.render(chunk=…)`.
    """

    hidden = ("source", "_compiled", "_scope")

    source: str
    _compiled: Expression
    file: str | None
    _scope: Mapping[str, Any]

    @classmethod
    def of(cls, source: str, file: str | None = None) -> Template:
        return cls(source, compile_text(source, bare=False), file, {})

    @property
    def references(self) -> frozenset[Reference]:
        return self._compiled.references

    @property
    def reads(self) -> frozenset[Reference]:
        return self._compiled.reads

    def element_reads(self, names: Collection[str]) -> frozenset[Reference]:
        """Return what it reads of items in lists that have one of these names."""
        return frozenset(path for path in element_reads(self._compiled.tree) if path[0] in names)

    def bound(self, scope: Mapping[str, Any]) -> Template:
        return Template(self.source, self._compiled, self.file, scope)

    def render(self, **extra: Any) -> str:
        """Return the text; `extra` names take precedence over the scope."""
        text = self._compiled.evaluate({**self._scope, **extra})
        return text if isinstance(text, str) else str(text)

    def texts(self, **extra: Any) -> list[str]:
        """Return the texts that it inserts unchanged, such as `{{ steps.text.text }}`."""
        scope = {**self._scope, **extra}
        found = (_look_up(scope, path) for path in sorted(self.references))
        return [text for text in found if isinstance(text, str)]

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        def template_from(value: Any) -> Template:
            if isinstance(value, Template):
                return value
            if not isinstance(value, str):
                raise MustBe("must be text, or {file: PATH}")
            try:
                return Template.of(value)
            except ExpressionError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(template_from)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        return dict(TEMPLATE_JSON_SCHEMA)


TEMPLATE_JSON_SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"file": {"type": "string", "description": "Path of a template file."}},
            "required": ["file"],
            "additionalProperties": False,
        },
    ]
}
