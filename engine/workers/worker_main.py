"""Worker process: one process, one model. Started by `worker_process` as a module.

The main thread owns the context and computes; a second thread reads requests, renders and
tokenises them, and leaves long texts to a third. Frames go out on what was standard output;
llama.cpp's own messages go to standard error. When the pipe closes, the pool is gone and the
process ends. A model without a profile is measured before the worker is ready.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import psutil

from paddock.engine.chat.prompt_builder import PromptBuilder
from paddock.engine.decoding.scheduler import StepSizer
from paddock.engine.errors import BadRequest, EngineError
from paddock.engine.llama import library
from paddock.engine.llama.diagnostics import DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import WARM_UP_CELLS, ContextOptions, warm_up
from paddock.engine.llama.llama_model import Model
from paddock.engine.profile.measure import BenchOptions, Unmeasured, measure_model
from paddock.engine.profile.profile import Profile, ProfileUnreadable, read_profile
from paddock.engine.request import Tool

from . import worker_protocol
from .chat_service import ChatService
from .embed_service import EmbedService
from .worker_options import WorkerOptions
from .worker_protocol import FrameHead

if TYPE_CHECKING:
    from paddock.engine.llama.vision import Projector

# Texts of an embedding model are measured in batches of at most so many tokens.
_MEASURED_EMBED_TOKENS = 512
# However few sequences the first load wants, later ones may want sixteen.
_LEAST_MEASURED_CELLS = 16 * 192
# Enough for sixteen sequences of 512 tokens; more would only be memory that is touched for nothing.
# On a graphics device, for 128 of 1,024.
_MOST_MEASURED_CELLS, _MOST_MEASURED_GPU_CELLS = 16 * 576, 128 * 1280


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """What is known of the model's speed, and whether that is news."""

    profile: Profile | None = None
    is_new: bool = False
    note: str = ""
    """Why there is none."""
    took_s: float = 0.0

    def as_head(self) -> FrameHead:
        """Return what a `ready` frame tells of it."""
        new = self.profile.as_json() if self.profile is not None and self.is_new else None
        return {"profile": new, "profile_note": self.note, "profiling_s": self.took_s}


def known_or_measured_profile(load: WorkerOptions, model: Model) -> ProfileResult:
    """Return the load's profile; without one the model is measured, if that is wanted."""
    if load.profile is not None:
        try:
            return ProfileResult(read_profile(load.profile))
        except ProfileUnreadable:
            pass  # of another version: it is measured anew
    if load.profile_s <= 0:
        return ProfileResult()
    # This process was started for the model, so its age is what loading took.
    load_s = time.time() - psutil.Process().create_time()
    began = time.perf_counter()
    try:
        profile = _measure_profile(load, model, load_s)
    except Unmeasured as error:
        return ProfileResult(note=str(error), took_s=time.perf_counter() - began)
    return ProfileResult(profile, is_new=True, took_s=time.perf_counter() - began)


def _measure_profile(load: WorkerOptions, model: Model, load_s: float) -> Profile:
    path = Path(load.path)
    measured = measure_model(model, path, _bench_options(load), load.profile_s)
    return Profile(
        digest=load.digest,
        device=load.device,
        build=load.build,
        measured_at=time.time(),
        n_threads=load.n_threads,
        load_s=round(load_s, 3),
        weight_bytes=path.stat().st_size,
        cell_bytes=measured.cell_bytes,
        prefill=tuple(measured.prefill),
        decode=tuple(measured.decode),
        copy_s=measured.copy_s,
        formats=tuple(measured.formats),
        weights=measured.weights,
        agreements=tuple(measured.agreements),
    )


def _bench_options(load: WorkerOptions) -> BenchOptions:
    embeds = load.role != "chat"
    most = min(_MEASURED_EMBED_TOKENS, load.n_batch_tokens) if embeds else load.n_batch_tokens
    most_cells = _MOST_MEASURED_GPU_CELLS if load.is_gpu else _MOST_MEASURED_CELLS
    return BenchOptions(
        n_cells=most if embeds else max(_LEAST_MEASURED_CELLS, min(load.n_cells, most_cells)),
        n_batch_tokens=most,
        n_threads=load.n_threads,
        flash_attention=load.flash_attention,
        kv_cache_type=load.kv_cache_type,
        embeds=embeds,
        is_gpu=load.is_gpu,
        uses_extra_buffers=load.uses_extra_buffers,
    )


if sys.platform == "linux":
    import fcntl


