"""Built-in tools: arithmetic, time, JSON, HTTP, and files of the allowed folders.

Each is a function with typed arguments; its JSON Schema comes from these. The calculator evaluates
an expression with exact fractions where it can, and limits its size.
"""

from __future__ import annotations

import ast
import asyncio
import decimal
import math
import operator
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paddock.engine.system.text import counted, listed
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import OutsideRoots, Roots, StepError, ToolResult
from paddock.steps.files.scan import BadPattern, FolderWalk, Globs
from paddock.steps.paths import printable, resolve_path
from paddock.steps.readers import documents, reader_process

from .function_worker import validation_sentence
from .tool import RunnableTool, ToolContext, tool_refusal, tool_result

Number = int | Decimal

_MOST_CHARACTERS = 1_000
_MOST_NODES = 300
_MOST_BITS = 4_096  # some 1,200 digits
_DIGITS = 34
_CONTEXT = decimal.Context(
    prec=_DIGITS, Emax=6_000, Emin=-6_000,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)  # fmt: skip
# Other signs for multiplication, division and minus.
_SIGNS = str.maketrans("\u00d7\u00b7\u00f7\u2212\u2013", "**/--")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_CONSTANTS: Mapping[str, Number] = {"pi": Decimal(repr(math.pi)), "e": Decimal(repr(math.e))}


class CalculationError(Exception):
    """Not arithmetic, or without a result; the message is a plain sentence."""


def evaluate(expression: str) -> Number:
    """Return the value.

    >>> evaluate("1,234 * 2 + 0.1 + 0.2"), evaluate("2 ^ 10"), evaluate("sqrt(16)")
    (Decimal('2468.3'), 1024, 4)

    Raises:
        CalculationError: it is not arithmetic, or has no result.
    """
    tree = _parsed_expression(expression)
    try:
        with decimal.localcontext(_CONTEXT) as context:
            return _normalised(_value(tree, context))
    except ZeroDivisionError:
        raise CalculationError("it divides by zero.") from None
    except (decimal.Overflow, OverflowError):
        raise CalculationError("the result is too large.") from None
    except (decimal.InvalidOperation, ValueError):
        raise CalculationError("it has no result in real numbers.") from None


def format_number(value: Number) -> str:
    """Return a number as people write it.

    >>> format_number(Decimal("2.50")), format_number(Decimal("1E+40")), format_number(7)
    ('2.5', '1E+40', '7')
    """
    if isinstance(value, int):
        return str(value)
    value = value.normalize(_CONTEXT)
    is_short = -_DIGITS < value.adjusted() < _DIGITS
    return f"{value:f}" if is_short else str(value)


def _parsed_expression(expression: str) -> ast.expr:
    text = expression.strip().removesuffix("=").strip().translate(_SIGNS).replace("^", "**")
    if not text:
        raise CalculationError("the expression is empty.")
    if len(text) > _MOST_CHARACTERS:
        raise CalculationError(f"it has more than {_MOST_CHARACTERS:,} characters.")
    if not re.search(r"[A-Za-z]", text):  # in `max(1,200)` the comma separates numbers
        text = _THOUSANDS.sub("", text)
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CalculationError(f"'{expression[:80]}' is not arithmetic.") from None
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise CalculationError("it has too many parts.")
    return tree


def _value(node: ast.AST, context: decimal.Context) -> Number:
    """Evaluate one node; the parser limits the depth."""
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        inner = _value(node.operand, context)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, context), _value(node.right, context)
        return _bounded(_OPERATORS[type(node.op)](left, right, context))
    if isinstance(node, ast.Name) and node.id.lower() in _CONSTANTS:
        return _CONSTANTS[node.id.lower()]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _bounded(_function_value(node, node.func.id.lower(), context))
    raise CalculationError(f"'{ast.unparse(node)[:80]}' is not arithmetic.")


