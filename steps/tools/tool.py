"""Tools: one that can be called, and the step `tool`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated, Any

from pydantic import Field

from paddock.engine.system.records import Struct
from paddock.engine.system.text import text_or_json
from paddock.steps.base import (
    BoundTool,
    DocumentReaders,
    Output,
    Params,
    Roots,
    Step,
    StepError,
    StepLog,
    ToolResult,
    Tools,
)
from paddock.steps.facts import Facts, TextFacts, Written
from paddock.steps.param_types import DoorParam
from paddock.steps.tools.tool_names import TRUSTED_TOOLS, one_tool

MOST_RESULT_CHARS = 1_000_000
"""The longest result: more would not help a model, and fill the ledger."""
DEFAULT_TOOL_TIMEOUT_S = 60.0


class ToolContext(Struct, frozen=True):
    roots: Roots
    log: StepLog
    readers: DocumentReaders | None = None
    """None: a process is started for each document."""


class RunnableTool(BoundTool, frozen=True):
    """One tool with what decides how its calls are recorded."""

    keeps: bool = False
    """Its result depends only on its arguments, so that it can be cached."""
    digest: str = ""
    """What else decides the result: a file's content."""
    turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Waits for a free process before the time limit starts."""


class ToolRefused(Exception):
    """A result that is an error, so that it is not recorded as a result."""

    def __init__(self, result: ToolResult) -> None:
        self.result = result
        super().__init__(result.text)


def tool_result(value: Any, text: str | None = None) -> ToolResult:
    """Return plain data as a result; one that is too large is an error.

    >>> tool_result({"a": 1}).text, tool_result("so").text
    ('{"a": 1}', 'so')
    """
    if text is None:
        text = text_or_json(value)
    if len(text) > MOST_RESULT_CHARS:
        what = (
            f"the result has {len(text):,} characters; at most {MOST_RESULT_CHARS:,} are allowed."
        )
        return ToolResult(what, None, is_error=True)
    return ToolResult(text, value)


def tool_refusal(text: str) -> ToolResult:
    return ToolResult(text, None, is_error=True)


class ToolParams(Params):
    """Parameters of `tool`."""

    name: str = Field(
        min_length=1,
        description="`calculator`, `now`, `http.get`, `files.search`, `files.read`, an installed "
        "tool, a function such as `tools.py:clean`, or a server's tool such as `web.fetch`.",
        examples=["calculator"],
    )
    args: dict[str, Any] = Field(
        default={}, description="The arguments.", examples=[{"expression": "6 * 7"}]
    )
    server: str | None = Field(
        default=None, min_length=1, description="Its MCP server, of `mcpServers`."
    )
    options: Annotated[dict[str, Any], DoorParam] = Field(
        default={},
        description="Its options: `timeout`, `hosts` of `http.get`, `root` of `files.…`.",
    )


class ToolOutput(Output):
    """Outputs of `tool`: plain data, and text."""

    result: Any
    text: str


def _brings_text(written: Written) -> bool:
    return bool(written.get("server")) or written.get("name") not in TRUSTED_TOOLS


class CallTool(Step[ToolParams, ToolOutput]):
    """One call of a tool; some tools need the caller's consent."""

    params = ToolParams
    output = ToolOutput
    facts = Facts(tools=one_tool, texts=TextFacts(_brings_text))

    def reads(self, params: ToolParams) -> Sequence[str]:
        """Return the file that it reads; the code of a function is a part of the step's spec."""
        path = params.args.get("path")
        if params.name == "files.read" and params.server is None and isinstance(path, str):
            return (f"{params.options.get('root', '.')}/{path}",)
        return ()

    async def run(self, params: ToolParams, tools: Tools) -> ToolOutput:
        tool = await tools.calls.toolset.tool(params.name, params.server, params.options)
        result = await tool.call(params.args)
        if result.is_error:
            raise StepError(f"the tool '{params.name}' failed: {result.sentence()}")
        return ToolOutput(result=result.value, text=result.text)
