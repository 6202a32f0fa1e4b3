"""Worker process: one process, one model. Started by `worker_process` as a module.

The main thread owns the context and computes; a second thread reads requests, renders and tokenises
them, and leaves long texts to a third and images to a fourth. Frames go to the original standard
output, everything else that is printed to standard error. When the pipe closes, the pool is gone
and the process ends. A model without a profile on a graphics device is measured before the worker
is ready.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":  # until it is ready: a seventh of the imports' time
    gc.disable()

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from paddock.engine.chat.known_templates import is_foreign
from paddock.engine.chat.prompt_builder import PromptBuilder
from paddock.engine.decoding.scheduler import StepSizer
from paddock.engine.errors import BadRequest, EngineError
from paddock.engine.llama import library
from paddock.engine.llama.build import find_build
from paddock.engine.llama.forward_context import WARM_UP_CELLS, warm_up
from paddock.engine.llama.image_cache import ImageDisk, KeptImages
from paddock.engine.llama.library import DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.openvino.ir_model import IrEncoder, IrModel, WorkerModel
from paddock.engine.profile.context_layout import GPU_PASSES
from paddock.engine.profile.measure import (
    BenchClock,
    BenchOptions,
    MeasuringStopped,
    Unmeasured,
    measure_model,
)
from paddock.engine.profile.profile import Profile
from paddock.engine.request import Message, Tool
from paddock.engine.system.frame_processes import MOST_PROCESSES
from paddock.engine.system.frames import FrameHead, PipeClosed, pack_frame, read_frame, send_frame
from paddock.engine.system.hardware import read_memory
from paddock.engine.system.processes import run_and_exit
from paddock.engine.system.records import asdict
from paddock.engine.wire import from_plain

from .chat_service import ChatService
from .embed_service import EmbedService
from .worker_protocol import KEPT_IMAGE_BYTES, WorkerOptions, pack_refusal

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    from paddock.engine.llama.vision import Projector

# Largest batch that is measured of an embedding model.
_MEASURED_EMBED_TOKENS = 512
# However few sequences the first load has, later ones may have sixteen.
_LEAST_MEASURED_CELLS = 16 * 192
# Enough for sixteen sequences of 512 tokens; on a graphics device, for 128 of 1,024.
_MOST_MEASURED_CELLS, _MOST_MEASURED_GPU_CELLS = 16 * 576, 128 * 1280


def measured_profile(load: WorkerOptions, model: WorkerModel, clock: BenchClock) -> Profile | None:
    """Measure a model while nothing else computes; return None where that failed."""
    try:
        measured = measure_model(model, _bench_options(load), clock)
    except (Unmeasured, MeasuringStopped):
        return None
    return Profile(
        digest=load.digest,
        device=load.device,
        build=load.build,
        cell_bytes=measured.cell_bytes,
        prefill=tuple(measured.prefill),
        decode=tuple(measured.decode),
        copy_s=measured.copy_s,
        agreement=measured.agreement,
        save_s=measured.save_s,
        stream_s=measured.stream_s,
    )


def measured_when_idle(
    load: WorkerOptions,
    model: Model | IrModel,
    service: ChatService,
    should_stop: Callable[[], bool],
) -> Profile | None:
    """Measure a chat service's model, unless its cells would take half of the free memory."""
    memory = service.memory()
    each_bytes: float = memory["cell_bytes"][0] / memory["n_cells"]
    if 2 * each_bytes * _bench_options(load).n_cells > read_memory().free_bytes:
        return None
    clock = BenchClock(load.profile_s, load.n_threads, should_stop=should_stop)
    return measured_profile(load, model, clock)


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
        n_pass_tokens=0 if embeds else load.n_pass_tokens,
        embeds=embeds,
        is_gpu=load.is_gpu,
    )


# The pipe holds a second's output of 64 answers, so that a busy pool does not block the steps: with
# the default of 64 KiB, 100 ms of a busy event loop did.
PIPE_BYTES = 1 << 20

