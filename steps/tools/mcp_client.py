"""MCP client: sessions with the servers of a run, over standard streams or HTTP.

The only module that asks servers by `mcp`; `runner.cli.mcp_server` serves it.

One session per server, opened at first use and reopened if it died. A session lives in its own
task: the caller of a tool only waits. Standard error of a server, and lines that are not messages,
are kept for error messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import importlib.util
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from paddock.engine.system import process_guard, processes
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.tasks import first_error, running
from paddock.engine.system.text import last_part, one_line
from paddock.steps.base import StepError, ToolResult
from paddock.steps.extras import missing_mcp_library
from paddock.steps.paths import start_refusal

from .tool import RunnableTool, tool_refusal, tool_result

_KEPT_STDERR_BYTES = 4096
_INVALID_LINE_CHARS = 80  # of what is no message, in an error
_MOST_PAGES = 100  # of a server's list of tools
_CONNECTION_CLOSED = -32000  # the library's code for a closed connection
_CLOSE_S = 8.0  # the protocol ends a process after 2 s, asks for 2 s, then kills it
_LAST_WORDS_S = 0.5  # until standard error says why a server ended
_ANSWER_S = 5.0  # of a server that may hang
_RETRY_AFTER_S = 2.0  # tasks that wait for a server share its failure
_MOST_STARTS = 5  # of one server per run: it may die at every call


class ServerOutput(Struct):
    """What a server wrote other than messages."""

    stderr: bytearray = field(default_factory=bytearray)
    garbage: str = ""
    is_over: bool = False

    def words(self) -> str:
        """Return it as the end of a sentence."""
        if self.garbage:
            return f": its output is not JSON-RPC: '{self.garbage}'"
        words = last_part(bytes(self.stderr).decode("utf-8", "replace"), 300)
        return f": {words}" if words else "."


@asynccontextmanager
async def stderr_file(output: ServerOutput) -> AsyncIterator[Any]:
    """Yield a file for a server's standard error; its last part is kept."""
    read, write = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    async with running(processes.keep_last(reader, output.stderr, _KEPT_STDERR_BYTES)):
        errors = os.fdopen(write, "w")
        try:
            yield errors
        finally:
            errors.close()
            transport.close()


@asynccontextmanager
async def watched(transport: Any, output: ServerOutput) -> AsyncIterator[Any]:
    """Open a transport; report when the server has ended, and keep invalid messages."""
    async with transport as (read, write):
        try:
            yield _WatchedStream(read, output), write
        finally:
            output.is_over = True


class _WatchedStream(Struct):
    _stream: Any
    _output: ServerOutput

    async def receive(self) -> Any:
        try:
            item = await self._stream.receive()
        except BaseException:
            self._output.is_over = True
            raise
        return self._looked_at(item)

    def __aiter__(self) -> _WatchedStream:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._looked_at(await self._stream.__anext__())
        except StopAsyncIteration:
            self._output.is_over = True
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> _WatchedStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

    def _looked_at(self, item: Any) -> Any:
        if isinstance(item, Exception) and not self._output.garbage:
            errors: Sequence[Any] = ()
            with contextlib.suppress(Exception):
                errors = item.errors()  # type: ignore[attr-defined]  # Pydantic's have it
            line = str(errors[0].get("input", "")) if errors else str(item)
            self._output.garbage = one_line(line, _INVALID_LINE_CHARS)
        return item


class StdioServerSpec(Struct, frozen=True):
    name: str
    timeout_s: float
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: Path = Path()

    def __str__(self) -> str:
        """Return it for messages, without arguments: they may be secrets."""
        return f"the MCP server '{self.name}' (`{self.command}`)"


class HttpServerSpec(Struct, frozen=True):
    name: str
    timeout_s: float
    url: str
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"the MCP server '{self.name}' at {self.url}"


McpServerSpec = StdioServerSpec | HttpServerSpec


class SessionLost(StepError):
    """The session ended; a new one may work."""


