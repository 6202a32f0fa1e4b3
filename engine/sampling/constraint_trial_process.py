"""Process that compiles constraints on trial, within limits on memory and time.

Started as a module by `constraint_trials`, with a vocabulary of bytes. Separate, because llguidance
expands some small schemas without end, and ends its process on others (a stack overflow in Rust).
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from paddock.engine.request import Constraint
from paddock.engine.system.frames import FrameHead, answer_frames, pack_frame, take_pipes

from .constraint import compile_error
from .constraint_trials import TRIAL_CPU_S, TRIAL_MEMORY_BYTES

if sys.platform != "win32":
    import resource

STACK_BYTES = 2 * 1024 * 1024
"""Of the compiling thread. A worker's has 16 MiB: what passes here cannot end the worker."""


def main() -> None:
    requests, answers = take_pipes()
    compile_error(Constraint("json"))  # loads the libraries, before memory is limited
    _limit_memory()
    threading.stack_size(STACK_BYTES)

    def try_constraint(request: dict[str, str], result: list[str]) -> None:
        try:
            constraint = Constraint(request["kind"], request["source"])  # type: ignore[arg-type]
            result[0] = compile_error(constraint)
        except BaseException:  # a panic of Rust is no Exception; all of them mean the same
            result[0] = "the schema or grammar is too large or too complex"

    def answer(request: FrameHead) -> bytes:
        _limit_time()
        result = [""]
        thread = threading.Thread(target=try_constraint, args=(request, result))
        thread.start()
        thread.join()
        return pack_frame({"why": result[0]})

    answer_frames(requests, answers, answer)


def _limit_memory() -> None:
    """Limit the process to `TRIAL_MEMORY_BYTES` more than its libraries take."""
    if sys.platform == "win32":
        return
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + TRIAL_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time() -> None:
    """Limit the next trial to `TRIAL_CPU_S`, after which the system kills the process."""
    if sys.platform == "win32":
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + TRIAL_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
