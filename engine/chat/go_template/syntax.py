"""Parse a Go template: text to tokens, tokens to a syntax tree of plain values.

The grammar is that of Go's text/template/parse, the language that of pkg.go.dev/text/template:
actions are between `{{` and `}}`; a minus sign and a space inside them trim the text on that side.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Literal, NoReturn

from paddock.engine.system.light_dataclasses import dataclass, fields, is_dataclass, replace


class GoTemplateError(Exception):
    """A template that cannot be parsed or executed."""

    def __init__(self, line: int, why: str) -> None:
        self.line = line
        self.why = why
        super().__init__(f"line {line}: {why}")


class GoTemplateSyntaxError(GoTemplateError):
    """A template that cannot be parsed."""


class GoTemplateExhausted(GoTemplateError):
    """A template that exceeds a limit."""


@dataclass(frozen=True, slots=True)
class Dot:
    """The current value."""


@dataclass(frozen=True, slots=True)
class Nil:
    """The constant `nil`."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text or a boolean."""

    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: fields of the dot."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A.B`: a variable, and fields of it."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionName:
    """A function by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """`(…).A.B`: fields of another operand's value."""

    operand: Operand
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PipeCommand:
    """An operand, or a function with its arguments."""

    line: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands; each gets the value of the one before. Variables may keep the result."""

    line: int
    commands: tuple[PipeCommand, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False
    """Whether the variables exist already (`=`) or are declared here (`:=`)."""


Operand = Dot | Nil | Constant | Field | Variable | FunctionName | Chain | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    """Text between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A value that is printed unless it is assigned to a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """`if` or `with`; each `else if` is one more arm."""

    kind: Literal["if", "with"]
    arms: tuple[tuple[Pipe, Block], ...]
    otherwise: Block = ()


@dataclass(frozen=True, slots=True)
class Range:
    """A loop; `otherwise` is executed if there is nothing to iterate over."""

    pipe: Pipe
    body: Block
    otherwise: Block = ()


@dataclass(frozen=True, slots=True)
class TemplateCall:
    """A call of another template of the same source."""

    line: int
    name: str
    pipe: Pipe | None


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    kind: Literal["break", "continue"]


Node = Text | Action | Branch | Range | TemplateCall | Jump
Block = tuple[Node, ...]


def field_names(part: Any) -> frozenset[str]:
    """Return the names of all fields in a node, or in a block."""
    return frozenset(
        name
        for node in _walk(part)
        if isinstance(node, Field | Variable | Chain)
        for name in node.names
    )


def _walk(part: Any) -> Iterator[Any]:
    """Yield a node, or those of a tuple, and all nodes inside."""
    if isinstance(part, tuple):
        for node in part:
            yield from _walk(node)
    elif is_dataclass(part):
        yield part
        for field in fields(part):
            yield from _walk(getattr(part, field.name))


def cut_after_field(block: Block, name: str) -> tuple[Block, bool]:
    """Return a block up to the first action that prints a field, and whether there is one.

    Each arm of a branch is cut by itself, because only one of them is executed.
    """
    kept: list[Node] = []
    for node in block:
        found = False
        if isinstance(node, Action):
            found = name in field_names(node.pipe)
        elif isinstance(node, Branch):
            cuts = [(pipe, cut_after_field(body, name)) for pipe, body in node.arms]
            otherwise, found = cut_after_field(node.otherwise, name)
            found = found or any(is_cut for _, (_, is_cut) in cuts)
            node = replace(
                node, arms=tuple((pipe, body) for pipe, (body, _) in cuts), otherwise=otherwise
            )
        elif isinstance(node, Range):
            body, found = cut_after_field(node.body, name)
            node = replace(node, body=body)
        kept.append(node)
        if found:
            return tuple(kept), True
    return tuple(kept), False


TokenKind = Literal[
    "text",  # between actions; `value` is the text
    "open",  # {{
    "close",  # }}
    "space",
    "field",  # .Name; `value` is the name
    "variable",  # $ or $name; `value` is the whole
    "dot",
    "word",  # a function or keyword
    "constant",  # a number, a character, a text, true, false; `value` is its value
    "string",  # a constant that is a text
    "nil",
    "mark",  # ( ) | , = :=
    "end",
]

_SPACES = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `source` is its text."""

    kind: TokenKind
    source: str
    line: int
    value: Any = None


_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
                 |(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?))
    | \.(?P<field>\w+)
    | (?P<dot>\.)
    | (?P<variable>\$\w*)
    | (?P<word>\w+)
    | (?P<string>"(?:\\.|[^"\\\n])*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:\\.[^']*|[^'\\\n])')
    | (?P<mark>:=|[()|,=])
    """,
    re.VERBOSE | re.DOTALL,
)
_ENDS_WORD = re.compile(r"[ \t\r\n.,|:)(]|\}\}|$")


