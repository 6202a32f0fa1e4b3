"""A worker process as its pool sees it: start, send requests, watch, probe, stop. asyncio only.

When a worker dies, its requests end with `WorkerGone`; the pool may queue them again. llama.cpp
writes the reason of a failure to standard error, so the last lines are kept.
`probe_worker` asks for one real token, to check that a worker computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from paddock.engine.errors import EngineError, read_error
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Message,
    ModelFacts,
    ModelSpec,
    Sampling,
    Think,
    Tool,
)
from paddock.engine.system.crash_isolation import Crash
from paddock.engine.system.frames import (
    FrameHead,
    FrameTooLarge,
    PipeClosed,
    pack_frame,
    read_frame_async,
)
from paddock.engine.system.processes import python_command, start_in_session, without_keys
from paddock.engine.system.records import Struct, replace
from paddock.engine.wire import from_plain, to_plain

from .death_reasons import WorkerEnd, end_of_process, request_phase
from .worker_protocol import (
    IMAGE_BYTES,
    AnswerEnd,
    ChatOrder,
    Embedded,
    EmbedOrder,
    LoadBroken,
    PendingRequest,
    WorkerGone,
    WorkerMemory,
    WorkerOptions,
)

_N_KEPT_LINES = 50
_UNREADABLE = (FrameTooLarge, AttributeError, LookupError, TypeError, ValueError)
"""What garbage in a worker's pipe raises; the worker may live on."""


WORKER_COMMAND = python_command("-m", "paddock.engine.workers.worker_main")
_STOP_S, _LAST_WORDS_S = 5.0, 1.0
# After this many steps the build of llama.cpp works; a later crash has another cause.
FIRST_TURNS = 16


def _unreadable_text(error: Exception) -> str:
    return f"its output cannot be read: {error!r}"


def _now() -> float:
    return asyncio.get_running_loop().time()


