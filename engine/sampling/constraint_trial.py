"""Subprocess that compiles untrusted constraints. Started by `constraint` as a module.

One line of JSON in, one out; it ends when its input does. Processor time, memory and stack are
limited here.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from paddock.engine.request import Constraint

from .constraint import TRIAL_CPU_S, TRIAL_MEMORY_BYTES, compile_error, load_llguidance

STACK_BYTES = 2 * 1024 * 1024
"""Of the thread that compiles here. A worker's has 16 MiB, so what passed here does not end it."""


def main() -> None:
    """Answer one line for each line, until the input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _bound_memory()
    threading.stack_size(STACK_BYTES)
    for line in requests:
        _bound_time()
        asked, told = json.loads(line), [""]
        thread = threading.Thread(target=_try_constraint, args=(asked, told))
        thread.start()
        thread.join()
        answers.write(json.dumps({"why": told[0]}).encode() + b"\n")
        answers.flush()


def _try_constraint(asked: dict[str, str], told: list[str]) -> None:
    try:
        told[0] = compile_error(Constraint(asked["kind"], asked["source"]))  # type: ignore[arg-type]
    except BaseException:  # a panic of Rust is no Exception; all of them mean the same
        told[0] = "the schema or grammar is too large or too complex"


def _bound_memory() -> None:
    """Let the process have so much more memory than its libraries take."""
    try:
        import resource
    except ImportError:  # not on Windows, where the time alone is bounded
        return
    load_llguidance()
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + TRIAL_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bound_time() -> None:
    """Let the next trial have so much processor time; the system ends the process after it."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + TRIAL_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
