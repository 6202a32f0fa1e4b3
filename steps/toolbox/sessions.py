"""One session with an MCP server, over standard input and output or over HTTP.

The only module that knows `mcp`. A session lives in a task of its own: whoever calls a tool only
waits. What a server writes where none of it belongs, and its last words, are kept for whoever is
told that it failed.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.steps import guard, processes
from paddock.steps.step import StepError
from paddock.steps.toolset import ToolResult

from .hearing import Heard, Watched, listening
from .tool import Tool, refusal, result_of

_MOST_PAGES = 100
_CLOSE_S = 8.0  # the protocol's own end of a process: 2 s by itself, 2 s asked, then killed
_LAST_WORDS_S = 0.5
_ANSWER_S = 5.0
_CLOSED = -32000  # the library's own code for a connection that is closed


@dataclass(frozen=True, slots=True)
class Command:
    """A server that is started."""

    name: str
    timeout_s: float
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: Path = Path()

    def __str__(self) -> str:
        """Give it as it is told, without its arguments: they may be keys."""
        return f"the MCP server '{self.name}' (`{self.command}`)"


@dataclass(frozen=True, slots=True)
class Address:
    """A server that is there already."""

    name: str
    timeout_s: float
    url: str
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Give it as it is told."""
        return f"the MCP server '{self.name}' at {self.url}"


Spec = Command | Address


class Lost(StepError):
    """The session ended; another one may be better."""


def missing_library() -> tuple[str, str] | None:
    """Return what is wrong and what to do where the library is not installed; imports nothing."""
    from importlib.util import find_spec

    if find_spec("mcp") is not None:
        return None
    what = "MCP servers need the package 'mcp', which is not installed."
    return what, "Install it: `pip install 'paddock-llm[mcp]'`."


async def library_loaded() -> None:
    """Read the library's modules: a second, or several, in which other items can go on.

    Raises:
        StepError: it is not installed, so that no other item can use a server either.
    """
    if (missing := missing_library()) is not None:
        raise StepError(missing[0], remedy=missing[1], is_fatal=True)
    for name in ("mcp.client.client", "mcp.client.stdio", "mcp.client.streamable_http"):
        await asyncio.to_thread(importlib.import_module, name)


