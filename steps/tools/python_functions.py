"""Call users' Python functions in other processes, with a time limit.

A few processes serve a whole run, one call at a time each; a process that dies or takes too long is
ended with all that it started, and the next call gets a new one. Users' code is only imported for a
call: permissions are checked before a run begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system import processes
from paddock.engine.system.frames import FrameHead, PipeClosed, pack_frame, read_frame_async
from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import end
from paddock.engine.system.text import last_part
from paddock.steps.base import StepError, ToolResult
from paddock.steps.paths import start_refusal
from paddock.steps.plugins import TOOL_GROUP, plugins

from . import function_worker
from .code_digests import code_digest
from .tool import DEFAULT_TOOL_TIMEOUT_S, RunnableTool, tool_refusal, tool_result
from .tool_names import tool_version

MOST_FUNCTION_PROCESSES = 4
_START_S = 60.0
_KEPT_BYTES = 4096


class PythonFunction(Struct, frozen=True):
    of: str
    """The file as the author wrote it, or the module's name."""
    name: str
    file: Path | None = None
    version: str = ""
    """For an installed one: package and version."""

    def as_request(self) -> dict[str, Any]:
        return {"of": self.of, "name": self.name, "file": str(self.file) if self.file else None}

    def digest(self) -> str:
        """Return the sha256 of its code with all that it imports, or its package's version."""
        return code_digest(self.file) if self.file else self.version


def installed_function(name: str) -> PythonFunction:
    """Find the function of an installed tool.

    Raises:
        StepError: more than one package brings it, or its entry point is not a function.
    """
    points = plugins(TOOL_GROUP).get(name, ())
    if len(points) != 1 or not points[0].attr:
        what = "is brought by more than one package" if points[1:] else "names no function"
        raise StepError(f"the tool '{name}' {what}.")
    return PythonFunction(points[0].module, points[0].attr, version=tool_version(name))


class FunctionPool(Struct):
    """The processes of one run. Lives in the run's event loop; `close` ends them."""

    _free: list[_FunctionProcess] = field(default_factory=list)
    _room: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MOST_FUNCTION_PROCESSES)
    )
    _described: dict[PythonFunction, asyncio.Task[Mapping[str, Any]]] = field(default_factory=dict)

    async def tool(self, name: str, function: PythonFunction) -> RunnableTool:
        described = await self.described(function)

        async def do(args: Mapping[str, Any]) -> ToolResult:
            request = {"do": "call", "args": dict(args), **function.as_request()}
            answer = await self._ask(request, None)
            if "refused" in answer:  # what it raised
                return tool_refusal(str(answer["refused"]))
            return tool_result(answer["value"])

        has_effects = bool(described["has_effects"])
        return RunnableTool(
            name=name,
            description=described["description"] or f"The function {function.name}.",
            schema=described["schema"],
            has_effects=has_effects,
            timeout_s=DEFAULT_TOOL_TIMEOUT_S,
            do=do,
            keeps=not has_effects,
            digest=await asyncio.to_thread(function.digest),
            turn=self._turn,
        )

    async def described(self, function: PythonFunction) -> Mapping[str, Any]:
        """Return `description`, `schema` and `has_effects` of a function.

        Raises:
            StepError: it cannot be loaded, or be called as a tool.
        """

        async def describe() -> Mapping[str, Any]:
            async with self._turn():
                return await self._ask({"do": "describe", **function.as_request()}, _START_S)

        if function not in self._described:
            self._described[function] = asyncio.create_task(describe())
        task = self._described[function]
        try:
            answer = await asyncio.shield(task)
        except BaseException:
            if task.done():
                self._described.pop(function, None)
            raise
        value: Mapping[str, Any] = answer["value"]
        return value

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a free process; this does not count for the time limit."""
        async with self._room:
            if not self._free:
                self._free.append(await _FunctionProcess.started())
            yield

    async def _ask(self, request: Mapping[str, Any], limit_s: float | None) -> Mapping[str, Any]:
        # Another call may have taken the free process.
        process = self._free.pop() if self._free else await _FunctionProcess.started()
        is_well = False
        try:
            async with asyncio.timeout(limit_s):
                answer = await process.ask(request)
            is_well = True
        except TimeoutError:
            raise StepError(f"'{request['of']}' took more than {limit_s:g} s to load.") from None
        finally:
            if is_well:
                self._free.append(process)
            else:
                await asyncio.shield(process.end())
        if "unusable" in answer:
            kind: Literal["missing", "other"] = "missing" if answer.get("is_missing") else "other"
            raise StepError(str(answer["unusable"]), kind=kind)
        return answer

    async def close(self) -> None:
        await end(*self._described.values())
        await asyncio.gather(*(process.end() for process in self._free))
        self._free.clear()


class _FunctionProcess:
    def __init__(self, held: processes.GuardedProcess) -> None:
        self._held = held
        self._process = held.process
        self._stderr_tail = bytearray()
        assert held.process.stderr is not None
        self._stderr_reader = asyncio.create_task(
            processes.keep_last(held.process.stderr, self._stderr_tail, _KEPT_BYTES)
        )

    @classmethod
    async def started(cls) -> _FunctionProcess:
        try:
            environ = processes.python_environ(os.environ)
            arguments = "paddock.steps.tools.function_worker", processes.bytecode_folder(os.environ)
            command = processes.python_command("-m", *arguments)
            held = await processes.start_guarded(command, environ=environ)
        except OSError as error:
            raise start_refusal("Python", error) from error
        made = cls(held)
        try:
            async with asyncio.timeout(_START_S):
                await made._received()
        except BaseException as error:
            await asyncio.shield(made.end())
            if isinstance(error, TimeoutError):
                raise StepError("Python takes too long to start.", kind="io") from None
            if isinstance(error, PipeClosed | ValueError):
                what = f"Python ended at its start: {made._last_words()}"
                raise StepError(what, kind="io") from None
            raise
        return made

    async def _received(self) -> FrameHead:
        assert self._process.stdout is not None
        head, _ = await read_frame_async(self._process.stdout, function_worker.MOST_MESSAGE_BYTES)
        return head

    async def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to one request.

        Raises:
            StepError: it died, or its answer cannot be read.
        """
        assert self._process.stdin is not None
        self._stderr_tail.clear()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(pack_frame(dict(request), errors="surrogatepass"))
            await self._process.stdin.drain()
        try:
            return await self._received()
        except (PipeClosed, ValueError):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(self._stderr_reader)
                    await processes.wait_for_end(self._process)
            words = self._last_words()
            named = f"'{request['of']}:{request['name']}'"
            what = f"{named} ended its process"
            kind: Literal["io", "other"] = "other"
            if self._process.returncode in processes.KILLED:
                what, kind = f"{named} was killed, as where memory runs out", "io"
            raise StepError(what + (f": {words}" if words else "."), kind=kind) from None

    def _last_words(self) -> str:
        return last_part(bytes(self._stderr_tail).decode("utf-8", "replace"), 300)

    async def end(self) -> None:
        """End the process and all that it started; an idle one is asked first."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._held.end()
        await end(self._stderr_reader)