EXIT_BROKEN = 70  # EX_SOFTWARE: the context is not to be trusted any more


# The pipe holds what 64 answers say in a second, so that a busy pool does not stop the steps: with
# the usual 64 KiB, 100 ms of a busy event loop did.
PIPE_BYTES = 1 << 20

# The thread that reads requests lets the one that computes go on so soon. Beside a template or a
# long JSON, which hold the interpreter, a step took 26 ms instead of 8 with the usual 0.005 s.
SWITCH_S = 0.0005

# Longer texts are tokenised in a thread of their own: 8 MB take 30 s, in which requests that come
# meanwhile would wait. Texts below take some tenths of a second.
LONG_CHARACTERS = 128 * 1024
SLOW_CHARACTER_S = 4e-5  # ten times what a character of such a text takes


def _n_characters(value: object) -> int:
    """Return how many characters the texts in a frame's head have."""
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_n_characters, parts))


class _LongRequests:
    """Requests with long texts, one after the other in a thread of their own."""

    def __init__(self, act: Callable[[worker_protocol.FrameHead, bytes], None]) -> None:
        self._act = act
        self._queue: queue.SimpleQueue[worker_protocol.FrameHead] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._current: int | None = None
        self._is_cancelled = False
        threading.Thread(target=self._run, name="long requests", daemon=True).start()

    def add(self, head: worker_protocol.FrameHead) -> None:
        """Queue a request."""
        with self._lock:
            self._waiting.add(head["id"])
        self._queue.put(head)

    def cancel(self, request_id: int) -> bool:
        """Forget a request that has not gone on to the others; False: it is none of these."""
        with self._lock:
            if request_id == self._current:
                self._is_cancelled = True
                return True
            if request_id in self._waiting:
                self._waiting.remove(request_id)
                return True
        return False

    def _run(self) -> None:
        while True:
            head = self._queue.get()
            with self._lock:
                if head["id"] not in self._waiting:
                    continue
                self._waiting.remove(head["id"])
                self._current, self._is_cancelled = head["id"], False
            self._act(head, b"")
            with self._lock:
                self._current, is_cancelled = None, self._is_cancelled
            if is_cancelled:
                self._act({"op": "cancel", "id": head["id"]}, b"")


class _Sender:
    """Writes frames from all threads, one at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, head: worker_protocol.FrameHead, body: bytes = b"") -> None:
        with self._lock:
            self._stream.write(worker_protocol.pack_frame(head, body))
            self._stream.flush()


def main() -> None:
    """Load the model, warm up, say that it is ready, and work until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's to handle
    sys.setswitchinterval(SWITCH_S)
    requests = sys.stdin.buffer
    sender = _Sender(_take_stdout())
    library.quiet_logs()
    head, _ = worker_protocol.read_frame(requests)
    load = WorkerOptions(**head)
    try:
        model = Model(
            Path(load.path),
            n_gpu_layers=load.n_gpu_layers,
            main_gpu=load.main_gpu,
            split_mode=load.split_mode,
            tensor_split=load.tensor_split,
            adapters=load.adapters,
            uses_extra_buffers=load.uses_extra_buffers,
            parts=load.parts,
            n_cpu_experts=load.n_cpu_experts,
        )
        prompter = PromptBuilder(model, _load_projector(load, model, sender))
        sender.send({"event": "phase", "phase": "warming up"})
        began = time.monotonic()
        n_warm = warm_up(model, _warm_options(load))
        warm_s = time.monotonic() - began
        sender.send({"event": "phase", "phase": "measuring its speed"})
        profiled = known_or_measured_profile(load, model)  # while nothing else computes
        sender.send({"event": "phase", "phase": "loading"})
        service: ChatService | EmbedService
        if load.role != "chat":
            service = EmbedService(model, load, sender.send, warm_s / n_warm, profiled.profile)
        else:
            pace = StepSizer(load.step_s, warm_s / n_warm)
            service = ChatService(model, prompter, load, profiled.profile, sender.send, pace)
    except (LoadFailed, DecodeFailed, EngineError) as error:
        sender.send({"event": "broken", "why": str(error)})
        return
    ready: worker_protocol.FrameHead = {
        "event": "ready",
        "pid": os.getpid(),
        "memory": service.memory(),
    }
    sender.send({**ready, "step_s": warm_s, **profiled.as_head()})
    _start_reader(requests, prompter, sender, service.take, at_end=service.close)
    service.run()


