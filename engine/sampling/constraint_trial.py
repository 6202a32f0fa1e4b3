"""Compile untrusted constraints in a subprocess with limits, before the worker compiles them.

llguidance expands some small schemas without end, and ends its process on others (a stack overflow
in Rust), and a client may send any. `ConstraintTrials` is the worker's side: a process that
exceeds its limits on size, processor time or memory is killed, and the next constraint gets a new
one. Run as a module, this is the subprocess: one line of JSON in, one out, until the input ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint

MOST_GRAMMAR_CHARACTERS = 512 * 1024
"""Of a schema or grammar; the largest real ones have some 50,000."""
MOST_PATTERN_CHARACTERS = 32 * 1024
TRIAL_CPU_S = 3
"""For one trial: 5,000 optional properties take 2.1 s, a usual schema 1 ms."""
TRIAL_WALL_S = 60.0
"""The same on a busy machine."""
TRIAL_MEMORY_BYTES = 512 * 1024 * 1024
"""Beyond what the process has at its start."""
TRIAL_COMMAND = (sys.executable, "-m", "paddock.engine.sampling.constraint_trial")

_CONSTRAINT_NAMES = {
    "json": "JSON",
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
}


def constraint_name(constraint: Constraint) -> str:
    """Return a constraint's name for messages."""
    return _CONSTRAINT_NAMES[constraint.kind]


class ConstraintTrials:
    """Try constraints, one after the other. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, constraint: Constraint) -> None:
        """Compile a constraint in the subprocess.

        Raises:
            BadRequest: it cannot be enforced, or costs too much to compile.
        """
        is_pattern = constraint.kind == "regex"
        most = MOST_PATTERN_CHARACTERS if is_pattern else MOST_GRAMMAR_CHARACTERS
        n_characters, name = len(constraint.source), constraint_name(constraint)
        if n_characters > most:
            raise BadRequest(f"{name} has {n_characters:,} characters; the limit is {most:,}")
        with self._lock:
            why = self._answer({"kind": constraint.kind, "source": constraint.source})
        if why is None:
            raise BadRequest(
                f"{name} is too complex: it cannot be compiled within {TRIAL_CPU_S} s and "
                f"{TRIAL_MEMORY_BYTES // 2**20} MiB. Use fewer options, `$ref`s or repetitions"
            )
        if why:
            raise BadRequest(why)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _answer(self, requested: dict[str, Any]) -> str | None:
        """Return why a constraint is refused, "" if it is not, None if the process died."""
        if self._process is not None and self._process.poll() is not None:
            self._end()  # killed between two trials
        if self._process is None:
            self._process = subprocess.Popen(
                TRIAL_COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(requested).encode() + b"\n")
            process.stdin.flush()
            is_there, _, _ = select.select([process.stdout], [], [], TRIAL_WALL_S)
            line = process.stdout.readline() if is_there else b""
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self._end()
            return None
        return str(json.loads(line)["why"])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


STACK_BYTES = 2 * 1024 * 1024
"""Of the compiling thread. A worker's has 16 MiB: what passes here cannot end the worker."""


def main() -> None:
    """Answer each line of the input with one line, until it ends."""
    from .constraint import compile_error  # imports this module

    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    compile_error(Constraint("json"))  # loads the libraries, before memory is limited
    _limit_memory()
    threading.stack_size(STACK_BYTES)

    def try_constraint(request: dict[str, str], result: list[str]) -> None:
        try:
            constraint = Constraint(request["kind"], request["source"])  # type: ignore[arg-type]
            result[0] = compile_error(constraint)
        except BaseException:  # a panic of Rust is no Exception; all of them mean the same
            result[0] = "the schema or grammar is too large or too complex"

    for line in requests:
        _limit_time()
        result = [""]
        thread = threading.Thread(target=try_constraint, args=(json.loads(line), result))
        thread.start()
        thread.join()
        answers.write(json.dumps({"why": result[0]}).encode() + b"\n")
        answers.flush()


def _limit_memory() -> None:
    """Limit the process to `TRIAL_MEMORY_BYTES` more than its libraries take."""
    try:
        import resource
    except ImportError:  # Windows: only the time is limited
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
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + TRIAL_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
