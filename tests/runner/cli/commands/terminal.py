"""A terminal for tests: a process that believes that a person sits before it."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.runner.cli.commands.shell import PADDOCK
from tests.waiting import PATIENCE_S

# The new process makes the terminal its own, so that Ctrl-C reaches it as it does a person's.
_OWN = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
CTRL_C, CTRL_D = "\x03", "\x04"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\x01\x02\x07\r]")


class Terminal:
    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.text = ""
        self._seen = 0

    def type(self, text: str) -> None:
        """Type as a person does; a line needs its end."""
        os.write(self._master, text.encode())

    def wait_for(self, words: str, timeout_s: float = PATIENCE_S) -> str:
        """Read until these words come; gives what was read up to them."""
        ends = time.monotonic() + timeout_s
        while words not in self.text[self._seen :]:
            left = ends - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{words!r} did not come; the screen:\n{self.text}")
        at = self.text.index(words, self._seen) + len(words)
        found, self._seen = self.text[self._seen : at], at
        return found

    def close(self) -> None:
        """Close the window: who sits before it is gone."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def rest(self) -> None:
        """Wait until it sleeps, with no child at work: Python misses signals just before it reads.

        A process that a busy machine does not let run is seen as running, or stopped.
        """
        ends = time.monotonic() + PATIENCE_S
        process = psutil.Process(self.process.pid)
        still_since, before = time.monotonic(), None
        while time.monotonic() - still_since < 0.5:
            assert time.monotonic() < ends, f"it does not come to rest; the screen:\n{self.text}"
            now = (process.num_ctx_switches(), process.status(), process.children())
            if now != before or now[1:] != (psutil.STATUS_SLEEPING, []):
                still_since, before = time.monotonic(), now
            time.sleep(0.05)

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end; gives the exit status."""
        ends = time.monotonic() + timeout_s
        while self._read(max(0.0, ends - time.monotonic())):
            pass
        return self.process.wait(max(0.1, ends - time.monotonic()))

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += _CONTROL.sub("", piece.decode("utf-8", "replace"))
        return bool(piece)


@contextmanager
def terminal(
    *arguments: str, environ: Mapping[str, str], cwd: Path, program: str = PADDOCK
) -> Iterator[Terminal]:
    """Run `paddock`, or another program, with these arguments at a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _OWN, program, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", **environ},
        start_new_session=True,
    )
    os.close(slave)
    screen = Terminal(process, master)
    try:
        yield screen
    finally:
        _kill_session(process.pid)
        process.wait()
        screen.close()


def _kill_session(session: int) -> None:
    """Kill a shell and all that it started: its jobs are in groups of their own."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
