"""Try constraints in a process of its own, before a worker compiles them.

llguidance expands some small schemas without end, and ends its process on others (a stack
overflow in Rust). A client may send any. So each new constraint is compiled here first, over the
vocabulary of bytes, within bounds of size, processor time and memory; a process that exceeds them
is ended, and the next constraint gets a new one. What passed costs the worker about as much again.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import BadRequest

if TYPE_CHECKING:
    from paddock.engine.request import Constraint

MOST_CHARACTERS = 512 * 1024
"""Of a schema or grammar; the largest of real ones have some 50,000."""
MOST_PATTERN_CHARACTERS = 32 * 1024
CPU_S = 3
"""Of one trial: 5,000 optional properties take 2.1 s, a schema of a job 1 ms."""
WALL_S = 60.0
"""The same on a machine that has no processor free."""
MEMORY_BYTES = 512 * 1024 * 1024
"""More than what the process has at its start."""
COMMAND = (sys.executable, "-m", "paddock.engine.sampling.trial_process")

_NAMES = {
    "json": "JSON",
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
}


def name_of(constraint: Constraint) -> str:
    """Return what a message calls a constraint."""
    return _NAMES[constraint.kind]


class Trials:
    """Tries constraints, one after the other. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, constraint: Constraint) -> None:
        """Refuse what an answer cannot be held to, or what costs too much to compile.

        Raises:
            BadRequest: in plain words.
        """
        is_pattern = constraint.kind == "regex"
        most = MOST_PATTERN_CHARACTERS if is_pattern else MOST_CHARACTERS
        n_characters = len(constraint.source)
        if n_characters > most:
            raise BadRequest(
                f"{name_of(constraint)} has {n_characters:,} characters, and {most:,} are the most"
            )
        with self._lock:
            why = self._answer({"kind": constraint.kind, "source": constraint.source})
        if why is None:
            raise BadRequest(
                f"{name_of(constraint)} is too complex: it cannot be compiled within {CPU_S} s and "
                f"{MEMORY_BYTES // 2**20} MiB. Use fewer options, `$ref`s or repetitions"
            )
        if why:
            raise BadRequest(why)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _answer(self, asked: dict[str, Any]) -> str | None:
        """Return why a constraint is refused, empty where it is not; None: the process ended."""
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it was killed between two trials
        if self._process is None:
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            is_there, _, _ = select.select([process.stdout], [], [], WALL_S)
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