def _worker_environment(load: WorkerOptions) -> dict[str, str]:
    # CUDA's own order is fastest first: an index would mean another card than in `nvidia-smi`.
    own = {"PYTHONUTF8": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment = {**without_keys(os.environ), **own}
    # Where gdb is installed, its trace is longer than the lines that are kept: the reason was lost.
    environment["GGML_NO_BACKTRACE"] = "1"
    # On virtual machines, whose free memory goes back to the host, the first touch of a huge page
    # is slow: to save a document of 650 tokens (15 MB) took 30 ms; with pages of 4 KiB it takes 6.
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    if load.visible_devices:
        environment["CUDA_VISIBLE_DEVICES"] = load.visible_devices
    return environment


class WorkerProcess:
    def __init__(self, process: asyncio.subprocess.Process, load: WorkerOptions) -> None:
        loop = asyncio.get_running_loop()
        self.load = load
        self.load_s = 0.0
        self.last_turn_at = loop.time()
        self.slowest_step_s = 0.0
        self.n_decoded_tokens = 0
        self.gone: asyncio.Future[WorkerEnd] = loop.create_future()
        self.on_turn: Callable[[Mapping[str, Any]], None] | None = None
        self.ready: FrameHead = {}
        self.is_measured = load.profile is not None
        self.has_fallback = False
        """Whether a (further) fallback is tried if it crashes in its first steps."""
        self.on_proven: Callable[[], None] | None = None
        """Called once, after `FIRST_TURNS` steps."""
        self.mapped_bytes = 0
        self._most_bytes = self._most_bytes_with_images = 0
        self._memory: Mapping[str, Any] = {}
        """Its last report of buffers (`memory` of its service)."""
        self._process = process
        self._pending: dict[int, PendingRequest] = {}
        self._next_id = 0
        self._stderr: deque[str] = deque(maxlen=_N_KEPT_LINES)
        """The last lines of its standard error."""
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._n_turns = 0
        self._loading: str | None = "loading"

    @classmethod
    async def started(
        cls, load: WorkerOptions, timeout_s: float, command: Sequence[str] = WORKER_COMMAND
    ) -> WorkerProcess:
        """Start a process and wait until its model is loaded.

        Raises:
            LoadBroken: the model cannot be loaded, or not within `timeout_s`.
        """
        began = time.monotonic()
        process = await start_in_session(
            command,
            environ=_worker_environment(load),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        worker = cls(process, load)
        assert process.stderr is not None
        worker._tasks.append(asyncio.create_task(worker._read_stderr(process.stderr)))
        try:
            async with asyncio.timeout(timeout_s):
                await worker._await_ready()
        except TimeoutError:
            await worker.kill(WorkerEnd("it took too long to load"))
            raise LoadBroken(WorkerEnd(f"loading took more than {timeout_s:g} s")) from None
        except BaseException:
            await worker.kill(WorkerEnd("loading was given up"))
            raise
        worker.load_s = time.monotonic() - began
        worker._tasks.append(asyncio.create_task(worker._read_all()))
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_proven(self) -> bool:
        return self._n_turns >= FIRST_TURNS

    @property
    def n_requests(self) -> int:
        return len(self._pending)

    @property
    def n_running(self) -> int:
        return sum(pending.has_started for pending in self._pending.values())

    # Requests

    async def chat(
        self, request: ChatRequest, sampling: Sampling, pending: PendingRequest, n_ctx_tokens: int
    ) -> AnswerEnd:
        """Send a chat and wait for its end; chunks go to `pending`.

        Raises:
            WorkerGone: the process died.
            EngineError: the request was refused.
        """
        # A worker has one model, and its sampling is merged already.
        request = replace(request, model=ModelSpec(""), params={}, defaults={})
        head, images = ChatOrder(request, sampling, n_ctx_tokens).pack()
        done = await self._request({"op": "chat", **head}, pending, images)
        return from_plain(AnswerEnd, done)

    async def count_chat(
        self,
        messages: tuple[Message, ...],
        template: str | None = None,
        tools: Sequence[Tool] = (),
        think: Think | None = None,
        n_ctx_tokens: int = 0,
    ) -> int:
        head = {
            "op": "count_chat",
            # Images are not sent for counting; their cells are not included.
            "messages": to_plain([replace(message, images=()) for message in messages]),
            "template": template,
            "tools": to_plain(tools),
            "think": think,
            "n_ctx_tokens": n_ctx_tokens,
        }
        return int(await self._request(head))

    async def count_texts(self, texts: tuple[str, ...]) -> list[int]:
        counts: list[int] = await self._request({"op": "count_texts", "texts": texts})
        return counts

    async def tokenise(self, text: str) -> list[int]:
        """Return a text's token ids; texts of control tokens become these tokens."""
        tokens: list[int] = await self._request({"op": "tokenise", "text": text})
        return tokens

    async def detokenise(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids.

        Raises:
            BadRequest: the model has no such token.
        """
        return str(await self._request({"op": "detokenise", "tokens": list(tokens)}))

    async def embed(self, order: EmbedOrder, pending: PendingRequest) -> Embedded:
        """Embed texts.

        Raises:
            WorkerGone: the process died.
            EngineError: a text was refused, with its index.
        """
        embedded: Embedded = await self._request({"op": "embed", "order": to_plain(order)}, pending)
        return embedded

    async def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        """Allow longer requests.

        Raises:
            WorkerGone: the process died.
        """
        await self._request({"op": "widen", "n_ctx_tokens": n_ctx_tokens, "n_cells": n_cells})
        self.load = replace(self.load, n_ctx_tokens=n_ctx_tokens, n_cells=n_cells)

    async def measure_speed(self) -> FrameHead | None:
        """Measure the model, unless it has something else to do; return the profile, if any.

        Raises:
            WorkerGone: the process died.
        """
        profile: FrameHead | None = await self._request({"op": "measure"})
        self.is_measured = profile is not None
        return profile

    def measure(self) -> WorkerMemory:
        """Return the peak of its memory up to now, plus the growth of its context and by images."""
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(self.pid).memory_info()
            self.mapped_bytes = int(getattr(memory, "shared", 0))
            if self.load.projector and not self._most_bytes:  # it has not seen any yet
                self._most_bytes_with_images = int(memory.rss) + IMAGE_BYTES
            self._most_bytes = max(self._most_bytes, int(memory.rss))
        n_cells = self._memory.get("n_cells", self.load.n_cells)
        share = max(0, self.load.n_cells - n_cells) / n_cells
        host, device = (int(n * share) for n in self._memory.get("cell_bytes", (0, 0)))
        host += max(0, self._most_bytes_with_images - self._most_bytes)
        device_bytes = self._memory.get("device_bytes", 0)
        return WorkerMemory(self._most_bytes + host, device_bytes + device, host, device)

    async def _request(
        self, head: FrameHead, pending: PendingRequest | None = None, body: bytes = b""
    ) -> Any:
        if self.gone.done():
            raise WorkerGone(self.gone.result())
        pending = pending or PendingRequest()
        self._next_id += 1
        request_id = self._next_id
        if not self._pending:
            self.last_turn_at = _now()  # the watchdog's clock starts with the work
        self._pending[request_id] = pending
        try:
            self._send({**head, "id": request_id}, body)
            return await pending.result
        finally:
            self._pending.pop(request_id, None)
            if pending.result.cancelled():  # the caller no longer waits
                self._send({"op": "cancel", "id": request_id})

    def _send(self, head: FrameHead, body: bytes = b"") -> None:
        stdin = self._process.stdin
        assert stdin is not None
        if not self.gone.done() and not stdin.is_closing():
            stdin.write(pack_frame(head, body))

    async def _read_stderr(self, stream: asyncio.StreamReader) -> None:
        """Keep the lines; those that are too long for the buffer come in pieces."""
        while True:
            try:
                raw = await stream.readuntil()
            except asyncio.IncompleteReadError as end:
                raw = end.partial
            except asyncio.LimitOverrunError:
                raw = await stream.read(1 << 16)
            if not raw:
                return
            if line := raw.decode("utf-8", errors="replace").strip():
                self._stderr.append(line)

    # Frames from the worker

    async def _await_ready(self) -> None:
        assert self._process.stdout is not None
        self._send(to_plain(self.load))
        try:
            head, _ = await read_frame_async(self._process.stdout)
            while head["event"] == "phase":
                self._loading = head["phase"]
                head, _ = await read_frame_async(self._process.stdout)
        except _UNREADABLE as error:
            raise LoadBroken(WorkerEnd(_unreadable_text(error))) from None
        except PipeClosed:
            raise LoadBroken(await self._own_end()) from None
        if head["event"] == "broken":
            raise LoadBroken(WorkerEnd(head["why"]), head.get("n_devices"))
        if why := head.get("why_no_device"):
            self.load = replace(self.load, why_no_device=why)
        self.slowest_step_s = head.get("step_s", 0.0)
        self.ready, self._memory = head, head.get("memory", {})
        self._stderr.clear()  # failures with a workaround do not explain a later death
        self._loading = None

    async def _read_all(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                head, body = await read_frame_async(self._process.stdout)
                self._handle_frame(head, body)
        except _UNREADABLE as error:  # else requests would wait for the watchdog
            self._end_requests(WorkerEnd(_unreadable_text(error)))
        except PipeClosed:
            end = WorkerEnd("it was unloaded") if self._is_stopping else await self._own_end()
            self._end_requests(end)

    def _handle_frame(self, head: FrameHead, body: bytes) -> None:
        for pending in self._still_pending(head.get("taken", ())):
            pending.was_taken = True
        match head["event"]:
            case "turns":
                for step in head["turns"]:
                    self._handle_step(step)
            case "memory":
                self._memory = head["memory"]
                self.load = replace(self.load, n_cells=self._memory["n_cells_at_most"])
                self._stderr.clear()
            case "started":
                if not self.n_running:
                    self.last_turn_at = max(self.last_turn_at, _now())
                for pending in self._still_pending(head["ids"]):
                    pending.has_started = True
            case "alive":  # its present work is no step, and takes at most `for_s`
                self.last_turn_at = max(self.last_turn_at, _now() + head["for_s"])
            case event:
                if not self.n_running:  # otherwise only steps show that it does not hang
                    self.last_turn_at = max(self.last_turn_at, _now())
                for pending in self._still_pending([head["id"]]):
                    self._handle_answer(event, head, body, pending)

    def _still_pending(self, ids: Sequence[int]) -> list[PendingRequest]:
        return [self._pending[number] for number in ids if number in self._pending]

    @staticmethod
    def _handle_answer(event: str, head: FrameHead, body: bytes, pending: PendingRequest) -> None:
        match event:
            case "refused":
                pending.fail(read_error(head["error"]))
            case "told":
                pending.finish(head["result"])
            case "shortened" if pending.on_shortened is not None:
                pending.on_shortened(head["n_tokens"])
            case "widened":
                pending.finish(None)
            case "embedded":
                pending.finish(Embedded.unpack(head, body))

    def _handle_step(self, head: FrameHead) -> None:
        self.last_turn_at = max(self.last_turn_at, _now())
        self.slowest_step_s = max(self.slowest_step_s, head["step_s"])
        if self.on_turn is not None:
            self.on_turn(head)
        self.n_decoded_tokens += head["n_tokens"]
        self._n_turns += 1
        if self._n_turns == FIRST_TURNS and self.on_proven is not None:
            self.on_proven()
        for pending in self._still_pending(head["progressed"]):
            if pending.on_step is not None:
                pending.on_step()
        for chunk in head["chunks"]:
            for pending in self._still_pending([chunk["id"]]):
                if pending.on_chunk is not None:
                    pending.on_chunk(from_plain(Chunk, chunk))
        for done in head["done"]:
            for pending in self._still_pending([done["id"]]):
                pending.finish(done)

    # The end

    async def stop(self) -> None:
        self._is_stopping = True
        self._send({"op": "stop"})
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            pass
        await self.kill(WorkerEnd("it was unloaded"))

    async def kill(self, end: WorkerEnd) -> None:
        self._end_requests(end)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        with contextlib.suppress(TimeoutError):  # a driver that hangs may keep it for ever
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _end_requests(self, end: WorkerEnd) -> None:
        if not self.gone.done():
            self.gone.set_result(end)
        end = self.gone.result()
        has_fallback = self.has_fallback and not self.is_proven and end.is_crash
        all_pending = list(self._pending.values())
        suspects = [
            request for request in all_pending if request.has_started or not request.was_taken
        ]
        # One batch after another has the texts of one request alone: kills would always hit one.
        if not suspects or self.load.role != "chat":
            suspects = all_pending
        crash = None if has_fallback else Crash(len(suspects))
        for pending in all_pending:
            pending.fail(WorkerGone(end, crash if pending in suspects else None))

    async def _own_end(self) -> WorkerEnd:
        started = [number for number, request in self._pending.items() if request.has_started]
        phase = self._loading or request_phase(started or list(self._pending))
        status = await self._process.wait()
        # What it wrote last may be in the pipe still, which what it started may keep open
        await asyncio.wait(self._tasks[:1], timeout=_LAST_WORDS_S)
        return end_of_process(status, phase, tuple(self._stderr))


class ProbeResult(Struct, frozen=True):
    name: str
    is_well: bool
    seconds: float
    why: str = ""
    has_crashed: bool = False


async def probe_worker(
    facts: ModelFacts, worker: WorkerProcess, within_s: float, n_tokens: int = 1
) -> ProbeResult:
    """Ask a loaded model for a few tokens, or for one vector, as an interactive request."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(within_s):
            if facts.role == "chat":
                request = ChatRequest(
                    ModelSpec(facts.name), (Message("user", "one"),),
                    priority="interactive", drafts=False,
                )  # fmt: skip
                limit = Sampling(max_tokens=n_tokens)
                await worker.chat(request, limit, PendingRequest(), facts.n_ctx_tokens)
            else:
                query = "one" if facts.role == "rerank" else None
                await worker.embed(EmbedOrder(("one",), query=query), PendingRequest())
    except TimeoutError:
        return ProbeResult(facts.name, False, within_s, f"no token within {within_s:g} s")
    except (EngineError, WorkerGone) as error:
        has_crashed = isinstance(error, WorkerGone) and error.end.is_crash
        return ProbeResult(facts.name, False, loop.time() - began, str(error), has_crashed)
    return ProbeResult(facts.name, True, loop.time() - began)
