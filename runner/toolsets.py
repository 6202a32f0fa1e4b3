"""The tools of a run: found by their names, called within a time, each call in the ledger.

What they need besides, processes for Python functions and sessions with MCP servers, is opened at
first use, shared by all steps of the run, and closed with it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from paddock.pipelines.errors import known
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.quantities import seconds
from paddock.steps.places import place
from paddock.steps.step import Readers, StepError
from paddock.steps.time_limits import time_limit
from paddock.steps.toolset import BoundTool, Memo, ToolResult

from .binding.bound import BoundPlan
from .tally import Tally

if TYPE_CHECKING:
    from paddock.pipelines.servers import Server
    from paddock.steps.toolbox.functions import Functions
    from paddock.steps.toolbox.servers import Servers, Spec
    from paddock.steps.toolbox.tool import Tool


@dataclass
class Hands:
    """What the tools of a run share. Lives in the run's event loop."""

    tally: Tally
    _functions: Functions | None = None
    _servers: Servers | None = None

    @property
    def functions(self) -> Functions:
        """The processes for Python functions."""
        if self._functions is None:
            from paddock.steps.toolbox.functions import Functions

            self._functions = Functions()
        return self._functions

    @property
    def servers(self) -> Servers:
        """The sessions with MCP servers."""
        if self._servers is None:
            from paddock.steps.toolbox.servers import Servers

            self._servers = Servers(self.tally.note)
        return self._servers

    async def close(self) -> None:
        """End all that was opened."""
        open_ = [one for one in (self._functions, self._servers) if one is not None]
        await asyncio.gather(*(one.close() for one in open_))


@asynccontextmanager
async def opened_hands(tally: Tally) -> AsyncIterator[Hands]:
    """Give what a run's tools share, and end it with the run, however that ends."""
    hands = Hands(tally)
    try:
        yield hands
    finally:
        await asyncio.shield(hands.close())


