"""Built-in tools: their descriptions, arguments and functions.

The functions that need a document or the network are imported when they are called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paddock.pipelines.keys import SizeBytes
from paddock.steps.base import DocumentReaders, Roots, StepError, ToolResult

from . import calculator
from .tool import RunnableTool, ToolContext, tool_refusal, tool_result


class ToolArguments(BaseModel):
    """Base of a built-in tool's arguments: what a model or an author may ask."""

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

    url: str = Field(description="The address of the page, with http:// or https://.")


class SearchArguments(ToolArguments):
    """What to look for, and where."""

    query: str = Field(default="", description="Words that a line must hold, in any case.")
    pattern: str = Field(default="**/*", description="A glob that files must match: `*.md`.")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=20, description="The most results.")


class ReadArguments(ToolArguments):
    """A document, and which part of it."""

    path: str = Field(description="The document, relative to the folder that may be read.")
    offset: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The first character to give."
    )
    limit: Annotated[int, Field(ge=1, le=200_000)] = Field(
        default=20_000, description="The most characters to give."
    )


class FetchOptions(ToolArguments):
    """What an author fixes of `http.get`."""

    hosts: list[str] = Field(min_length=1)
    max_bytes: SizeBytes = 1024 * 1024


class FolderOptions(ToolArguments):
    """What an author fixes of `files.read` and `files.search`."""

    root: str = Field(default=".", min_length=1)


class NoOptions(ToolArguments):
    """Of tools of which nothing can be fixed."""


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


async def _calculator_tool(
    given: CalculatorArguments, options: NoOptions, within: ToolContext
) -> ToolResult:
    import asyncio

    try:
        value = await asyncio.to_thread(calculator.evaluate, given.expression)
    except calculator.CalculationError as error:
        return tool_refusal(str(error))
    plain = value if isinstance(value, int) else float(value)
    return tool_result(plain, calculator.format_number(value))


async def _now_tool(given: NowArguments, options: NoOptions, within: ToolContext) -> ToolResult:
    try:
        zone = ZoneInfo(given.timezone) if given.timezone else None
    except (KeyError, ValueError, OSError):
        return tool_refusal(f"'{given.timezone}' is no time zone; write it like Europe/Paris.")
    moment = datetime.now(zone).astimezone(zone)
    text = moment.isoformat(timespec="seconds")
    return tool_result(text, f"{moment:%A}, {text}")


async def _fetch_tool(
    given: FetchArguments, options: FetchOptions, within: ToolContext
) -> ToolResult:
    from .http_fetch import fetch

    return await fetch(given.url, options.hosts, options.max_bytes, within.readers)


async def _search_tool(
    given: SearchArguments, options: FolderOptions, within: ToolContext
) -> ToolResult:
    from . import folder_tools

    return await folder_tools.search_folder(
        within, options.root, given.query, given.pattern, most=given.limit
    )


async def _read_file_tool(
    given: ReadArguments, options: FolderOptions, within: ToolContext
) -> ToolResult:
    from . import folder_tools

    return await folder_tools.read_file(within, options.root, given.path, given.offset, given.limit)


BUILT_IN_FUNCTIONS: Mapping[str, BuiltinTool] = {
    "calculator": BuiltinTool(
        "Work out arithmetic exactly.", CalculatorArguments, _calculator_tool, keeps=True, timeout_s=5.0
    ),
    "now": BuiltinTool("Tell the date, the time and the day of the week.", NowArguments, _now_tool),
    # What is asked of a server tells that server something: text from a document must not do so.
    "http.get": BuiltinTool(
        "Fetch a page or data from an allowed server.",
        FetchArguments, _fetch_tool, FetchOptions, has_effects=True,
    ),
    "files.search": BuiltinTool(
        "Find documents by name, and the lines in them that hold some words.",
        SearchArguments, _search_tool, FolderOptions, timeout_s=60.0,
    ),
    "files.read": BuiltinTool(
        "Read the text of a document.", ReadArguments, _read_file_tool, FolderOptions, timeout_s=60.0
    ),
}  # fmt: skip


def bind_builtin(
    name: str, options: Mapping[str, Any], roots: Roots, readers: DocumentReaders | None = None
) -> RunnableTool:
    """Return a built-in tool with what its author has fixed.

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
        return await tool.do(given, fixed, ToolContext(roots, readers))

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
    """Return the JSON Schema of a tool's arguments, without the titles that only fill a prompt."""
    schema = arguments.model_json_schema()
    properties = schema.get("properties", {})
    for one in properties.values():
        one.pop("title", None)
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, **({"required": schema["required"]} if "required" in schema else {})}


def argument_faults(
    name: str, part: Literal["arguments", "options"], given: Mapping[str, Any]
) -> str | None:
    """Return what is wrong with arguments or options that are written out; None: nothing."""
    tool = BUILT_IN_FUNCTIONS[name]
    found = _checked_arguments(tool.arguments if part == "arguments" else tool.options, given)
    return found if isinstance(found, str) else None


def _checked_arguments(table: type[ToolArguments], given: Mapping[str, Any]) -> ToolArguments | str:
    """Give them typed, or say in a sentence what is wrong."""
    try:
        return table.model_validate(dict(given))
    except ValidationError as error:
        return validation_sentence(error, tuple(table.model_fields))


def validation_sentence(error: ValidationError, names: tuple[str, ...]) -> str:
    """Return the first thing that is wrong with arguments, as a model understands it, too."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    listed = ", ".join(f"`{one}`" for one in names) or "none"
    if first["type"] == "extra_forbidden":
        return f"`{name}` is not known; it takes {listed}."
    if first["type"] == "missing":
        return f"`{name}` is missing; it takes {listed}."
    told = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"`{name}` {told[:1].lower()}{told[1:]}." if name else f"{told}."