def tokenise(source: str) -> Iterator[Token]:
    """Yield a template's tokens; the last one is `end`.

    Raises:
        GoTemplateSyntaxError: the source has an invalid token.
    """
    at, line = 0, 1
    is_trimmed = False
    while True:
        start = source.find("{{", at)
        text = source[at:] if start < 0 else source[at:start]
        first, line = line, line + text.count("\n")
        if is_trimmed:
            text = text.lstrip(_SPACES)
        trims = start >= 0 and source[start + 2 : start + 3] == "-" and _is_space(source, start + 3)
        if trims:
            text = text.rstrip(_SPACES)
        if text:
            yield Token("text", text, first, text)
        if start < 0:
            yield Token("end", "", line)
            return
        inside = start + (3 if trims else 2)
        # The space after a trimming minus sign is part of the mark.
        commented = _comment_end(source, inside + 1 if trims else inside)
        if commented is None:
            action = _ActionLexer(source, inside, line)
            yield from action.tokens()
            commented = action.end
        at, is_trimmed = commented
        line += source.count("\n", start, at)


def _is_space(source: str, at: int) -> bool:
    return source[at : at + 1] != "" and source[at] in _SPACES


def _line_of(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def _comment_end(source: str, at: int) -> tuple[int, bool] | None:
    """Return where a comment ends and whether it trims the text after it; None: no comment."""
    if not source.startswith("/*", at):
        return None
    closes = source.find("*/", at + 2)
    if closes < 0:
        raise GoTemplateSyntaxError(_line_of(source, at), "unclosed comment")
    end = closes + 2
    if source.startswith("}}", end):
        return end + 2, False
    if _is_space(source, end) and source.startswith("-}}", end + 1):
        return end + 4, True
    raise GoTemplateSyntaxError(_line_of(source, end), "comment ends before closing delimiter")


class _ActionLexer:
    """Splits one action, between `{{` and `}}`, into tokens."""

    def __init__(self, source: str, inside: int, line: int) -> None:
        self._source = source
        self._at = inside
        self._first_line = self._line = line
        self.end = (inside, False)
        """Its end, and whether it trims the text after it; known after the last token."""

    def tokens(self) -> Iterator[Token]:
        yield Token("open", "{{", self._line)
        while not self._is_closed():
            yield self._next()
        yield Token("close", "}}", self._line)

    def _is_closed(self) -> bool:
        trims = _is_space(self._source, self._at) and self._source.startswith("-}}", self._at + 1)
        if not trims and not self._source.startswith("}}", self._at):
            return False
        self.end = (self._at + (4 if trims else 2), trims)
        return True

    def _next(self) -> Token:
        found = _TOKEN.match(self._source, self._at)
        if found is None:
            raise self._bad()
        kind, text, line = found.lastgroup or "", found.group(), self._line
        self._at = found.end()
        self._line += text.count("\n")
        if kind == "space":
            # The space before a closing `-}}` belongs to it.
            if self._source.startswith("-}}", self._at):
                self._at -= 1
                text = text[:-1]
            return Token("space", text, line)
        if kind in ("field", "variable", "word", "number") and not _ENDS_WORD.match(
            self._source, self._at
        ):
            raise self._bad()
        match kind:
            case "field":
                return Token("field", text, line, text[1:])
            case "variable":
                return Token("variable", text, line, text)
            case "number":
                return Token("constant", text, line, _parse_number(text, line))
            case "char":
                value = _parse_quoted(text, line)
                if len(value) != 1:
                    raise GoTemplateSyntaxError(line, f"malformed character constant: {text}")
                return Token("constant", text, line, ord(value))
            case "string":
                return Token("string", text, line, _parse_quoted(text, line))
            case "raw":
                return Token("string", text, line, text[1:-1].replace("\r", ""))
            case "word" if text in ("true", "false"):
                return Token("constant", text, line, text == "true")
            case "word" if text == "nil":
                return Token("nil", text, line)
            case "dot":
                return Token("dot", text, line)
            case "mark":
                return Token("mark", text, line)
        return Token("word", text, line)

    def _bad(self) -> GoTemplateSyntaxError:
        rest = self._source[self._at : self._at + 1]
        if not rest:
            return GoTemplateSyntaxError(self._first_line, "unclosed action")
        if rest in "\"'`":
            return GoTemplateSyntaxError(self._line, f"unterminated or malformed quote {rest}")
        return GoTemplateSyntaxError(self._line, f"unexpected {rest!r} in an action")


def _parse_number(text: str, line: int) -> int | float:
    plain = text.replace("_", "")
    try:
        if re.fullmatch(r"[+-]?0[0-7]+", plain):
            value: int | float = int(plain, 8)
        elif re.fullmatch(r"[+-]?(?:0|[1-9][0-9]*|0[xXbBoO][0-9a-fA-F]+)", plain):
            value = int(plain, 0)
        else:
            value = float(plain)
    except (ValueError, OverflowError):
        raise GoTemplateSyntaxError(line, f"bad number syntax: {text!r}") from None
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise GoTemplateSyntaxError(line, f"integer overflow: {text!r}")
    return value


_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)


