"""The process that quantises a model, started as a module by `model_creation`.

llama.cpp's quantiser can be stopped only by ending its process, and some of its errors call
`abort()`. The process reads one line of JSON and writes one.
"""

from __future__ import annotations

import os
from pathlib import Path

from paddock.engine.llama import library
from paddock.engine.llama.quantise import QuantiseFailed, quantise
from paddock.engine.system.processes import run_and_exit, take_order


def main() -> None:
    order, send = take_order()
    library.quiet_logs()
    if hasattr(os, "nice"):
        os.nice(5)  # running requests have priority
    n_threads = order["n_threads"] or os.cpu_count() or 1
    why = ""
    try:
        quantise(Path(order["source"]), Path(order["target"]), order["format"], n_threads)
    except (QuantiseFailed, OSError) as error:
        why = str(error)
    send({"why": why})


if __name__ == "__main__":
    run_and_exit(main)