# Switch interval of Python's threads. While a template or long JSON held the interpreter, a step
# took 26 ms instead of 8 with the default of 0.005 s.
SWITCH_S = 0.0005

# Longer texts are tokenised in a thread of their own: 8 MB take 30 s, which would block all other
# requests. Shorter texts take some tenths of a second.
LONG_CHARACTERS = 128 * 1024
SLOW_CHARACTER_S = 4e-5  # ten times what a character of such a text takes
# 0.6 (LLaVA 1.5) to 8 billion operations (Mistral Small 3.1), of which a slow processor does 10
# billion a second.
SLOW_IMAGE_ROW_S = 1.0


def _n_characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_n_characters, parts))


class _Cancelled(BaseException):
    """The request that this thread processes was cancelled; that is no error to report."""


class _LongRequests:
    """Process requests that take long, in threads of their own that the first one starts."""

    def __init__(self, act: Callable[[FrameHead, bytes], None], n_threads: int = 1) -> None:
        self._act = act
        self._queue: queue.SimpleQueue[tuple[FrameHead, bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting, self._current, self._cancelled = set[int](), set[int](), set[int]()
        self._n_unstarted = n_threads

    def add(self, head: FrameHead, body: bytes) -> None:
        with self._lock:
            self._waiting.add(head["id"])
            while self._n_unstarted:
                self._n_unstarted -= 1
                threading.Thread(target=self._run, name="long requests", daemon=True).start()
        self._queue.put((head, body))

    def cancel(self, request_id: int) -> bool:
        with self._lock:
            if request_id in self._current:
                self._cancelled.add(request_id)
                return True
            if request_id in self._waiting:
                self._waiting.remove(request_id)
                return True
        return False

    def check(self) -> None:
        """Raise if the present request is cancelled; only for the one thread that processes it.

        Raises:
            _Cancelled: it is; `_run` expects this.
        """
        if self._cancelled:
            raise _Cancelled

    def _run(self) -> None:
        while True:
            head, body = self._queue.get()
            with self._lock:
                if head["id"] not in self._waiting:
                    continue
                self._waiting.remove(head["id"])
                self._current.add(head["id"])
            with contextlib.suppress(_Cancelled):
                self._act(head, body)
            del body  # images may be large, and the next request may be far off
            with self._lock:
                self._current.discard(head["id"])
                is_cancelled = head["id"] in self._cancelled
                self._cancelled.discard(head["id"])
            if is_cancelled:
                self._act({"op": "cancel", "id": head["id"]}, b"")


class _Sender:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._taken: list[int] = []
        """Requests that the process did not die of taking; the next frame names them."""

    def send(self, head: FrameHead, body: bytes = b"") -> None:
        with self._lock:
            taken = self._taken
            self._taken = []
            send_frame(self._stream, pack_frame({**head, "taken": taken}, body))

    def note_taken(self, request_id: int) -> None:
        with self._lock:
            self._taken.append(request_id)


def main() -> None:
    """Load the model, warm up, send `ready`, and work until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's to handle
    sys.setswitchinterval(SWITCH_S)
    requests = sys.stdin.buffer
    # Standard output for frames; from here on, `print` goes to standard error.
    mine = os.dup(1)
    os.dup2(2, 1)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # the user's pipes have reached the system's limit
            fcntl.fcntl(mine, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    stdout = os.fdopen(mine, "wb")
    sender = _Sender(stdout)
    library.route_llama_log()
    head, _ = read_frame(requests)
    load = from_plain(WorkerOptions, head)
    why_no_device = library.why_no_device() if load.n_gpu_layers else ""
    n_devices = len(library.graphics_devices()) if load.has_device else 0
    if load.has_device and n_devices < load.n_devices:  # before its weights fill main memory
        why = why_no_device or f"llama.cpp finds {n_devices} of {load.n_devices} devices"
        sender.send({"event": "broken", "why": why, "n_devices": n_devices})
        return
    try:
        model = _load_model(load)
        projector = _load_projector(load, model) if isinstance(model, Model) else None
        prompter = PromptBuilder(model, projector)
        sender.send({"event": "phase", "phase": "warming up"})
        began = time.monotonic()
        with model.open_context(_warm_up_options(load)) as context:
            n_warm = warm_up(context, is_gpu=model.is_gpu)
        warm_s = time.monotonic() - began
        known = Profile.of(load.profile)
        new = None
        began = time.monotonic()
        if load.is_gpu and known is None and load.profile_s > 0:
            sender.send({"event": "phase", "phase": "measuring its speed"})
            new = measured_profile(load, model, BenchClock(load.profile_s, load.n_threads))
        profiling_s = time.monotonic() - began
        sender.send({"event": "phase", "phase": "loading"})
        service = _make_service(load, model, prompter, known or new, sender, warm_s / n_warm)
    except (LoadFailed, DecodeFailed, EngineError) as error:
        sender.send({"event": "broken", "why": str(error)})
        return
    ready: FrameHead = {"event": "ready", "pid": os.getpid(), "memory": service.memory()}
    ready |= {"why_no_device": why_no_device, "step_s": warm_s}
    ready["profile"] = asdict(new) if new is not None else None
    sender.send({**ready, "profiling_s": profiling_s})
    gc.freeze()
    gc.enable()
    reader = _RequestReader(prompter, projector, sender, service.take)
    reader.start(requests, at_end=service.close)
    service.run()


def _load_model(load: WorkerOptions) -> WorkerModel:
    if load.ir:
        kind = IrModel if load.role == "chat" else IrEncoder
        return kind(Path(load.path), Path(load.ir), load.n_threads)
    return Model(
        Path(load.path),
        ModelOptions(
            n_gpu_layers=load.n_gpu_layers,
            main_gpu=load.main_gpu,
            split_mode=load.split_mode,
            tensor_split=load.tensor_split,
            adapters=load.adapters,
            uses_extra_buffers=load.uses_extra_buffers,
            parts=load.parts,
            n_cpu_experts=load.n_cpu_experts,
            loads_mtp=load.uses_mtp,
        ),
    )


def _warm_up_options(load: WorkerOptions) -> ContextOptions:
    return ContextOptions(
        n_ctx_tokens=WARM_UP_CELLS,
        n_batch_tokens=WARM_UP_CELLS,
        n_seq_max=1,
        n_threads=load.n_threads,
        embeds=load.role != "chat",
        flash_attention=load.flash_attention,
        kv_cache_type=load.kv_cache_type,
    )


def _make_service(
    load: WorkerOptions,
    model: WorkerModel,
    prompter: PromptBuilder,
    profile: Profile | None,
    sender: _Sender,
    step_s: float,
) -> ChatService | EmbedService:
    if isinstance(model, IrEncoder) or (isinstance(model, Model) and load.role != "chat"):
        return EmbedService(model, load, sender.send, step_s, profile)
    pace = StepSizer(load.step_s, step_s)
    service = ChatService(model, prompter, load, profile, sender.send, pace)
    service.measured = partial(measured_when_idle, load, model, service)
    return service


def _load_projector(load: WorkerOptions, model: Model) -> Projector | None:
    """Load the projector, if the model has one; this imports libmtmd.

    Raises:
        LoadFailed: it cannot be loaded, or is for another model.
    """
    if not load.projector:
        return None
    from paddock.engine.llama.vision import Projector

    computed_by = (load.projector_digest, load.digest, load.device, find_build().fingerprint)
    disk = ImageDisk(Path(load.cache_dir), computed_by) if load.projector_digest else None
    path = Path(load.projector)
    n_pass_tokens = min(load.n_batch_tokens, GPU_PASSES[0] if load.is_gpu else load.n_batch_tokens)
    return Projector(
        model,
        path,
        n_threads=load.n_threads,
        n_pass_tokens=n_pass_tokens,
        uses_gpu=load.has_device,
        kept=KeptImages(KEPT_IMAGE_BYTES, disk),
    )


class _RequestReader:
    """Reads requests in a thread of its own, and answers those that need no context."""

    def __init__(
        self,
        prompter: PromptBuilder,
        projector: Projector | None,
        sender: _Sender,
        take: Callable[[FrameHead, bytes], None],
    ) -> None:
        self._prompter = prompter
        self._sender = sender
        self._take = take
        self._with_long_texts = _LongRequests(self._act_at_length)
        self._with_images = _LongRequests(self._act_at_length)
        self._with_templates = _LongRequests(self._act_at_length, MOST_PROCESSES)
        if projector is not None:
            projector.on_part = self._before_image_part

    def start(self, requests: BinaryIO, at_end: Callable[[], None]) -> None:
        """Start the thread; call `at_end` when the pool asks the worker to end."""

        def read_all() -> None:
            while True:
                try:
                    head, body = read_frame(requests)
                except PipeClosed:
                    os._exit(0)  # the pool is gone, and the owner thread may be deep in a decode
                if head["op"] == "stop":
                    at_end()
                    return
                self._distribute(head, body)

        threading.Thread(target=read_all, name="requests", daemon=True).start()

    def _distribute(self, head: FrameHead, body: bytes) -> None:
        long_requests = (self._with_long_texts, self._with_images, self._with_templates)
        if head["op"] == "cancel" and any(
            requests.cancel(head["id"]) for requests in long_requests
        ):
            return
        if body:  # always the same thread, as the projector is not thread-safe
            self._with_images.add(head, body)
        elif is_foreign(head.get("order", {}).get("request", head).get("template")):
            self._with_templates.add(head, body)
        elif _n_characters(head) > LONG_CHARACTERS:
            self._with_long_texts.add(head, body)
        else:
            self._act(head, body)

    def _act(self, head: FrameHead, body: bytes) -> None:
        try:
            if head["op"] in _CONTEXT_FREE_OPERATIONS:
                result = _CONTEXT_FREE_OPERATIONS[head["op"]](head, self._prompter)
                self._sender.send({"event": "told", "id": head["id"], "result": result})
            else:
                self._take(head, body)
                self._sender.note_taken(head["id"])
        except EngineError as error:
            self._sender.send(pack_refusal(head["id"], error))
        except Exception:
            # An unexpected error in one request must not end the others. The details go to the
            # log, not to the client.
            traceback.print_exc()
            refusal = BadRequest("the model cannot process this request; the log says why")
            self._sender.send(pack_refusal(head["id"], refusal))

    def _act_at_length(self, head: FrameHead, body: bytes) -> None:
        self._send_alive(_n_characters(head) * SLOW_CHARACTER_S)
        self._act(head, body)

    def _before_image_part(self, n_rows: int) -> None:
        self._with_images.check()
        self._send_alive(n_rows * SLOW_IMAGE_ROW_S)

    def _send_alive(self, for_s: float) -> None:
        self._sender.send({"event": "alive", "for_s": for_s})


def _count_chat(head: FrameHead, prompter: PromptBuilder) -> int:
    messages = from_plain(tuple[Message, ...], head["messages"])
    tools = from_plain(tuple[Tool, ...], head["tools"])
    return prompter.count_chat(
        messages, head["template"], tools, head["think"], head["n_ctx_tokens"]
    )


_CONTEXT_FREE_OPERATIONS: Mapping[str, Callable[[FrameHead, PromptBuilder], Any]] = {
    "count_chat": _count_chat,
    "count_texts": lambda head, prompter: prompter.count(head["texts"]),
    "tokenise": lambda head, prompter: prompter.tokenise(head["text"]),
    "detokenise": lambda head, prompter: prompter.detokenise(head["tokens"]),
}


if __name__ == "__main__":
    run_and_exit(main)