def _constant(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CalculationError(f"'{value}' is not a number.")
    return _bounded(value if isinstance(value, int) else _decimal(value))


def _decimal(value: float) -> Decimal:
    if not math.isfinite(value):
        raise CalculationError("a number in it is too large.")
    return Decimal(repr(value))


def _bounded(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise CalculationError("the result is too large.")
    return value


def _normalised(value: Number) -> Number:
    is_whole = isinstance(value, Decimal) and value == value.to_integral_value() and (
        value.adjusted() < _DIGITS
    )  # fmt: skip
    return int(value) if is_whole else value


def _exact(whole: Callable[[int, int], int], name: str) -> Callable[..., Number]:
    """Return an operator that keeps integers exact."""

    def of(left: Number, right: Number, context: decimal.Context) -> Number:
        if isinstance(left, int) and isinstance(right, int):
            return whole(left, right)
        made: Decimal = getattr(context, name)(Decimal(left), Decimal(right))
        return made

    return of


def _divided(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return context.divide(Decimal(left), Decimal(right))


def _modulo(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    left, right = Decimal(left), Decimal(right)
    quotient = context.divide(left, right).to_integral_value(decimal.ROUND_FLOOR)
    return context.subtract(left, context.multiply(quotient, right))


def _floor_divided(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    return int(context.divide(Decimal(left), Decimal(right)).to_integral_value(decimal.ROUND_FLOOR))


def _power(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right >= 0:
        if left.bit_length() * right > _MOST_BITS:
            raise CalculationError("the result is too large.")
        return int(left**right)
    return context.power(Decimal(left), Decimal(right))


_OPERATORS: Mapping[type[ast.operator], Callable[[Number, Number, decimal.Context], Number]] = {
    ast.Add: _exact(operator.add, "add"),
    ast.Sub: _exact(operator.sub, "subtract"),
    ast.Mult: _exact(operator.mul, "multiply"),
    ast.Div: _divided,
    ast.FloorDiv: _floor_divided,
    ast.Mod: _modulo,
    ast.Pow: _power,
}


def _function_value(node: ast.Call, name: str, context: decimal.Context) -> Number:
    given = [_value(argument, context) for argument in node.args]
    if name in _OF_MANY and given:
        return _OF_MANY[name](given)
    if name in _OF_ONE and len(given) == 1:
        return _OF_ONE[name](given[0], context)
    if name == "round" and len(given) in (1, 2):
        return _rounded(given[0], int(given[1]) if given[1:] else 0)
    if name == "factorial" and len(given) == 1 and isinstance(given[0], int):
        return _factorial(given[0])
    raise CalculationError(
        f"'{ast.unparse(node)[:80]}' is not a known function; known: {', '.join(FUNCTION_NAMES)}."
    )


def _factorial(value: int) -> int:
    if not 0 <= value <= _MOST_FACTORIAL:
        raise CalculationError(f"factorial takes 0 to {_MOST_FACTORIAL}.")
    return math.factorial(value)


def _rounded(value: Number, places: int) -> Number:
    if abs(places) > _DIGITS:
        raise CalculationError(f"round takes at most {_DIGITS} places.")
    unit = Decimal(1).scaleb(-places)
    return Decimal(value).quantize(unit, decimal.ROUND_HALF_UP)


_OfOne: TypeAlias = Callable[[Number, decimal.Context], Number]


def _real(function: Callable[[float], float]) -> _OfOne:
    return lambda value, _: _decimal(function(float(value)))


def _whole(rounding: str) -> _OfOne:
    return lambda value, context: int(Decimal(value).to_integral_value(rounding, context))


_MOST_FACTORIAL = 300
_OF_MANY: Mapping[str, Callable[[list[Number]], Number]] = {
    "max": lambda given: max(given),
    "min": lambda given: min(given),
    "sum": lambda given: sum(given, start=0),
}
_OF_ONE: Mapping[str, _OfOne] = {
    "abs": lambda value, _: -value if value < 0 else value,
    "sqrt": lambda value, context: context.sqrt(Decimal(value)),
    **{"ceil": _whole(decimal.ROUND_CEILING), "floor": _whole(decimal.ROUND_FLOOR)},
    **{"cos": _real(math.cos), "sin": _real(math.sin), "tan": _real(math.tan)},
    **{"exp": _real(math.exp), "ln": _real(math.log), "log": _real(math.log)},
    **{"log10": _real(math.log10), "log2": _real(math.log2)},
}
FUNCTION_NAMES = tuple(sorted({*_OF_MANY, *_OF_ONE, "round", "factorial"}))


_MOST_DOCUMENT_BYTES = 16 * 1024 * 1024
_SEARCHED_BYTES = 2 * 1024 * 1024
"""Larger documents are only found by name."""
_MOST_SEARCHED = 1_000
_LINE_CHARS = 300
_WITHOUT_OCR = reader_process.ReadOptions(ocr=False)


async def _read_file(
    given: ReadArguments, options: FolderOptions, within: ToolContext
) -> ToolResult:
    """Return a part of a document's text.

    Raises:
        StepError: the folder itself cannot be used.
    """
    folder, path = resolve_path(within.roots, options.root), given.path
    try:
        file = _path_within(folder, path)
        document = await documents.load_document(
            file,
            _WITHOUT_OCR,
            readers=within.readers,
            log=within.log,
            max_bytes=_MOST_DOCUMENT_BYTES,
        )
    except (OutsideRoots, OSError, RuntimeError, ValueError):
        return tool_refusal(f"'{printable(path)[:200]}' is not a document in this folder.")
    except StepError as error:
        return tool_refusal(error.reason.replace(f"{folder}/", ""))
    text = document.text
    part = text[given.offset : given.offset + given.limit]
    end = given.offset + len(part)
    left = max(len(text) - end, 0)
    value = {"path": path, "text": part, "offset": given.offset, "left": left}
    more = f"\n[{left:,} characters follow; continue at offset {end}]" if left else ""
    return tool_result(value, part + more)


async def _search_folder(
    given: SearchArguments, options: FolderOptions, within: ToolContext
) -> ToolResult:
    """Return documents whose names match, with the lines that contain the words.

    Raises:
        StepError: the folder itself cannot be used.
    """
    folder = resolve_path(within.roots, options.root)
    try:
        globs = Globs.of([given.pattern])
    except BadPattern as error:
        return tool_refusal(f"{error}.")
    found = await asyncio.to_thread(_visible_files, folder, globs)
    unread: list[str] = []
    if given.query.strip():
        hits = await _search_texts(found, given, folder, within, unread)
    else:
        hits = [{"path": relpath, "bytes": size} for relpath, size in found[: given.limit]]
    lines = list(map(_hit_line, hits)) or ["Nothing was found."]
    if unread:
        many = counted(len(unread), "document was", "documents were")
        note = f"{many} not searched, being too large, too many or not readable: {listed(unread)}"
        within.log.note(f"'{printable(options.root)}': {note}.")
        lines.append(f"[{note}]")
    return tool_result(hits, "\n".join(lines))


async def _search_texts(
    files: Sequence[tuple[str, int]],
    given: SearchArguments,
    folder: Path,
    within: ToolContext,
    unread: list[str],
) -> list[dict[str, Any]]:
    """Return lines that contain the words; documents that are not searched go to `unread`."""
    hits: list[dict[str, Any]] = []
    for index, (relpath, size) in enumerate(files):
        if len(hits) >= given.limit:
            break
        is_read = index < _MOST_SEARCHED and size <= _SEARCHED_BYTES
        text = await _searched_text(folder / relpath, within) if is_read else None
        hits += _hits_in(text or "", relpath, given.query, given.limit - len(hits))
        unread += [relpath] if text is None else []
    return hits


def _path_within(folder: Path, path: str) -> Path:
    roots = Roots(folder, (folder,))
    file = roots.resolve(path)
    if any(name.startswith(".") for name in file.relative_to(folder).parts):
        raise OutsideRoots(path, roots.allowed)
    return file


def _visible_files(folder: Path, globs: Globs) -> list[tuple[str, int]]:
    """Return relpath and size of each file, without hidden files and links. In a thread."""
    walk = FolderWalk(folder, globs, Globs.of([]), frozenset(), None, ())
    return [(one.relpath, one.facts.st_size) for one in walk.files(None)]


async def _searched_text(file: Path, within: ToolContext) -> str | None:
    """Return a document's text; None for an image or a broken file."""
    try:
        document = await documents.load_document(
            file, _WITHOUT_OCR, readers=within.readers, log=within.log, max_bytes=_SEARCHED_BYTES
        )
    except StepError:
        return None
    return document.text


def _hits_in(text: str, relpath: str, query: str, most: int) -> Iterator[dict[str, Any]]:
    """Yield the first lines that contain every word, in any case."""
    words = query.casefold().split()
    found = (
        {"path": relpath, "line": number, "text": line.strip()[:_LINE_CHARS]}
        for number, line in enumerate(text.splitlines(), 1)
        if all(word in line.casefold() for word in words)
    )
    return islice(found, most)


def _hit_line(hit: dict[str, Any]) -> str:
    if "line" in hit:
        return f"{hit['path']}:{hit['line']}: {hit['text']}"
    return f"{hit['path']} ({hit['bytes']:,} bytes)"


class ToolArguments(BaseModel):
    """Base of a built-in tool's arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class CalculatorArguments(ToolArguments):
    """An expression."""

    expression: str = Field(
        description="Arithmetic such as `(1200 * 0.19) + 42.5` or `round(sqrt(2), 3)`."
    )


class NowArguments(ToolArguments):
    """A time zone."""

    timezone: str | None = Field(
        default=None, description="A zone such as `Europe/Paris`; by default this machine's."
    )


class FetchArguments(ToolArguments):
    """An address."""

    url: str = Field(description="The URL of the page, with http:// or https://.")


class SearchArguments(ToolArguments):
    """What to look for, and where."""

    query: str = Field(default="", description="Words that a line must contain, in any case.")
    pattern: str = Field(default="**/*", description="A glob that files must match: `*.md`.")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=20, description="The most results.")


class ReadArguments(ToolArguments):
    """A document, and a part of it."""

    path: str = Field(description="The document, relative to the allowed folder.")
    offset: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The first character to return."
    )
    limit: Annotated[int, Field(ge=1, le=200_000)] = Field(
        default=20_000, description="The most characters to return."
    )


class FetchOptions(ToolArguments):
    """Options of `http.get`, set by the author."""

    hosts: list[str] = Field(min_length=1)
    max_bytes: SizeBytes = 1024 * 1024


class FolderOptions(ToolArguments):
    """Options of `files.read` and `files.search`, set by the author."""

    root: str = Field(default=".", min_length=1)


class NoOptions(ToolArguments):
    """No options."""


BuiltinFunction = Callable[[Any, Any, ToolContext], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class BuiltinTool:
    """One built-in tool."""

    description: str
    arguments: type[ToolArguments]
    do: BuiltinFunction
    options: type[ToolArguments] = NoOptions
    has_effects: bool = False
    keeps: bool = False
    timeout_s: float = 30.0

    def fault(self, part: Literal["arguments", "options"], given: Mapping[str, Any]) -> str | None:
        """Return the fault of literal arguments or options, or None."""
        found = _checked_arguments(self.arguments if part == "arguments" else self.options, given)
        return found if isinstance(found, str) else None


async def _calculator_tool(
    given: CalculatorArguments, options: NoOptions, within: ToolContext
) -> ToolResult:
    try:
        value = await asyncio.to_thread(evaluate, given.expression)
    except CalculationError as error:
        return tool_refusal(str(error))
    plain = value if isinstance(value, int) else float(value)
    return tool_result(plain, format_number(value))


async def _now_tool(given: NowArguments, options: NoOptions, within: ToolContext) -> ToolResult:
    try:
        zone = ZoneInfo(given.timezone) if given.timezone else None
    except (KeyError, ValueError, OSError):
        return tool_refusal(f"'{given.timezone}' is not a time zone; write it like Europe/Paris.")
    moment = datetime.now(zone).astimezone(zone)
    text = moment.isoformat(timespec="seconds")
    return tool_result(text, f"{moment:%A}, {text}")


async def _fetch_tool(
    given: FetchArguments, options: FetchOptions, within: ToolContext
) -> ToolResult:
    from .http_fetch import fetch  # imports httpx

    return await fetch(given.url, options.hosts, options.max_bytes, within)


BUILT_IN_FUNCTIONS: Mapping[str, BuiltinTool] = {
    "calculator": BuiltinTool(
        "Work out arithmetic exactly.",
        CalculatorArguments,
        _calculator_tool,
        keeps=True,
        timeout_s=5.0
    ),
    "now": BuiltinTool("Return date, time and day of the week.", NowArguments, _now_tool),
    # A request sends data to a server: text from a document must not cause that.
    "http.get": BuiltinTool(
        "Fetch a page or data from an allowed server.",
        FetchArguments, _fetch_tool, FetchOptions, has_effects=True
    ),
    "files.search": BuiltinTool(
        "Find documents by name, and the lines in them that contain some words.",
        SearchArguments, _search_folder, FolderOptions, timeout_s=60.0
    ),
    "files.read": BuiltinTool(
        "Read the text of a document.", ReadArguments, _read_file, FolderOptions, timeout_s=60.0
    ),
}  # fmt: skip


def bind_builtin(name: str, options: Mapping[str, Any], within: ToolContext) -> RunnableTool:
    """Return a built-in tool with the author's options.

    Raises:
        StepError: an option is missing or wrong.
    """
    tool = BUILT_IN_FUNCTIONS[name]
    fixed = _checked_arguments(tool.options, options)
    if isinstance(fixed, str):
        raise StepError(f"the options of '{name}' cannot be used: {fixed}")

    async def do(args: Mapping[str, Any]) -> ToolResult:
        given = _checked_arguments(tool.arguments, args)
        if isinstance(given, str):
            return tool_refusal(given)
        return await tool.do(given, fixed, within)

    return RunnableTool(
        name=name,
        description=tool.description,
        schema=arguments_schema_of(tool.arguments),
        has_effects=tool.has_effects,
        timeout_s=tool.timeout_s,
        do=do,
        keeps=tool.keeps,
    )


def arguments_schema_of(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, without titles."""
    schema = arguments.model_json_schema()
    properties = schema.get("properties", {})
    for one in properties.values():
        one.pop("title", None)
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, **({"required": schema["required"]} if "required" in schema else {})}


def _checked_arguments(table: type[ToolArguments], given: Mapping[str, Any]) -> ToolArguments | str:
    """Return typed arguments, or a sentence about what is wrong."""
    try:
        return table.model_validate(dict(given))
    except ValidationError as error:
        return validation_sentence(error, tuple(table.model_fields))
