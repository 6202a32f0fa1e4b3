"""Work for a process apart: an order in as one line of JSON, lines out. No llama_cpp.

What may end in llama.cpp's `abort()`, or can be ended only with its process, is not done in ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from paddock.engine.workers.deaths import how_it_ended


@dataclass(frozen=True, slots=True)
class Apart:
    """A process that has its order, and what it says."""

    process: subprocess.Popen[str]
    _log: IO[str]

    @property
    def lines(self) -> IO[str]:
        """What it tells, a line of JSON each."""
        assert self.process.stdout is not None
        return self.process.stdout

    def why_it_ended(self) -> str:
        """Say in words how it ended that told nothing; waits for its end."""
        how = how_it_ended(self.process.wait())
        was = "was " if how.startswith("killed") else ""
        return f"the process {was}{how}{self.last_line()}"

    def last_line(self) -> str:
        """Give the last line that it complained about, in brackets; empty where there is none."""
        return "".join(f" ({line})" for line in self.log_lines()[-1:])

    def log_lines(self) -> list[str]:
        """Return what it has written to standard error."""
        self._log.seek(0)
        return [line.strip() for line in self._log if line.strip()]


@contextmanager
def started(command: Sequence[str], order: Mapping[str, Any]) -> Iterator[Apart]:
    """Start a command with this order; it is gone when this ends."""
    # To a file: nobody reads a pipe while the process works, and a full one would stop it.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            start_new_session=True,  # a Ctrl-C in the terminal is for the one who asked
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it tells by its status why it does not read
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
            yield Apart(process, log)
        finally:
            process.kill()
            process.communicate()
