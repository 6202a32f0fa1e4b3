"""The MCP servers of a run: one session for each, opened at first use and again where it died.

Knows no protocol: `sessions` speaks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from paddock.steps.step import StepError
from paddock.steps.toolset import ToolResult

from .sessions import Address, Command, Lost, Session, Spec, library_loaded
from .tool import Tool

__all__ = ["Address", "Command", "Servers", "Spec"]

_REST_S = 2.0
_MOST_STARTS = 5
"""How often one server is started in a run: one that dies at every call would go on for ever."""


@dataclass
class _Server:
    """One server, and its session if it has one."""

    spec: Spec
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: Session | None = None
    n_starts: int = 0
    failure: tuple[float, StepError] | None = None
    """When it last could not be opened, and why: others that wait for it need not try as well."""


class Servers:
    """The sessions of one run. Lives in the run's event loop; `close` ends them."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._servers: dict[Spec, _Server] = {}

    async def tools(self, spec: Spec) -> Mapping[str, Tool]:
        """Give a server's tools by their names.

        Raises:
            StepError: it cannot be started or reached, or gives no answer.
        """
        session = await self._session(spec)
        return {name: self._lasting(spec, tool) for name, tool in (await session.tools()).items()}

    def _lasting(self, spec: Spec, tool: Tool) -> Tool:
        """Give a tool that outlives its session: the next call is made in the one that is there."""

        async def do(args: Mapping[str, Any]) -> ToolResult:
            try:
                return await self._called(spec, tool.name, args)
            except Lost:
                if tool.has_effects:
                    raise  # it may have been done
                return await self._called(spec, tool.name, args)

        return replace(tool, do=do)

    async def _called(self, spec: Spec, name: str, args: Mapping[str, Any]) -> ToolResult:
        found = await (await self._session(spec)).tools()
        if name not in found:
            raise StepError(f"{spec} has no tool '{name}' any more.")
        return await found[name].do(args)

    async def _session(self, spec: Spec) -> Session:
        await library_loaded()
        server = self._servers.setdefault(spec, _Server(spec))
        async with server.turn:
            session = server.session
            if session is not None and not await session.answers():
                await session.close()
                session = server.session = None
            if session is None:
                session = server.session = await self._opened(server)
        return session

    async def _opened(self, server: _Server) -> Session:
        now = asyncio.get_running_loop().time()
        if server.failure is not None and now - server.failure[0] < _REST_S:
            raise server.failure[1]
        if server.n_starts >= _MOST_STARTS:
            what = (
                f"{server.spec} was opened {_MOST_STARTS} times in this run, and ended each time."
            )
            raise StepError(what)
        server.n_starts += 1
        if server.n_starts > 1:
            self._note(f"{server.spec} has ended, or hangs, and is opened again")
        session = Session(server.spec)
        try:
            await session.tools()
        except BaseException as error:
            await asyncio.shield(session.close())
            if isinstance(error, StepError):
                server.failure = asyncio.get_running_loop().time(), error
            raise
        return session

    async def close(self) -> None:
        """End every session, all at once."""
        open_ = [one.session for one in self._servers.values() if one.session is not None]
        await asyncio.gather(*(session.close() for session in open_), return_exceptions=True)
        self._servers.clear()
