"""The process that quantises a model, started as a module by `model_creation`.

llama.cpp's quantiser can be stopped only by ending its process, and some of its errors call
`abort()`. The process reads one line of JSON and writes one. It ends when its input is closed,
because the caller is gone.
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
    """Quantise one model."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # llama.cpp's prints go to standard error
    library.quiet_logs()
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with, args=(sys.stdin,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # running requests have priority
    n_threads = order["n_threads"] or os.cpu_count() or 1
    why = ""
    try:
        quantise(Path(order["source"]), Path(order["target"]), order["format"], n_threads)
    except (QuantiseFailed, OSError) as error:
        why = str(error)
    print(json.dumps({"why": why}), file=output, flush=True)


def _exit_with(stream: TextIO) -> None:
    stream.read()
    os._exit(1)


if __name__ == "__main__":
    # Without the interpreter's clean-up: the other thread may be reading the pipe.
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    os._exit(0)