class ItemToolset:
    """Implements `paddock.steps.toolset.Toolset` for one step of one item."""

    def __init__(self, bound: BoundPlan, hands: Hands, memo: Memo, readers: Readers | None) -> None:
        self._bound = bound
        self._hands = hands
        self._memo = memo
        self._readers = readers

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Give a tool.

        Raises:
            StepError: there is none of this name, or what has it cannot be used.
        """
        fixed = dict(options or {})
        timeout_s = _timeout(name, fixed)
        tool = await self._found(name, server, fixed)
        if timeout_s is not None:
            tool = replace(tool, timeout_s=timeout_s)
        return self._bound_tool(tool)

    async def names(self, server: str | None = None) -> Sequence[str]:
        """List the tools without a server, or those of one.

        Raises:
            StepError: there is no such server, or it cannot be used.
        """
        from paddock.steps.toolbox import naming

        if server is None:
            return (*naming.BUILT_IN, *naming.installed())
        return tuple(await self._hands.servers.tools(self._spec(server)))

    async def _found(self, name: str, server: str | None, options: dict[str, Any]) -> Tool:
        from paddock.steps.toolbox import naming

        declared = self._bound.pipeline.servers
        named = naming.named(name, server, declared)
        if named is None:
            what, remedy = naming.unknown(name, server, declared)
            raise StepError(f"{what}.", remedy=remedy)
        if named.kind == "built-in":
            from paddock.steps.toolbox import builtin

            return builtin.bound(name, options, self._bound.roots, self._readers)
        if options:
            raise StepError(f"the tool '{name}' has no option '{next(iter(options))}'.")
        if named.kind == "server":
            return await self._of_server(named.name, str(named.server))
        from paddock.steps.toolbox import functions

        if named.kind == "installed":
            return await self._hands.functions.tool(name, functions.installed(name))
        file = place(self._bound.roots, str(named.file))
        function = functions.Function(str(named.file), named.name, file)
        fault = await asyncio.to_thread(
            functions.fault_of, file, function.of, function.name
        )  # before anything of it runs
        if fault is not None:
            raise StepError(f"{fault.rstrip('.')}.")
        return await self._hands.functions.tool(name, function)

    async def _of_server(self, name: str, server: str) -> Tool:
        found = await self._hands.servers.tools(self._spec(server))
        if name not in found:
            what = f"the MCP server '{server}' has no tool '{name}'."
            raise StepError(what, remedy=known(name, found))
        return found[name]

    def _spec(self, name: str) -> Spec:
        """Give a server with its texts filled in.

        Raises:
            StepError: there is none of this name, or a text of it has no value.
        """
        declared = self._bound.pipeline.servers
        if name not in declared:
            remedy = known(name, declared) if declared else "Name it under `mcpServers`."
            raise StepError(f"there is no MCP server '{name}'.", remedy=remedy)
        return spec_of(declared[name], self._bound, self._hands.tally)

    def _bound_tool(self, tool: Tool) -> BoundTool:
        async def do(args: Mapping[str, Any]) -> ToolResult:
            return await self._called(tool, args)

        return BoundTool(
            name=tool.name,
            description=tool.description,
            schema=tool.schema,
            has_effects=tool.has_effects,
            timeout_s=tool.timeout_s,
            do=do,
            server=tool.server,
        )

    async def _called(self, tool: Tool, args: Mapping[str, Any]) -> ToolResult:
        """Call a tool, and record it; what went wrong is recorded, too, and never looked up."""
        asked = {"tool": tool.name, "args": dict(args)}
        asked |= {"server": tool.server} if tool.server else {}
        asked |= {"digest": tool.digest} if tool.digest else {}

        async def do() -> dict[str, Any]:
            result = await _in_time(tool, args)
            if result.is_error:
                raise _SaidNo(result)
            return {"text": result.text, "value": result.value}

        try:
            kept = await self._memo.once("tool", asked, do, keeps=tool.keeps)
        except _SaidNo as no:
            return await self._refused(asked, no.result)
        except StepError as error:
            await self._refused(asked, ToolResult(error.reason, is_error=True))
            raise
        return ToolResult(kept["text"], kept["value"])

    async def _refused(self, asked: Mapping[str, Any], result: ToolResult) -> ToolResult:
        async def give() -> dict[str, Any]:
            return {"error": result.text}

        kept = await self._memo.once("tool", asked, give, keeps=False)
        return replace(result, text=str(kept["error"]))


class _SaidNo(Exception):
    def __init__(self, result: ToolResult) -> None:
        self.result = result
        super().__init__(result.text)


async def _in_time(tool: Tool, args: Mapping[str, Any]) -> ToolResult:
    """Call a tool; its time begins when it is its turn."""
    async with tool.turn():
        return await _within_time(tool, args)


async def _within_time(tool: Tool, args: Mapping[str, Any]) -> ToolResult:
    try:
        async with time_limit(tool.timeout_s):
            return await tool.do(args)
    except TimeoutError:
        of = f" of the MCP server '{tool.server}'" if tool.server else ""
        what = f"the tool '{tool.name}'{of} gave no result within {tool.timeout_s:g} s."
        raise StepError(what, kind="timeout") from None


def _timeout(name: str, options: dict[str, Any]) -> float | None:
    """Take the time out of a tool's options."""
    written = options.pop("timeout", None)
    if written is None:
        return None
    try:
        return seconds(written)
    except ValueError as error:
        raise StepError(f"`timeout` of the tool '{name}' {error}.") from error


def spec_of(server: Server, bound: BoundPlan, tally: Tally) -> Spec:
    """Fill in a server's texts.

    Raises:
        StepError: one of them has no value.
    """
    from paddock.steps.toolbox.servers import Address, Command

    try:
        known = {"inputs": bound.inputs, "secrets": tally.secrets.values, "python": sys.executable}
        texts = server.texts.render(known)
    except ExpressionError as error:
        raise StepError(f"the MCP server '{server.name}': {error.message}.") from error
    timeout_s = server.keys.timeout
    if not server.is_command:
        headers = tuple((name, str(one)) for name, one in texts.get("headers", {}).items())
        return Address(server.name, timeout_s, str(texts["url"]), headers)
    return Command(
        server.name,
        timeout_s,
        str(texts["command"]),
        tuple(map(str, texts.get("args", ()))),
        tuple((name, str(one)) for name, one in texts.get("env", {}).items()),
        place(bound.roots, str(texts.get("cwd", "."))),
    )
