"""From tokens to a tree, by the grammar of Go's text/template/parse."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NoReturn

from . import tree
from .errors import GoTemplateSyntaxError
from .lexer import Kind, Token, tokens

MAX_DEPTH = 60  # of actions and parentheses within each other; no chat template has ten
MAX_SOURCE_CHARS = 1024 * 1024

_OPERANDS: tuple[Kind, ...] = (
    "field", "variable", "dot", "word", "constant", "string", "nil",
)  # fmt: skip
_KEYWORDS = (
    "block", "break", "continue", "define", "else", "end", "if", "range", "template", "with",
)  # fmt: skip


def parse(source: str, functions: Collection[str]) -> dict[str, tree.Block]:
    """Give a source's templates by name; its own is called "".

    Raises:
        GoTemplateSyntaxError: it is none, or calls functions that there are not.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise GoTemplateSyntaxError(1, f"more than {MAX_SOURCE_CHARS:,} characters")
    return _Parser(list(tokens(source)), functions).templates()


class _Parser:
    """Walks over the tokens once."""

    def __init__(self, read: list[Token], functions: Collection[str]) -> None:
        self._tokens = read
        self._at = 0
        self._functions = functions
        self._templates: dict[str, tree.Block] = {}
        self._variables = ["$"]
        self._n_ranges = 0
        self._depth = 0

    def templates(self) -> dict[str, tree.Block]:
        nodes, stop = self._block()
        if stop is not None:
            self._fail(stop, f"unexpected {{{{{stop.source}}}}}")
        self._templates[""] = nodes
        return self._templates

    # Tokens.

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _skip_space(self) -> Token:
        """Give the next token that is no space, without taking it."""
        while self._peek().kind == "space":
            self._at += 1
        return self._peek()

    def _take(self, kind: Kind, where: str) -> Token:
        token = self._skip_space()
        if token.kind != kind:
            self._fail(token, f"unexpected {_named(token)} in {where}")
        return self._next()

    def _is_mark(self, *marks: str) -> bool:
        token = self._peek()
        return token.kind == "mark" and token.source in marks

    def _fail(self, token: Token, why: str) -> NoReturn:
        raise GoTemplateSyntaxError(token.line, why)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(self._peek(), f"more than {MAX_DEPTH} actions within each other")

    # Texts and actions.

    def _block(self) -> tuple[tree.Block, Token | None]:
        """Read up to an `end` or `else`, which is given too; None: up to the source's end."""
        nodes: list[tree.Node] = []
        while True:
            token = self._next()
            if token.kind == "end":
                return tuple(nodes), None
            if token.kind == "text":
                nodes.append(tree.Text(token.value))
                continue
            word = self._skip_space()
            if word.kind == "word" and word.source in ("end", "else"):
                self._next()
                return tuple(nodes), word
            node = self._action()
            if node is not None:
                nodes.append(node)

    def _action(self) -> tree.Node | None:
        token = self._peek()
        if token.kind != "word" or token.source not in _KEYWORDS:
            n_known = len(self._variables)
            pipe = self._pipe("command")
            if pipe.assigns:
                del self._variables[n_known:]
            self._take("close", "command")
            return tree.Action(pipe)
        self._next()
        match token.source:
            case "if" | "with":
                return self._branch("if" if token.source == "if" else "with")
            case "range":
                return self._range()
            case "break" | "continue":
                return self._jump(token)
            case "template":
                return self._call(token)
            case "block":
                return self._inline(token)
        self._define(token)
        return None

    def _inner(self, opened: Token) -> tuple[tree.Block, Token]:
        """Read what stands in an action that has an end."""
        self._deeper()
        body, stop = self._block()
        self._depth -= 1
        if stop is None:
            self._fail(opened, f"{{{{{opened.source}}}}} is not closed by {{{{end}}}}")
        return body, stop

    def _closed(self, opened: Token, where: str) -> tree.Block:
        """Read an action's last part."""
        body, stop = self._inner(opened)
        if stop.source != "end":
            self._fail(stop, f"expected end; found {{{{{stop.source}}}}}")
        self._take("close", where)
        return body

    def _branch(self, kind: Literal["if", "with"]) -> tree.Branch:
        n_known = len(self._variables)
        opened = self._tokens[self._at - 1]
        arms = []
        otherwise: tree.Block = ()
        while True:
            pipe = self._pipe(kind)
            self._take("close", kind)
            body, stop = self._inner(opened)
            arms.append((pipe, body))
            if stop.source == "end":
                self._take("close", "end")
                break
            word = self._skip_space()
            if word.kind == "word" and word.source == kind:
                self._next()
                continue
            self._take("close", "else")
            otherwise = self._closed(opened, "end")
            break
        del self._variables[n_known:]
        return tree.Branch(kind, tuple(arms), otherwise)

    def _range(self) -> tree.Range:
        n_known = len(self._variables)
        opened = self._tokens[self._at - 1]
        pipe = self._pipe("range")
        self._take("close", "range")
        self._n_ranges += 1
        body, stop = self._inner(opened)
        self._n_ranges -= 1
        otherwise: tree.Block = ()
        if stop.source == "else":
            self._take("close", "else")
            otherwise = self._closed(opened, "end")
        else:
            self._take("close", "end")
        del self._variables[n_known:]
        return tree.Range(pipe, body, otherwise)

    def _jump(self, token: Token) -> tree.Jump:
        if not self._n_ranges:
            self._fail(token, f"{{{{{token.source}}}}} outside {{{{range}}}}")
        self._take("close", token.source)
        return tree.Jump("break" if token.source == "break" else "continue")

    def _call(self, token: Token) -> tree.Call:
        name = self._take("string", "template clause").value
        pipe = None
        if self._skip_space().kind != "close":
            pipe = self._pipe("template")
        self._take("close", "template")
        return tree.Call(token.line, name, pipe)

    def _inline(self, token: Token) -> tree.Call:
        """Read a `block`: it is defined and called in one place."""
        name = self._take("string", "block clause").value
        pipe = self._pipe("block")
        self._take("close", "block")
        self._add(token, name)
        return tree.Call(token.line, name, pipe)

    def _define(self, token: Token) -> None:
        if self._depth:
            self._fail(token, "unexpected {{define}}")
        name = self._take("string", "define clause").value
        self._take("close", "define clause")
        self._add(token, name)

    def _add(self, opened: Token, name: str) -> None:
        outer, self._variables = self._variables, ["$"]
        n_ranges, self._n_ranges = self._n_ranges, 0
        body = self._closed(opened, "end")
        self._variables, self._n_ranges = outer, n_ranges
        if name in self._templates and any(map(_says, self._templates[name])):
            self._fail(opened, f"multiple definition of template {name!r}")
        self._templates[name] = body

    # Pipelines.

    def _pipe(self, where: str) -> tree.Pipe:
        """Read a pipeline up to a closing mark, which is left."""
        line = self._skip_space().line
        variables, assigns = self._declared(where)
        self._variables += variables
        commands = [self._command(where)]
        while self._is_mark("|"):
            self._next()
            commands.append(self._command(where))
        for number, command in enumerate(commands[1:], start=2):
            if isinstance(command.operands[0], tree.Constant | tree.Dot | tree.Nil):
                self._fail(self._peek(), f"non executable command in pipeline stage {number}")
        return tree.Pipe(line, tuple(commands), variables, assigns)

    def _declared(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Read `$x :=`, `$x =` or, in a range, `$i, $x :=` if they stand there."""
        begin = self._at
        found = []
        while self._skip_space().kind == "variable":
            found.append(self._next().source)
            self._skip_space()
            if self._is_mark(":=", "="):
                return tuple(found), self._next().source == "="
            if not self._is_mark(","):
                break
            token = self._next()
            if where != "range" or len(found) > 1:
                self._fail(token, f"too many declarations in {where}")
        self._at = begin
        return (), False

    def _command(self, where: str) -> tree.Command:
        token = self._skip_space()
        operands: list[tree.Operand] = []
        while True:
            last = self._skip_space()
            if last.kind == "close" or self._is_mark("|", ")"):
                break
            operands.append(self._operand(where))
            after = self._peek()
            if after.kind not in ("space", "close") and not self._is_mark("|", ")"):
                self._fail(after, f"unexpected {_named(after)} in operand")
        if not operands:
            why = f"missing value for {where}" if where != "command" else "empty command"
            self._fail(token, why)
        if len(operands) > 1 and isinstance(operands[0], tree.Constant | tree.Dot | tree.Nil):
            self._fail(token, f"can't give argument to non-function {token.source}")
        return tree.Command(token.line, tuple(operands))

    def _operand(self, where: str) -> tree.Operand:
        token = self._peek()
        operand = self._term(where)
        names = []
        while self._peek().kind == "field":
            names.append(self._next().value)
        if not names:
            return operand
        match operand:
            case tree.Field(first):
                return tree.Field((*first, *names))
            case tree.Variable(name, first):
                return tree.Variable(name, (*first, *names))
            case tree.Constant() | tree.Nil() | tree.Dot():
                self._fail(token, f"unexpected . after term {token.source!r}")
        return tree.Chain(operand, tuple(names))

    def _term(self, where: str) -> tree.Operand:
        token = self._peek()
        if self._is_mark("("):
            self._next()
            self._deeper()
            pipe = self._pipe("parenthesized pipeline")
            self._depth -= 1
            if not self._is_mark(")"):
                self._fail(token, "unclosed left paren")
            self._next()
            return pipe
        if token.kind not in _OPERANDS or token.source in _KEYWORDS:
            self._fail(token, f"unexpected {_named(token)} in {where}")
        self._next()
        match token.kind:
            case "field":
                return tree.Field((token.value,))
            case "variable":
                if token.source not in self._variables:
                    self._fail(token, f"undefined variable {token.source!r}")
                return tree.Variable(token.source)
            case "dot":
                return tree.Dot()
            case "nil":
                return tree.Nil()
            case "word":
                if token.source not in self._functions:
                    self._fail(token, f"function {token.source!r} not defined")
                return tree.Function(token.source)
        return tree.Constant(token.value)


def _named(token: Token) -> str:
    if token.kind == "end":
        return "the end of the template"
    return "{{end}}" if token.source == "end" else repr(token.source)


def _says(node: tree.Node) -> bool:
    return not isinstance(node, tree.Text) or bool(node.text.strip())