def _parse_quoted(text: str, line: int) -> str:
    """Return the value of a quoted text; escaped bytes are UTF-8, as in Go."""
    quote, raw, at = text[0], bytearray(), 1
    for found in _ESCAPE.finditer(text, 1, len(text) - 1):
        raw += text[at : found.start()].encode("utf-8", "replace")
        at = found.end()
        raw += _replace_escape(found, quote, text, line)
    raw += text[at:-1].encode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def _replace_escape(found: re.Match[str], quote: str, text: str, line: int) -> bytes:
    byte, octal, short, long, other = found.groups()
    if byte or octal:
        number = int(byte, 16) if byte else int(octal, 8)
        if number < 256:
            return bytes([number])
    elif short or long:
        number = int(short or long, 16)
        if number < 0xD800 or 0xE000 <= number <= 0x10FFFF:
            return chr(number).encode()
    elif other == quote or other in _ESCAPES:
        return _ESCAPES.get(other, quote).encode()
    raise GoTemplateSyntaxError(line, f"bad escape {found.group()!r} in {text}")


MAX_DEPTH = 60  # of nested actions and parentheses; no chat template has ten
MAX_SOURCE_CHARS = 1024 * 1024

_OPERANDS: tuple[TokenKind, ...] = (
    "field", "variable", "dot", "word", "constant", "string", "nil",
)  # fmt: skip
_KEYWORDS = (
    "block", "break", "continue", "define", "else", "end", "if", "range", "template", "with",
)  # fmt: skip


