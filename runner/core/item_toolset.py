"""The tools of an item's step: found by name, called within a time limit, recorded in the ledger.

Processes for Python functions and sessions with MCP servers open at first use, are shared by all
steps, and close with the run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property, partial
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.tasks import time_limit
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.mcp_servers import McpServer
from paddock.pipelines.quantities import parse_seconds
from paddock.runner.bind.bound import BoundPlan
from paddock.steps.base import BoundTool, CallCache, StepError, ToolResult
from paddock.steps.paths import resolve_path
from paddock.steps.tools import python_functions
from paddock.steps.tools.mcp_client import (
    HttpServerSpec,
    McpServerSpec,
    McpSessions,
    StdioServerSpec,
)
from paddock.steps.tools.python_files import FunctionNotFound, check_function
from paddock.steps.tools.python_functions import FunctionPool
from paddock.steps.tools.tool import RunnableTool, ToolContext, ToolRefused
from paddock.steps.tools.tool_names import (
    BUILT_IN_TOOLS,
    installed_tools,
    resolve_tool,
    unknown_tool,
)

from .run_stats import RunStats


class ToolRuntime(Struct, dict=True):
    """What the tools of a run share. It belongs to the run's event loop."""

    stats: RunStats
    session: AsyncExitStack
    """Closes what is opened here."""

    @cached_property
    def functions(self) -> FunctionPool:
        pool = FunctionPool()
        self.session.push_async_callback(lambda: asyncio.shield(pool.close()))
        return pool

    @cached_property
    def servers(self) -> McpSessions:
        servers = McpSessions(self.stats.note)
        self.session.push_async_callback(lambda: asyncio.shield(servers.close()))
        return servers


class NoToolset:
    """The tools of a plan: none."""

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        raise StepError(f"tool '{name}' cannot be used here: this step has no tools.")

    async def names(self, server: str | None = None) -> Sequence[str]:
        return ()


class ItemToolset(Struct, frozen=True):
    _bound: BoundPlan
    _tool_runtime: ToolRuntime
    _memo: CallCache
    _within: ToolContext

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Return a tool.

        Raises:
            StepError: no tool has this name, or it cannot be used.
        """
        fixed = dict(options or {})
        written = fixed.pop("timeout", None)
        tool = await self._found(name, server, fixed)
        if written is not None:
            try:
                tool = replace(tool, timeout_s=parse_seconds(written))
            except ValueError as error:
                raise StepError(f"`timeout` of the tool '{name}' {error}.") from error
        return replace(tool, do=partial(self._called, tool))

    async def names(self, server: str | None = None) -> Sequence[str]:
        """List the tools without a server, or those of one.

        Raises:
            StepError: there is no such server, or it cannot be used.
        """
        if server is None:
            return (*BUILT_IN_TOOLS, *installed_tools())
        return tuple(await self._tool_runtime.servers.tools(self._spec(server)))

    async def _found(self, name: str, server: str | None, options: dict[str, Any]) -> RunnableTool:
        declared = self._bound.pipeline.servers
        named = resolve_tool(name, server, declared)
        if named is None:
            what, remedy = unknown_tool(name, server, declared)
            raise StepError(f"{what}.", remedy=remedy)
        if named.kind == "built-in":
            from paddock.steps.tools import builtin_tools  # which most pipelines do without

            return builtin_tools.bind_builtin(name, options, self._within)
        if options:
            raise StepError(f"the tool '{name}' has no option '{next(iter(options))}'.")
        if named.kind == "server":
            tools = await self._tool_runtime.servers.tools(self._spec(str(named.server)))
            if named.name not in tools:
                what = f"the MCP server '{named.server}' has no tool '{named.name}'."
                raise StepError(what, remedy=did_you_mean(named.name, tools))
            return tools[named.name]
        if named.kind == "installed":
            return await self._tool_runtime.functions.tool(
                name, python_functions.installed_function(name)
            )
        file = resolve_path(self._bound.roots, str(named.file))
        function = python_functions.PythonFunction(str(named.file), named.name, file)
        try:  # before any of its code runs
            await asyncio.to_thread(check_function, file, function.of, function.name)
        except FunctionNotFound as error:
            raise StepError(f"{error.what}.", remedy=error.remedy) from error
        return await self._tool_runtime.functions.tool(name, function)

    def _spec(self, name: str) -> McpServerSpec:
        declared = self._bound.pipeline.servers
        if name not in declared:
            remedy = did_you_mean(name, declared, "Name it under `mcpServers`.")
            raise StepError(f"there is no MCP server '{name}'.", remedy=remedy)
        return server_spec(declared[name], self._bound, self._tool_runtime.stats)

    async def _called(self, tool: RunnableTool, args: Mapping[str, Any]) -> ToolResult:
        call = {"tool": tool.name, "args": dict(args)}
        call |= {"server": tool.server} if tool.server else {}
        call |= {"digest": tool.digest} if tool.digest else {}

        async def do() -> dict[str, Any]:
            result = await _call_in_turn(tool, args)
            if result.is_error:
                raise ToolRefused(result)
            return {"text": result.text, "value": result.value}

        try:
            recorded = await self._memo.once("tool", call, do, keeps=tool.keeps)
        except ToolRefused as no:
            return await self._refused(call, no.result)
        except StepError as error:
            await self._refused(call, ToolResult(error.reason, is_error=True))
            raise
        return ToolResult(recorded["text"], recorded["value"])

    async def _refused(self, call: Mapping[str, Any], result: ToolResult) -> ToolResult:
        async def error() -> dict[str, Any]:
            return {"error": result.text}

        recorded = await self._memo.once("tool", call, error, keeps=False)
        return replace(result, text=str(recorded["error"]))


async def _call_in_turn(tool: RunnableTool, args: Mapping[str, Any]) -> ToolResult:
    async with tool.turn():
        try:
            async with time_limit(tool.timeout_s):
                return await tool.do(args)
        except TimeoutError:
            of = f" of the MCP server '{tool.server}'" if tool.server else ""
            what = f"the tool '{tool.name}'{of} gave no result within {tool.timeout_s:g} s."
            raise StepError(what, kind="timeout") from None


def server_spec(server: McpServer, bound: BoundPlan, stats: RunStats) -> McpServerSpec:
    """Render a server's texts.

    Raises:
        StepError: one of them has no value.
    """
    try:
        known = {
            "inputs": bound.inputs,
            "secrets": stats.secrets.of(bound.file),
            "python": sys.executable,
        }
        texts = server.texts.render(known)
    except ExpressionError as error:
        raise StepError(f"the MCP server '{server.name}': {error.message}.") from error
    timeout_s = server.keys.timeout
    if not server.is_command:
        headers = tuple((name, str(value)) for name, value in texts.get("headers", {}).items())
        return HttpServerSpec(server.name, timeout_s, str(texts["url"]), headers)
    return StdioServerSpec(
        server.name,
        timeout_s,
        str(texts["command"]),
        tuple(map(str, texts.get("args", ()))),
        tuple((name, str(value)) for name, value in texts.get("env", {}).items()),
        resolve_path(bound.roots, str(texts.get("cwd", "."))),
    )
