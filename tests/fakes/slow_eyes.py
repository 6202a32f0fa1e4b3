"""A real worker in which each part of an image takes as long as a file is missing.

Run as a script, with the paths of a file that gets a dot for each part, and of the awaited one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from paddock.engine.llama import vision
from paddock.engine.system.processes import run_and_exit
from paddock.engine.workers import worker_main

_libmtmd: Any = vision.mtmd  # type: ignore[attr-defined]
_encode = _libmtmd.mtmd_batch_encode


def _encode_slowly(*args: object) -> object:
    with Path(sys.argv[1]).open("a", encoding="utf-8") as begun:
        begun.write(".")
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
    return _encode(*args)


if __name__ == "__main__":
    _libmtmd.mtmd_batch_encode = _encode_slowly
    run_and_exit(worker_main.main)
