"""The tools that come with Paddock: their descriptions, their arguments, and what runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paddock.pipelines.quantities import SizeBytes
from paddock.steps.roots import Roots
from paddock.steps.step import Readers, StepError
from paddock.steps.toolset import ToolResult

from . import calculator
from .tool import Tool, Within, refusal, result_of


class Arguments(BaseModel):
    """Base of a built-in tool's arguments: what a model or an author may ask."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class CalculatorArguments(Arguments):
    """An expression."""

    expression: str = Field(
        description="Arithmetic such as `(1200 * 0.19) + 42.5` or `round(sqrt(2), 3)`."
    )


class NowArguments(Arguments):
    """A time zone."""

    timezone: str | None = Field(
        default=None, description="A zone such as `Europe/Paris`; by default this machine's."
    )


class FetchArguments(Arguments):
    """An address."""

    url: str = Field(description="The address of the page, with http:// or https://.")


class SearchArguments(Arguments):
    """What to look for, and where."""

    query: str = Field(default="", description="Words that a line must hold, in any case.")
    pattern: str = Field(default="**/*", description="A glob that files must match: `*.md`.")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=20, description="The most results.")


class ReadArguments(Arguments):
    """A document, and which part of it."""

    path: str = Field(description="The document, relative to the folder that may be read.")
    offset: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The first character to give."
    )
    limit: Annotated[int, Field(ge=1, le=200_000)] = Field(
        default=20_000, description="The most characters to give."
    )


class FetchOptions(Arguments):
    """What an author fixes of `http.get`."""

    hosts: list[str] = Field(min_length=1)
    max_bytes: SizeBytes = 1024 * 1024


class FolderOptions(Arguments):
    """What an author fixes of `files.read` and `files.search`."""

    root: str = Field(default=".", min_length=1)


class NoOptions(Arguments):
    """Of tools of which nothing can be fixed."""


Do = Callable[[Any, Any, Within], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class Builtin:
    """One built-in tool."""

    description: str
    arguments: type[Arguments]
    do: Do
    options: type[Arguments] = NoOptions
    has_effects: bool = False
    keeps: bool = False
    timeout_s: float = 30.0


async def _calculate(given: CalculatorArguments, options: NoOptions, within: Within) -> ToolResult:
    import asyncio

    try:
        value = await asyncio.to_thread(calculator.worked_out, given.expression)
    except calculator.NoResult as error:
        return refusal(str(error))
    plain = value if isinstance(value, int) else float(value)
    return result_of(plain, calculator.in_digits(value))


async def _now(given: NowArguments, options: NoOptions, within: Within) -> ToolResult:
    try:
        zone = ZoneInfo(given.timezone) if given.timezone else None
    except (KeyError, ValueError, OSError):
        return refusal(f"'{given.timezone}' is no time zone; write it like Europe/Paris.")
    moment = datetime.now(zone).astimezone(zone)
    text = moment.isoformat(timespec="seconds")
    return result_of(text, f"{moment:%A}, {text}")


async def _fetch(given: FetchArguments, options: FetchOptions, within: Within) -> ToolResult:
    from .fetching import fetched

    return await fetched(given.url, options.hosts, options.max_bytes, within.readers)


async def _search(given: SearchArguments, options: FolderOptions, within: Within) -> ToolResult:
    from . import folder

    return await folder.searched(within, options.root, given.query, given.pattern, most=given.limit)


async def _read(given: ReadArguments, options: FolderOptions, within: Within) -> ToolResult:
    from . import folder

    return await folder.read(within, options.root, given.path, given.offset, given.limit)


TOOLS: Mapping[str, Builtin] = {
    "calculator": Builtin(
        "Work out arithmetic exactly.", CalculatorArguments, _calculate, keeps=True, timeout_s=5.0
    ),
    "now": Builtin("Tell the date, the time and the day of the week.", NowArguments, _now),
    # What is asked of a server tells that server something: text from a document must not do so.
    "http.get": Builtin(
        "Fetch a page or data from an allowed server.",
        FetchArguments, _fetch, FetchOptions, has_effects=True,
    ),
    "files.search": Builtin(
        "Find documents by name, and the lines in them that hold some words.",
        SearchArguments, _search, FolderOptions, timeout_s=60.0,
    ),
    "files.read": Builtin(
        "Read the text of a document.", ReadArguments, _read, FolderOptions, timeout_s=60.0
    ),
}  # fmt: skip


def bound(
    name: str, options: Mapping[str, Any], roots: Roots, readers: Readers | None = None
) -> Tool:
    """Give a built-in tool with what its author has fixed.

    Raises:
        StepError: an option is missing or wrong.
    """
    tool = TOOLS[name]
    fixed = _checked(tool.options, options)
    if isinstance(fixed, str):
        raise StepError(f"the options of '{name}' cannot be used: {fixed}")

    async def do(args: Mapping[str, Any]) -> ToolResult:
        given = _checked(tool.arguments, args)
        if isinstance(given, str):
            return refusal(given)
        return await tool.do(given, fixed, Within(roots, readers))

    return Tool(
        name=name,
        description=tool.description,
        schema=schema_of(tool.arguments),
        has_effects=tool.has_effects,
        timeout_s=tool.timeout_s,
        do=do,
        keeps=tool.keeps,
    )


def schema_of(arguments: type[BaseModel]) -> dict[str, Any]:
    """Give the JSON Schema of a tool's arguments, without the titles that only fill a prompt."""
    schema = arguments.model_json_schema()
    properties = schema.get("properties", {})
    for one in properties.values():
        one.pop("title", None)
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, **({"required": schema["required"]} if "required" in schema else {})}


def faults(
    name: str, part: Literal["arguments", "options"], given: Mapping[str, Any]
) -> str | None:
    """Say what is wrong with arguments or options that are written out; None: nothing."""
    tool = TOOLS[name]
    found = _checked(tool.arguments if part == "arguments" else tool.options, given)
    return found if isinstance(found, str) else None


def _checked(table: type[Arguments], given: Mapping[str, Any]) -> Arguments | str:
    """Give them typed, or say in a sentence what is wrong."""
    try:
        return table.model_validate(dict(given))
    except ValidationError as error:
        return sentence_of(error, tuple(table.model_fields))


def sentence_of(error: ValidationError, names: tuple[str, ...]) -> str:
    """Say the first thing that is wrong with arguments, as a model understands it, too."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    listed = ", ".join(f"`{one}`" for one in names) or "none"
    if first["type"] == "extra_forbidden":
        return f"`{name}` is not known; it takes {listed}."
    if first["type"] == "missing":
        return f"`{name}` is missing; it takes {listed}."
    told = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"`{name}` {told[:1].lower()}{told[1:]}." if name else f"{told}."
