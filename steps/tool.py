"""Call one tool by its name: built in, installed, a function of a file, or an MCP server's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from .step import Output, Params, StepError, Tools

if TYPE_CHECKING:
    from paddock.engine.request import Role

_FILE = re.compile(r"(.+\.py):[A-Za-z_][A-Za-z0-9_]*\Z")


class ToolParams(Params):
    """Parameters of `tool`."""

    name: str = Field(
        min_length=1,
        description="`calculator`, `now`, `http.get`, `files.search`, `files.read`, an installed "
        "tool, a function such as `tools.py:clean`, or a server's tool such as `web.fetch`.",
        examples=["calculator"],
    )
    args: dict[str, Any] = Field(
        default={}, description="What the tool is asked.", examples=[{"expression": "6 * 7"}]
    )
    server: str | None = Field(
        default=None, min_length=1, description="The MCP server that has it, of `mcpServers`."
    )
    options: dict[str, Any] = Field(
        default={},
        description="What is fixed of it: `timeout`, `hosts` of `http.get`, `root` of `files.…`.",
    )


class ToolOutput(Output):
    """Outputs of `tool`: plain data, and the same as text."""

    result: Any
    text: str


class CallTool:
    """One call of a tool; some tools need the caller's consent."""

    params: ClassVar[type[ToolParams]] = ToolParams
    output: ClassVar[type[ToolOutput]] = ToolOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: ToolParams) -> Sequence[str]:
        """Name the file that decides the result: a function's own, or the one that is read."""
        file = _FILE.match(params.name) if params.server is None else None
        if file:
            return (file[1],)
        path = params.args.get("path")
        if params.name == "files.read" and params.server is None and isinstance(path, str):
            return (f"{params.options.get('root', '.')}/{path}",)
        return ()

    async def run(self, params: ToolParams, tools: Tools) -> ToolOutput:
        """Call it.

        Raises:
            StepError: there is no such tool, it could not be run, or it said no.
        """
        tool = await tools.toolset.tool(params.name, params.server, params.options)
        result = await tool.call(params.args)
        if result.is_error:
            raise StepError(f"the tool '{params.name}' said no: {result.sentence()}")
        return ToolOutput(result=result.value, text=result.text)