class Session:
    """One session, from its first use to its end; `library_loaded` was waited for."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._heard = Heard()
        self._closing = asyncio.Event()
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live())
        self._tools: Mapping[str, Tool] = {}
        self._client: Any = None
        self._is_doubted = False

    @property
    def is_over(self) -> bool:
        """Whether it can be asked nothing more."""
        return self._life.done() or self._heard.is_over

    async def tools(self) -> Mapping[str, Tool]:
        """Give the server's tools, once it is there.

        Raises:
            StepError: it is not, or not in time.
        """
        limit_s = self.spec.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._ready)
        except TimeoutError:
            what = f"{self.spec} gave no answer within {limit_s:g} s{self._heard.words()}"
            await self.close()
            raise StepError(what, kind="timeout") from None
        return self._tools

    async def answers(self) -> bool:
        """Tell whether the server still answers, where somebody has waited in vain."""
        if self.is_over or not self._is_doubted:
            return not self.is_over
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._client.list_tools()
        except Exception:  # late, closed, garbage: whatever it is, it is no answer
            return False
        self._is_doubted = False
        return True

    async def close(self) -> None:
        """End it, and the process with all that it started."""
        self._closing.set()
        if not self._ready.done():
            self._life.cancel()
        _, late = await asyncio.wait({self._life}, timeout=_CLOSE_S)
        for task in late:
            task.cancel()
            await asyncio.wait({task}, timeout=_CLOSE_S)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # seen
        self._ready.cancel()

    # --- its life

    async def _live(self) -> None:
        try:
            from mcp.client.client import Client

            async with self._transport() as transport:
                client = Client(transport, cache=None, input_required_max_rounds=1)
                async with client:
                    self._client = client
                    self._tools = {tool.name: tool for tool in await self._listed(client)}
                    if not self._ready.done():
                        self._ready.set_result(None)
                    await self._closing.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await asyncio.sleep(_LAST_WORDS_S if not self._heard.stderr else 0)
            if not self._ready.done():
                self._ready.set_exception(self._failure(error))
            if not isinstance(error, Exception | BaseExceptionGroup):
                raise

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it is told by us, with its place
        if isinstance(self.spec, Address):
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            async with create_mcp_http_client(headers=dict(self.spec.headers)) as client:
                yield streamable_http_client(self.spec.url, http_client=client)
            return
        from mcp.client.stdio import StdioServerParameters, stdio_client

        spec = self.spec
        environ = processes.clean_environ(dict(spec.env), os.environ)
        if not processes.is_there(spec.command, spec.cwd, environ):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), spec.command)
        command, *args = guard.guarded([spec.command, *spec.args], 0)  # its standard input
        server = StdioServerParameters(
            command=command,
            args=args,
            env=environ,
            cwd=spec.cwd,
            encoding_error_handler="replace",
        )
        async with listening(self._heard) as errors:
            yield Watched(stdio_client(server, errlog=errors), self._heard)

    # --- asking it

    async def _listed(self, client: Any) -> list[Tool]:
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += [self._tool(client, tool) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    def _tool(self, client: Any, tool: Any) -> Tool:
        hints = tool.annotations
        # A server that says nothing may do anything. One whose tool looks at the open world sends
        # there what it is asked, so that is an effect as well.
        is_harmless = hints is not None and hints.read_only_hint and not hints.open_world_hint
        wraps = list((tool.output_schema or {}).get("properties", {})) == ["result"]

        async def do(args: Mapping[str, Any]) -> ToolResult:
            return await self._called(client, tool.name, args, wraps=wraps)

        return Tool(
            name=tool.name,
            description=tool.description or tool.title or "",
            schema=dict(tool.input_schema),
            has_effects=not is_harmless,
            timeout_s=self.spec.timeout_s,
            do=do,
            server=self.spec.name,
        )

    async def _called(
        self, client: Any, name: str, args: Mapping[str, Any], *, wraps: bool
    ) -> ToolResult:
        from mcp.shared.exceptions import MCPError

        try:
            found = await client.call_tool(name, dict(args))
        except asyncio.CancelledError:
            self._is_doubted = True
            raise
        except MCPError as error:
            if error.code == _CLOSED or self.is_over:
                raise self._failure(error) from error
            self._is_doubted = True  # over HTTP a session may have ended, and only say so
            return refusal(error.message)
        except (RuntimeError, ValueError) as error:  # what it gave is not what it had promised
            return refusal(f"the result of '{name}' cannot be used: {error}")
        except Exception as error:  # of the connection: several libraries' own
            raise self._failure(error) from error
        text = "\n".join(map(_said, found.content))
        if found.is_error:
            return refusal(text or f"'{name}' failed and did not say why.")
        value = found.structured_content
        if wraps and isinstance(value, Mapping) and set(value) == {"result"}:
            value = value["result"]
        return result_of(text if value is None else value, text or json.dumps(value))

    def _failure(self, error: BaseException) -> StepError:
        """Say what became of the server."""
        first = _first(error)
        if isinstance(first, StepError):
            return first
        if isinstance(first, FileNotFoundError) and isinstance(self.spec, Command):
            if str(first.filename) == str(self.spec.cwd):
                return StepError(
                    f"{self.spec} cannot be started: there is no folder '{self.spec.cwd}'."
                )
            what = f"{self.spec} cannot be started: there is no such program here."
            return StepError(what, remedy="Install it, or correct `command`.", kind="missing")
        if isinstance(self.spec, Command):
            is_started = not isinstance(first, OSError | ValueError) or self._heard.is_over
            if is_started:
                return Lost(f"{self.spec} ended{self._heard.words()}", kind="io")
            return StepError(f"{self.spec} cannot be started: {first}.")
        self._heard.is_over = True
        why = " ".join(str(first).split()) or type(first).__name__
        return Lost(f"{self.spec} cannot be asked: {why.rstrip('.')}.", kind="io")


def _first(error: BaseException) -> BaseException:
    """Give the error that a group of tasks was ended by."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(block: Any) -> str:
    """Give one part of a result as a model can read it."""
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return str(text) if text is not None else f"[{block.resource.uri}]"
    if block.type == "resource_link":
        return f"[{block.name}: {block.uri}]"
    size = len(getattr(block, "data", "")) * 3 // 4
    return f"[{block.type}, {getattr(block, 'mime_type', '')}, {size:,} bytes]"
