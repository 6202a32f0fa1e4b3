"""Built-in tools: arithmetic, time, JSON, HTTP, and files of the allowed folders.

Each is a function with typed arguments; its JSON Schema comes from these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, ValidationError

from paddock.engine.system.records import Struct
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import StepError, ToolResult

from .calculator import CalculationError, evaluate, format_number
from .folder_tools import (
    FolderOptions,
    ReadArguments,
    SearchArguments,
    ToolArguments,
    read_file,
    search_folder,
)
from .function_signature import validation_sentence
from .tool import RunnableTool, ToolContext, tool_refusal, tool_result


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


class FetchOptions(ToolArguments):
    """Options of `http.get`, set by the author."""

    hosts: list[str] = Field(min_length=1)
    headers: dict[str, str] = Field(default={})
    max_bytes: SizeBytes = 1024 * 1024
    items: str | None = None
    next: str = ""


class NoOptions(ToolArguments):
    """No options."""


class BuiltinTool(Struct, frozen=True):
    description: str
    arguments: type[ToolArguments]
    do: Callable[[Any, Any, ToolContext], Awaitable[ToolResult]]
    options: type[ToolArguments] = NoOptions
    has_effects: bool = False
    keeps: bool = False
    is_traced: bool = False
    """Whether it reads nothing, or only files that its item depends on then."""
    timeout_s: float = 30.0

    def fault(self, part: Literal["arguments", "options"], given: Mapping[str, Any]) -> str | None:
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
    from . import http_fetch  # imports httpx

    request = http_fetch.FetchRequest(given.url, options.hosts, options.max_bytes, options.headers)
    if options.items is None:
        return await http_fetch.fetch(request, within)
    rows = await http_fetch.fetch_rows(request, options.items, options.next)
    return tool_result(rows) if isinstance(rows, list) else rows


BUILT_IN_FUNCTIONS: Mapping[str, BuiltinTool] = {
    "calculator": BuiltinTool(
        "Work out arithmetic exactly.",
        CalculatorArguments,
        _calculator_tool,
        keeps=True,
        is_traced=True,
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
        SearchArguments, search_folder, FolderOptions, timeout_s=60.0
    ),
    "files.read": BuiltinTool(
        "Read the text of a document.", ReadArguments, read_file, FolderOptions,
        is_traced=True, timeout_s=60.0
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
        arguments = _checked_arguments(tool.arguments, args)
        if isinstance(arguments, str):
            return tool_refusal(arguments)
        return await tool.do(arguments, fixed, within)

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
    for argument in properties.values():
        argument.pop("title", None)
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, **({"required": schema["required"]} if "required" in schema else {})}


def _checked_arguments(table: type[ToolArguments], given: Mapping[str, Any]) -> ToolArguments | str:
    try:
        return table.model_validate(dict(given))
    except ValidationError as error:
        return validation_sentence(error, tuple(table.model_fields))