def parse(source: str, functions: Collection[str]) -> dict[str, Block]:
    """Return a source's templates by name; the main one is "".

    Raises:
        GoTemplateSyntaxError: its syntax is invalid, or it calls an unknown function.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise GoTemplateSyntaxError(1, f"more than {MAX_SOURCE_CHARS:,} characters")
    return _Parser(list(tokenise(source)), functions).templates()


class _Parser:
    """Builds the syntax tree in one pass over the tokens."""

    def __init__(self, read: list[Token], functions: Collection[str]) -> None:
        self._tokens = read
        self._at = 0
        self._functions = functions
        self._templates: dict[str, Block] = {}
        self._variables = ["$"]
        self._n_ranges = 0
        self._depth = 0

    def templates(self) -> dict[str, Block]:
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
        """Return the next token that is no space, without consuming it."""
        while self._peek().kind == "space":
            self._at += 1
        return self._peek()

    def _take(self, kind: TokenKind, where: str) -> Token:
        token = self._skip_space()
        if token.kind != kind:
            self._fail(token, f"unexpected {_described_token(token)} in {where}")
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

    def _block(self) -> tuple[Block, Token | None]:
        """Parse up to `end` or `else`, and return that token too; None: the source's end."""
        nodes: list[Node] = []
        while True:
            token = self._next()
            if token.kind == "end":
                return tuple(nodes), None
            if token.kind == "text":
                nodes.append(Text(token.value))
                continue
            word = self._skip_space()
            if word.kind == "word" and word.source in ("end", "else"):
                self._next()
                return tuple(nodes), word
            node = self._action()
            if node is not None:
                nodes.append(node)

    def _action(self) -> Node | None:
        token = self._peek()
        if token.kind != "word" or token.source not in _KEYWORDS:
            n_known = len(self._variables)
            pipe = self._pipe("command")
            if pipe.assigns:
                del self._variables[n_known:]
            self._take("close", "command")
            return Action(pipe)
        self._next()
        match token.source:
            case "if" | "with":
                return self._branch("if" if token.source == "if" else "with")
            case "range":
                n_known = len(self._variables)
                opened = self._tokens[self._at - 1]
                pipe = self._pipe("range")
                self._take("close", "range")
                self._n_ranges += 1
                body, stop = self._inner(opened)
                self._n_ranges -= 1
                otherwise: Block = ()
                if stop.source == "else":
                    self._take("close", "else")
                    otherwise = self._closed(opened, "end")
                else:
                    self._take("close", "end")
                del self._variables[n_known:]
                return Range(pipe, body, otherwise)
            case "break" | "continue":
                if not self._n_ranges:
                    self._fail(token, f"{{{{{token.source}}}}} outside {{{{range}}}}")
                self._take("close", token.source)
                return Jump("break" if token.source == "break" else "continue")
            case "template":
                name = self._take("string", "template clause").value
                is_bare = self._skip_space().kind == "close"
                given = None if is_bare else self._pipe("template")
                self._take("close", "template")
                return TemplateCall(token.line, name, given)
            case "block":
                name = self._take("string", "block clause").value
                pipe = self._pipe("block")
                self._take("close", "block")
                self._add(token, name)
                return TemplateCall(token.line, name, pipe)
        if self._depth:
            self._fail(token, "unexpected {{define}}")
        name = self._take("string", "define clause").value
        self._take("close", "define clause")
        self._add(token, name)
        return None

    def _inner(self, opened: Token) -> tuple[Block, Token]:
        """Parse the body of an action, up to its `end` or `else`."""
        self._deeper()
        body, stop = self._block()
        self._depth -= 1
        if stop is None:
            self._fail(opened, f"{{{{{opened.source}}}}} is not closed by {{{{end}}}}")
        return body, stop

    def _closed(self, opened: Token, where: str) -> Block:
        """Parse an action's last body, up to its `end`."""
        body, stop = self._inner(opened)
        if stop.source != "end":
            self._fail(stop, f"expected end; found {{{{{stop.source}}}}}")
        self._take("close", where)
        return body

    def _branch(self, kind: Literal["if", "with"]) -> Branch:
        n_known = len(self._variables)
        opened = self._tokens[self._at - 1]
        arms = []
        otherwise: Block = ()
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
        return Branch(kind, tuple(arms), otherwise)

    def _add(self, opened: Token, name: str) -> None:
        outer, self._variables = self._variables, ["$"]
        n_ranges, self._n_ranges = self._n_ranges, 0
        body = self._closed(opened, "end")
        self._variables, self._n_ranges = outer, n_ranges
        known = self._templates.get(name, ())
        if any(not isinstance(node, Text) or node.text.strip() for node in known):
            self._fail(opened, f"multiple definition of template {name!r}")
        self._templates[name] = body

    # Pipelines.

    def _pipe(self, where: str) -> Pipe:
        """Parse a pipeline up to a closing mark, which is not consumed."""
        line = self._skip_space().line
        variables, assigns = self._declared(where)
        self._variables += variables
        commands = [self._command(where)]
        while self._is_mark("|"):
            self._next()
            commands.append(self._command(where))
        for number, command in enumerate(commands[1:], start=2):
            if isinstance(command.operands[0], Constant | Dot | Nil):
                self._fail(self._peek(), f"non executable command in pipeline stage {number}")
        return Pipe(line, tuple(commands), variables, assigns)

    def _declared(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Parse `$x :=`, `$x =` or, in a range, `$i, $x :=`, if present."""
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

    def _command(self, where: str) -> PipeCommand:
        token = self._skip_space()
        operands: list[Operand] = []
        while True:
            last = self._skip_space()
            if last.kind == "close" or self._is_mark("|", ")"):
                break
            operands.append(self._operand(where))
            after = self._peek()
            if after.kind not in ("space", "close") and not self._is_mark("|", ")"):
                self._fail(after, f"unexpected {_described_token(after)} in operand")
        if not operands:
            why = f"missing value for {where}" if where != "command" else "empty command"
            self._fail(token, why)
        if len(operands) > 1 and isinstance(operands[0], Constant | Dot | Nil):
            self._fail(token, f"can't give argument to non-function {token.source}")
        return PipeCommand(token.line, tuple(operands))

    def _operand(self, where: str) -> Operand:
        token = self._peek()
        operand = self._term(where)
        names = []
        while self._peek().kind == "field":
            names.append(self._next().value)
        if not names:
            return operand
        match operand:
            case Field(first):
                return Field((*first, *names))
            case Variable(name, first):
                return Variable(name, (*first, *names))
            case Constant() | Nil() | Dot():
                self._fail(token, f"unexpected . after term {token.source!r}")
        return Chain(operand, tuple(names))

    def _term(self, where: str) -> Operand:
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
            self._fail(token, f"unexpected {_described_token(token)} in {where}")
        self._next()
        match token.kind:
            case "field":
                return Field((token.value,))
            case "variable":
                if token.source not in self._variables:
                    self._fail(token, f"undefined variable {token.source!r}")
                return Variable(token.source)
            case "dot":
                return Dot()
            case "nil":
                return Nil()
            case "word":
                if token.source not in self._functions:
                    self._fail(token, f"function {token.source!r} not defined")
                return FunctionName(token.source)
        return Constant(token.value)


def _described_token(token: Token) -> str:
    if token.kind == "end":
        return "the end of the template"
    return "{{end}}" if token.source == "end" else repr(token.source)
