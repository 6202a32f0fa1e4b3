"""A real worker that calls `abort()` in its 40th decode, as llama.cpp does on many of its errors.

Run as a script, with a file's path: only who can make that file aborts, so the next one lives. It
does so once `FILE.read` is there: a stream is lost only if a part of it has been read.
With the argument `stands`, it stands still in that decode until it is killed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from paddock.engine.llama.llama_context import Context
from paddock.engine.workers import worker_main

_STANDS = sys.argv[2:] == ["stands"]

_decode = Context.decode
_n_decodes = 0


def _aborting(self: Context, *args: object, **more: object) -> int:
    global _n_decodes
    _n_decodes += 1
    if _n_decodes == 40:
        try:
            Path(sys.argv[1]).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            if _STANDS:
                threading.Event().wait()
            while not Path(f"{sys.argv[1]}.read").exists():
                time.sleep(0.01)
            os.abort()
    return _decode(self, *args, **more)  # type: ignore[arg-type]


if __name__ == "__main__":
    Context.decode = _aborting  # type: ignore[method-assign]
    worker_main.main()
    os._exit(0)
