"""Processes of ours that answer orders by frames; they end when their pipes close.

- `FrameProcess`: answers short orders one after the other, and is started again where it died.
- `ordered_process`: one piece of work that may abort, or that only its end interrupts.
- `take_order`: the order of such a process, within it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from .frames import (
    FrameHead,
    FramePipes,
    FrameTooLarge,
    PipeClosed,
    pack_frame,
    read_frame,
    send_frame,
    take_pipes,
)
from .process_guard import GRACE_S
from .processes import exit_status_text, set_priority, signal_group, start_with_pipes

LOWEST_PRIORITY = 19
MOST_PROCESSES = 3
"""Of a `FrameProcess`: one that orders share, others that compute or end."""
_POLL_S = 0.1
_ORDER_POLL_S = 0.2  # the progress of an order is reported as often
_PATIENCE_S = 60.0
"""With its start, and with the end of a killed one; then that is left to the system."""


class NoAnswer(Exception):
    """A process did not answer in time, or the system killed it."""

    def __init__(self, processor_s: float = 0.0) -> None:
        super().__init__()
        self.processor_s = processor_s
        """What it took for its order: with little, others use the machine."""


class FrameProcess:
    """A process that answers orders one at a time, started where there is none.

    What takes longer than brief goes on in a process that it no longer shares, at the lowest
    priority, and nothing waits for the end of a killed one: the next order has another at once.
    """

    def __init__(
        self, command: Sequence[str], first: FrameHead | None = None, nice: int = 0
    ) -> None:
        """`first` is an order that is answered at once: until then the process starts.

        `nice` is its priority after that.
        """
        self._command, self._first, self._nice = command, first, nice
        self._turn = threading.Lock()
        self._shared: _Answering | None = None
        self._all = set[_Answering]()  # that have not ended
        self._starts_s, self._start_began = 0.0, math.inf

    @property
    def is_running(self) -> bool:
        return self._shared is not None and self._shared.process.poll() is None

    def clock_s(self) -> float:
        """Return a time that stands still while the process starts."""
        return min(time.monotonic(), self._start_began) - self._starts_s

    def ask(
        self, order: Mapping[str, Any], within_s: float, brief_s: float = math.inf
    ) -> FrameHead | None:
        """Return its answer; None: it ended by its order, as at its own limit of processor time.

        1. The order waits for its turn, and for a process that has started.
        2. It has its turn while its answer may be brief.
        3. Then the process goes on with it alone, and the next order has another one.

        Raises:
            NoAnswer: not within `within_s`, with the orders before it; or the system killed it, or
                it does not start.
        """
        frame, ends_s = pack_frame(dict(order)), self.clock_s() + within_s
        with self._turn_by(ends_s):  # 1
            mine = self._running(ends_s)
            began_at, used_s = time.monotonic(), processor_s(mine.process.pid)
            ends_at = began_at + ends_s - self.clock_s()
            try:
                answer = mine.answer_by(min(ends_at, began_at + brief_s), frame)  # 2
            except TimeoutError:
                self._shared = None
                if time.monotonic() < ends_at and len(self._all) < MOST_PROCESSES:
                    with contextlib.suppress(OSError):  # no room: the next order starts it
                        self._spawn()
            except BaseException:
                self._end(mine)
                raise
            else:
                if answer is None:
                    self._end(mine)
                return answer
        try:
            if time.monotonic() < ends_at:  # else its end would be as slow
                set_priority(mine.process.pid, LOWEST_PRIORITY)
            return mine.answer_by(ends_at)  # 3
        except TimeoutError:
            raise NoAnswer(processor_s(mine.process.pid) - used_s) from None
        finally:
            self._end(mine)

    @contextlib.contextmanager
    def _turn_by(self, ends_s: float) -> Iterator[None]:
        while not self._turn.acquire(timeout=_POLL_S):
            self._check_time(ends_s)
        try:
            yield
        finally:
            self._turn.release()

    def _check_time(self, ends_s: float) -> None:
        if self.clock_s() > ends_s:
            raise NoAnswer

    def _running(self, ends_s: float) -> _Answering:
        """Return a process that has started; only for the one that has the turn."""
        if self._shared is not None and not self.is_running:
            self._end(self._shared)  # it was killed between two answers
        while self._shared is None and len(self._all) >= MOST_PROCESSES:
            time.sleep(_POLL_S)
            self._check_time(ends_s)
        self._start_began = time.monotonic()
        try:
            mine = self._shared or self._spawn()
            if self._first is not None and not mine.is_started:
                check = partial(_raise_after, self._start_began + _PATIENCE_S)
                mine.pipes.ask(pack_frame(self._first), check)
            if not mine.is_started and self._nice:
                # The start is ours: it took 1.0 s beside twelve busy processes, at 5 it took 2.9 s.
                with contextlib.suppress(AttributeError):  # Windows
                    set_priority(mine.process.pid, max(self._nice, os.nice(0)))
            mine.is_started = True
        except (PipeClosed, ValueError, OSError):  # or there is no room for one
            if self._shared is not None:
                self._end(self._shared)
            raise NoAnswer from None
        finally:
            self._starts_s += time.monotonic() - self._start_began
            self._start_began = math.inf
        return mine

    def _spawn(self) -> _Answering:
        self._shared = _Answering(self._command, subprocess.DEVNULL)
        self._all.add(self._shared)
        return self._shared

    def close(self) -> None:
        for answering in tuple(self._all):
            answering.kill()
        with self._turn:
            if self._shared is not None:
                self._reap(self._shared)

    def _end(self, answering: _Answering) -> None:
        """Kill a process; a thread waits for its end."""
        if answering is self._shared:
            self._shared = None
        answering.kill()
        try:
            threading.Thread(target=self._reap, args=(answering,), daemon=True).start()
        except RuntimeError:  # there is no room for a thread
            self._reap(answering)

    def _reap(self, answering: _Answering) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            answering.end(_PATIENCE_S)
        self._all.discard(answering)


def processor_s(pid: int) -> float:
    """Return how long a process has computed; 0 where that is not known."""
    with contextlib.suppress(OSError, ValueError):  # it is gone, or this is not Linux
        facts = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _raise_after(end_s: float) -> None:
    if time.monotonic() > end_s:
        raise TimeoutError


class _Answering:
    """A process that answers frames."""

    def __init__(self, command: Sequence[str], stderr: int | IO[str]) -> None:
        self.process = start_with_pipes(command, stderr)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.pipes = FramePipes(self.process.stdin.fileno(), self.process.stdout.fileno())
        self.is_started = False

    def answer_by(self, end_s: float, order: bytes = b"") -> FrameHead | None:
        """Return the answer to an order, or to the last one; None: it ended, or sends no frames.

        Raises:
            TimeoutError: not by then; it may be asked for again.
            NoAnswer: the system killed it.
        """
        try:
            return self.pipes.ask(order, partial(_raise_after, end_s))[0]
        except (FrameTooLarge, ValueError):
            return None
        except PipeClosed:
            set_priority(self.process.pid, 0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.process.wait(GRACE_S) == -signal.SIGKILL:
                    raise NoAnswer from None
            return None

    def kill(self) -> None:
        if self.process.returncode is None:  # its number is still its own
            # At the lowest priority it lived for 6.5 s beside eight busy processes, so for 0.1 s.
            set_priority(self.process.pid, 0)
            signal_group(self.process.pid, signal.SIGKILL)

    def end(self, within_s: float | None = None) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(within_s)


class OrderedProcess:
    """A subprocess that carries out one order and answers by frames. Used by one thread."""

    def __init__(self, command: Sequence[str], order: FrameHead, log: IO[str]) -> None:
        self._log = log
        self._unsent = pack_frame(order, errors="surrogatepass")
        self._answering = _Answering(command, log)
        self.process, self.end = self._answering.process, self._answering.end

    def next_answer(self, check: Callable[[], None] = lambda: None) -> FrameHead | None:
        """Wait for its next answer; None: it ended, or sends no frames.

        `check` is called several times a second, and raises to give up.
        """
        sent = self._unsent
        self._unsent = b""
        try:
            return self._answering.pipes.ask(sent, check, poll_s=_ORDER_POLL_S)[0]
        except (PipeClosed, ValueError):
            return None

    def exit_status(self) -> int:
        """Return how it ended; one that still runs without a pipe is killed."""
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:  # it waits for a disk
            return -signal.SIGKILL

    def exit_reason(self) -> str:
        status = self.exit_status()
        was = "was " if status < 0 else ""
        return f"the process {was}{exit_status_text(status)}{self.last_line()}"

    def last_line(self) -> str:
        """Return the last line of standard error in brackets, or ""."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return f" ({lines[-1]})" if lines else ""


@contextlib.contextmanager
def ordered_process(command: Sequence[str], order: FrameHead) -> Iterator[OrderedProcess]:
    """Run a command with this order, which it takes by `take_order`; kill it at the context's end.

    For work that may abort, or that only the end of the process interrupts.
    """
    # To a file: no one reads a pipe while the process works, and a full one would block it.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        ordered = OrderedProcess(command, order, log)
        try:
            yield ordered
        finally:
            ordered.end()


def take_order() -> tuple[FrameHead, Callable[[FrameHead], None]]:
    """Return the order of the `ordered_process` that this process is, and what sends an answer.

    What else is printed goes to standard error. The process ends when its input is closed: the
    caller is gone.
    """
    requests, answers = take_pipes()
    order, _ = read_frame(requests)

    def end_with_caller() -> None:
        requests.read()
        os._exit(1)

    threading.Thread(target=end_with_caller, daemon=True).start()
    return order, lambda head: send_frame(answers, pack_frame(head, errors="surrogatepass"))
