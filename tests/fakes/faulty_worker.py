"""Real workers with a fault: `python faulty_worker.py FAULT ARGUMENT…`.

poisoned [decode]: it calls `abort()` when it takes a chat with the word POISON or, with `decode`,
kills itself when it computes the prompt: only for models whose tokens are bytes (`tiny`).

aborting FILE: it calls `abort()` in its 40th decode, as llama.cpp does on many of its
errors. Only the worker that can make the file does so, and once `FILE.read` is there: a stream is
lost only if a part of it has been read.

short BYTES: once it is ready, its process gets hardly more memory than it has.

disturbed N FILE: its first N measurements are seen as disturbed, the others as not. The file gets
a dot for each that begins.

bad-copy AT: a tuned copy calls `abort()` when it is loaded, or in the first decode of an answer.

card FAULT FILE: as where llama.cpp has a graphics device, as long as there is no FILE. Without
kernels for it, it calls `abort()` as soon as a layer is to lie there; with a driver that goes, in
its 20th decode, and makes the file; so does one that another program fills, for once or for good; a
full one has no memory for weights.

slow-eyes FILE GATE: each part of an image takes as long as the gate is missing; the file gets a dot
for each part.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddock.engine.llama import library
from paddock.engine.llama.forward_context import WARM_UP_CELLS
from paddock.engine.llama.llama_context import Context
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.profile import measure
from paddock.engine.system.frames import FrameHead
from paddock.engine.system.processes import run_and_exit
from paddock.engine.workers import worker_main
from paddock.engine.workers.chat_service import ChatService


def be_poisoned(at: str = "take") -> None:
    take_chat, decode = ChatService._take_chat, Context.decode

    def take(self: ChatService, request_id: int, order: Any) -> None:
        if any("POISON" in message.content for message in order.request.messages):
            os.abort()
        take_chat(self, request_id, order)

    def decode_prompt(self: Context, tokens: Any, *arrays: Any, **more: Any) -> int:
        if tokens is not None and b"POISON" in bytes(token & 255 for token in tokens.tolist()):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(self, tokens, *arrays, **more)

    if at == "decode":
        Context.decode = decode_prompt  # type: ignore[method-assign]
    else:
        ChatService._take_chat = take  # type: ignore[method-assign]


def abort_once(file: str) -> None:
    decode, n_decodes = Context.decode, 0

    def aborting(self: Context, *args: Any, **more: Any) -> int:
        nonlocal n_decodes
        n_decodes += 1
        if n_decodes == 40:
            try:
                Path(file).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                while not Path(f"{file}.read").exists():
                    time.sleep(0.01)
                os.abort()
        return decode(self, *args, **more)

    Context.decode = aborting  # type: ignore[method-assign]


def be_short_of_memory(n_bytes: str) -> None:
    memory = ChatService.memory

    def limiting(self: ChatService) -> FrameHead:
        """Set the limit when the worker is about to say that it is ready."""
        n_pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            most = n_pages * resource.getpagesize() + int(n_bytes)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return memory(self)

    ChatService.memory = limiting  # type: ignore[method-assign]


def be_disturbed(n_disturbed: str, file: str) -> None:
    class Clock(measure.BenchClock):
        def __init__(self, *args: Any, **more: Any) -> None:
            begun = Path(file)
            n_begun = len(begun.read_text("utf-8")) if begun.exists() else 0
            begun.write_text("." * (n_begun + 1), "utf-8")
            share = 2.0 if n_begun < int(n_disturbed) else 0.0
            super().__init__(*args, least_share=share, **more)

    worker_main.BenchClock = Clock  # type: ignore[attr-defined]


def have_bad_copy(at: str) -> None:
    load, decode, is_copy = Model.__init__, Context.decode, False

    def loading(self: Model, path: Path, options: ModelOptions) -> None:
        nonlocal is_copy
        is_copy = path.name.startswith("sha256-")
        if is_copy and at == "load":
            os.abort()
        load(self, path, options)

    def decoding(self: Context, *args: Any, **more: Any) -> int:
        # Only once it is ready: warming up sends none of its logits
        if is_copy and self.options.n_ctx_tokens > WARM_UP_CELLS:
            os.abort()
        return decode(self, *args, **more)

    Model.__init__ = loading  # type: ignore[assignment, method-assign]
    Context.decode = decoding  # type: ignore[method-assign]


def have_card(fault: str, file: str) -> None:
    load, decode, n_decodes = Model.__init__, Context.decode, 0
    filled = Path(f"{file}.filled")
    card = library.GraphicsDevice("a card", 1, 1, is_integrated=False)
    library.graphics_devices = lambda: () if Path(file).exists() else (card,)

    def crash(words: str) -> None:
        print(f"CUDA error: {words}\nggml-cuda.cu:109: CUDA error", file=sys.stderr, flush=True)
        os.abort()

    def loading(self: Model, path: Path, options: ModelOptions) -> None:
        if fault == "without kernels" and options.n_gpu_layers:
            crash("no kernel image is available for execution on the device")
        is_full = fault == "full" or (fault == "fills for good" and filled.exists())
        if is_full and options.n_gpu_layers:
            raise library.LoadFailed("cudaMalloc failed: out of memory")
        load(self, path, options)

    def decoding(self: Context, *args: Any, **more: Any) -> int:
        nonlocal n_decodes
        n_decodes += 1
        if fault == "driver goes" and n_decodes == 20 and not Path(file).exists():
            Path(file).touch()
            crash("unspecified launch failure")
        if fault.startswith("fills") and n_decodes == 20 and not filled.exists():
            filled.touch()
            crash("out of memory")
        return decode(self, *args, **more)

    Model.__init__ = loading  # type: ignore[assignment, method-assign]
    Context.decode = decoding  # type: ignore[method-assign]


def see_slowly(file: str, gate: str) -> None:
    from paddock.engine.llama import vision

    libmtmd: Any = vision.mtmd  # type: ignore[attr-defined]
    encode = libmtmd.mtmd_batch_encode

    def encode_slowly(*args: object) -> object:
        with Path(file).open("a", encoding="utf-8") as begun:
            begun.write(".")
        while not Path(gate).exists():
            time.sleep(0.01)
        return encode(*args)

    libmtmd.mtmd_batch_encode = encode_slowly


FAULTS: dict[str, Callable[..., None]] = {
    "poisoned": be_poisoned, "aborting": abort_once, "short": be_short_of_memory,
    "disturbed": be_disturbed, "bad-copy": have_bad_copy, "slow-eyes": see_slowly,
    "card": have_card,
}  # fmt: skip


def command(fault: str, *arguments: object) -> tuple[str, ...]:
    """Return the command of a worker with this fault."""
    assert fault in FAULTS
    return (sys.executable, __file__, fault, *map(str, arguments))


if __name__ == "__main__":
    FAULTS[sys.argv[1]](*sys.argv[2:])
    run_and_exit(worker_main.main)