class McpSession:
    def __init__(self, spec: McpServerSpec, library: Any) -> None:
        self.spec = spec
        self._library = library
        self._output = ServerOutput()
        self._closing = asyncio.Event()
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live())
        self._tools: Mapping[str, RunnableTool] = {}
        self._client: Any = None
        self._is_doubted = False

    @property
    def is_over(self) -> bool:
        return self._life.done() or self._output.is_over

    async def tools(self) -> Mapping[str, RunnableTool]:
        """Return the server's tools once it is ready.

        Raises:
            StepError: it fails, or is not ready in time.
        """
        limit_s = self.spec.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._ready)
        except TimeoutError:
            what = f"{self.spec} did not answer within {limit_s:g} s{self._output.words()}"
            await self.close()
            raise StepError(what, kind="timeout") from None
        return self._tools

    async def answers(self) -> bool:
        if self.is_over or not self._is_doubted:
            return not self.is_over
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._client.list_tools()
        except Exception:  # time-out, closed, garbage: no answer
            return False
        self._is_doubted = False
        return True

    async def close(self) -> None:
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
            async with self._transport() as transport:
                client = self._library.Client(transport, cache=None, input_required_max_rounds=1)
                async with client:
                    self._client = client
                    self._tools = {tool.name: tool for tool in await self._listed(client)}
                    if not self._ready.done():
                        self._ready.set_result(None)
                    await self._closing.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await asyncio.sleep(_LAST_WORDS_S if not self._output.stderr else 0)
            if not self._ready.done():
                self._ready.set_exception(self._failure(error))
            if not isinstance(error, Exception | BaseExceptionGroup):
                raise

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # errors are reported by the run
        if isinstance(self.spec, HttpServerSpec):
            make_client = self._library.shared._httpx_utils.create_mcp_http_client
            connect = self._library.client.streamable_http.streamable_http_client
            async with make_client(headers=dict(self.spec.headers)) as client:
                yield connect(self.spec.url, http_client=client)
            return
        spec = self.spec
        environ = processes.program_environ(dict(spec.env), os.environ)
        if processes.find_program(spec.command, spec.cwd, environ) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), spec.command)
        # 0: its standard input
        command, *args = process_guard.guarded_command([spec.command, *spec.args], 0)
        server = self._library.StdioServerParameters(
            command=command, args=args, env=environ, cwd=spec.cwd, encoding_error_handler="replace"
        )
        async with stderr_file(self._output) as errors:
            transport = self._library.stdio_client(server, errlog=errors)
            yield watched(transport, self._output)

    # --- asking it

    async def _listed(self, client: Any) -> list[RunnableTool]:
        found: list[RunnableTool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += [self._tool(client, tool) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    def _tool(self, client: Any, tool: Any) -> RunnableTool:
        hints = tool.annotations
        # Without annotations a tool may have side effects. A tool with an open world sends its
        # arguments there, which is a side effect too.
        is_harmless = hints is not None and hints.read_only_hint and not hints.open_world_hint
        wraps = list((tool.output_schema or {}).get("properties", {})) == ["result"]

        async def do(args: Mapping[str, Any]) -> ToolResult:
            return await self._called(client, tool.name, args, wraps=wraps)

        return RunnableTool(
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
        try:
            found = await client.call_tool(name, dict(args))
        except asyncio.CancelledError:
            self._is_doubted = True
            raise
        except self._library.MCPError as error:
            if error.code == _CONNECTION_CLOSED or self.is_over:
                raise self._failure(error) from error
            self._is_doubted = True  # over HTTP the session may have ended
            return tool_refusal(error.message)
        except (RuntimeError, ValueError) as error:  # the result does not match its schema
            return tool_refusal(f"the result of '{name}' cannot be used: {error}")
        except Exception as error:  # connection errors of several libraries
            raise self._failure(error) from error
        text = "\n".join(map(_block_text, found.content))
        if found.is_error:
            return tool_refusal(text or f"'{name}' failed without a message.")
        value = found.structured_content
        if wraps and isinstance(value, Mapping) and set(value) == {"result"}:
            value = value["result"]
        return tool_result(text if value is None else value, text or json.dumps(value))

    def _failure(self, error: BaseException) -> StepError:
        first = first_error(error)
        if isinstance(first, StepError):
            return first
        if isinstance(first, FileNotFoundError) and isinstance(self.spec, StdioServerSpec):
            if str(first.filename) == str(self.spec.cwd):
                why = f"the folder '{self.spec.cwd}' does not exist"
                return StepError(f"{self.spec} cannot be started: {why}.")
            what = f"{self.spec} cannot be started: there is no such program here."
            return StepError(what, remedy="Install it, or correct `command`.", kind="missing")
        if isinstance(self.spec, StdioServerSpec):
            if not isinstance(first, OSError | ValueError) or self._output.is_over:
                return SessionLost(f"{self.spec} ended{self._output.words()}", kind="io")
            return start_refusal(str(self.spec), first)
        self._output.is_over = True
        why = one_line(str(first)) or type(first).__name__
        return SessionLost(f"{self.spec} cannot be asked: {why.rstrip('.')}.", kind="io")


def _block_text(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return str(text) if text is not None else f"[{block.resource.uri}]"
    if block.type == "resource_link":
        return f"[{block.name}: {block.uri}]"
    size = len(getattr(block, "data", "")) * 3 // 4
    return f"[{block.type}, {getattr(block, 'mime_type', '')}, {size:,} bytes]"


class _ServerState(Struct):
    spec: McpServerSpec
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: McpSession | None = None
    n_starts: int = 0
    failure: tuple[float, StepError] | None = None
    """When it last failed to open, and why: other waiting tasks do not retry."""


class McpSessions:
    """The sessions of one run. Lives in the run's event loop; `close` ends them."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._servers: dict[McpServerSpec, _ServerState] = {}

    async def tools(self, spec: McpServerSpec) -> Mapping[str, RunnableTool]:
        """Return a server's tools by their names.

        Raises:
            StepError: it cannot be started or reached, or does not answer.
        """
        session = await self._session(spec)
        return {name: self._lasting(spec, tool) for name, tool in (await session.tools()).items()}

    def _lasting(self, spec: McpServerSpec, tool: RunnableTool) -> RunnableTool:
        """Return a tool that outlives its session: each call uses the current one."""

        async def do(args: Mapping[str, Any]) -> ToolResult:
            try:
                return await self._called(spec, tool.name, args)
            except SessionLost:
                if tool.has_effects:
                    raise  # it may have had side effects
                return await self._called(spec, tool.name, args)

        return replace(tool, do=do)

    async def _called(self, spec: McpServerSpec, name: str, args: Mapping[str, Any]) -> ToolResult:
        found = await (await self._session(spec)).tools()
        if name not in found:
            raise StepError(f"{spec} has no tool '{name}' any more.")
        return await found[name].do(args)

    async def _session(self, spec: McpServerSpec) -> McpSession:
        # The library's module, imported in a thread: it takes a second or more
        if (missing := missing_mcp_library()) is not None:
            raise StepError(missing[0], remedy=missing[1], is_fatal=True)
        await asyncio.to_thread(importlib.import_module, "mcp.client.streamable_http")
        library = importlib.import_module("mcp")
        server = self._servers.setdefault(spec, _ServerState(spec))
        async with server.turn:
            session = server.session
            if session is not None and not await session.answers():
                await session.close()
                session = server.session = None
            if session is None:
                session = server.session = await self._opened(server, library)
        return session

    async def _opened(self, server: _ServerState, library: Any) -> McpSession:
        now = asyncio.get_running_loop().time()
        if server.failure is not None and now - server.failure[0] < _RETRY_AFTER_S:
            raise server.failure[1]
        if server.n_starts >= _MOST_STARTS:
            what = f"{server.spec} was opened {_MOST_STARTS} times in this run and ended each time."
            raise StepError(what)
        server.n_starts += 1
        if server.n_starts > 1:
            self._note(f"{server.spec} has ended or hangs; it is opened again")
        session = McpSession(server.spec, library)
        try:
            await session.tools()
        except BaseException as error:
            await asyncio.shield(session.close())
            if isinstance(error, StepError):
                server.failure = asyncio.get_running_loop().time(), error
            raise
        return session

    async def close(self) -> None:
        open_ = [server.session for server in self._servers.values() if server.session is not None]
        await asyncio.gather(*(session.close() for session in open_), return_exceptions=True)
        self._servers.clear()