def _warm_options(load: WorkerOptions) -> ContextOptions:
    """Return the options of a small context that computes as the real one will."""
    return ContextOptions(
        n_ctx_tokens=WARM_UP_CELLS,
        n_batch_tokens=WARM_UP_CELLS,
        n_seq_max=1,
        n_threads=load.n_threads,
        embeds=load.role != "chat",
        flash_attention=load.flash_attention,
        kv_cache_type=load.kv_cache_type,
    )


def _load_projector(load: WorkerOptions, model: Model, sender: _Sender) -> Projector | None:
    """Load the projector, where the model has one; libmtmd comes with it.

    Raises:
        LoadFailed: it cannot be loaded, or is not this model's.
    """
    if not load.projector:
        return None
    from paddock.engine.llama.vision import Projector

    uses_gpu = load.is_gpu and load.n_gpu_layers != 0
    path = Path(load.projector)
    return Projector(
        model,
        path,
        n_threads=load.n_threads,
        uses_gpu=uses_gpu,
        on_part=lambda: sender.send({"event": "alive", "for_s": 0}),
    )


def _take_stdout() -> BinaryIO:
    """Take standard output for frames; whoever prints now prints to standard error."""
    mine = os.dup(1)
    os.dup2(2, 1)
    widen_pipe(mine)
    return os.fdopen(mine, "wb")


def widen_pipe(pipe: int) -> None:
    """Enlarge a pipe to `PIPE_BYTES`, where the system allows it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # the user's other pipes have taken what there is
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _start_reader(
    requests: BinaryIO,
    prompter: PromptBuilder,
    sender: _Sender,
    take: Callable[[worker_protocol.FrameHead, bytes], None],
    at_end: Callable[[], None],
) -> None:
    """Start the thread that reads requests and answers what needs no context."""

    def act(head: worker_protocol.FrameHead, body: bytes) -> None:
        try:
            if head["op"] in _CONTEXT_FREE_OPERATIONS:
                result = _CONTEXT_FREE_OPERATIONS[head["op"]](head, prompter)
                sender.send({"event": "told", "id": head["id"], "result": result})
            else:
                take(head, body)
        except EngineError as error:
            sender.send(worker_protocol.pack_refusal(head["id"], error))
        except Exception:
            # One request that was not foreseen must not take the others with it. What went
            # wrong is for the log; a client has no use for our inside.
            traceback.print_exc()
            refusal = BadRequest("the model cannot take this request; the log says why")
            sender.send(worker_protocol.pack_refusal(head["id"], refusal))

    def act_at_length(head: worker_protocol.FrameHead, body: bytes) -> None:
        sender.send({"event": "alive", "for_s": _n_characters(head) * SLOW_CHARACTER_S})
        act(head, body)

    long_ones = _LongRequests(act_at_length)

    def read_all() -> None:
        while True:
            try:
                head, body = worker_protocol.read_frame(requests)
            except worker_protocol.PipeClosed:
                break
            if head["op"] == "stop":
                at_end()
                return
            if head["op"] == "cancel" and long_ones.cancel(head["id"]):
                continue
            if (
                not body and _n_characters(head) > LONG_CHARACTERS
            ):  # images are looked at in one thread
                long_ones.add(head)
            else:
                act(head, body)
        # The pool is gone: nobody is left to finish for, and the owner may be deep in a decode.
        os._exit(0)

    threading.Thread(target=read_all, name="requests", daemon=True).start()


def _count_chat(head: worker_protocol.FrameHead, prompter: PromptBuilder) -> int:
    # Images stay behind when a prompt is only counted; their cells are not in the number.
    texts = [{**message, "n_images": 0} for message in head["messages"]]
    messages, tools = (
        worker_protocol.read_messages(texts, []),
        [Tool(**tool) for tool in head["tools"]],
    )
    return prompter.count_chat(messages, head["template"], tools, head["think"])


_CONTEXT_FREE_OPERATIONS: Mapping[
    str, Callable[[worker_protocol.FrameHead, PromptBuilder], Any]
] = {
    "count_chat": _count_chat,
    "count_texts": lambda head, prompter: prompter.count(head["texts"]),
    "tokenise": lambda head, prompter: prompter.tokenise(head["text"]),
    "detokenise": lambda head, prompter: prompter.detokenise(head["tokens"]),
}
"""What needs no context, by the name of the operation."""


if __name__ == "__main__":
    # Not through the interpreter's end: the reading thread may be inside a read of the pipe.
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(EXIT_BROKEN)
    os._exit(0)
