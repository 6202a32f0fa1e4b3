"""The process that quantises a model, started as a module by `model_creation`.

It is a process of its own because llama.cpp's quantiser can be stopped only with its process, and
some of its errors end in `abort()`. One line of JSON comes in and one goes out. When the pipe
closes, the caller is gone and this process ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import TextIO

from paddock.engine.llama import library
from paddock.engine.llama.quantise import QuantiseFailed, quantise


def main() -> None:
    """Carry out one order."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whoever prints now prints to standard error
    library.quiet_logs()
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with, args=(sys.stdin,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # answers that are being written meanwhile go first
    n_threads = order["n_threads"] or os.cpu_count() or 1
    why = ""
    try:
        quantise(Path(order["source"]), Path(order["target"]), order["format"], n_threads)
    except (QuantiseFailed, OSError) as error:
        why = str(error)
    print(json.dumps({"why": why}), file=told, flush=True)


def _exit_with(stream: TextIO) -> None:
    stream.read()
    os._exit(1)


if __name__ == "__main__":
    # Not through the interpreter's end: the other thread may be inside a read of the pipe.
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    os._exit(0)
