"""A process that computes what others wrote: schemas, grammars, chat templates.

Its memory and time are limited, and its priority is low, the lowest for all that is not brief. What
it cannot compute ends it alone.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .errors import BadRequest, TrialTimeout
from .system.frame_processes import FrameProcess, NoAnswer
from .system.frames import FrameHead, answer_frames, pack_frame, take_pipes
from .system.processes import python_command

if sys.platform != "win32":
    import resource

TRIAL_CPU_S = 3
"""For one answer: 5,000 optional properties take 2.1 s, a usual schema 1 ms, a template 15 ms."""
TRIAL_WALL_S = 3.5  # with what surrounds it, an answer comes within 5 s
BRIEF_S = 0.5
"""What takes longer goes on at the lowest priority. At that, 15 ms took 5 s on a busy machine."""
LOW_PRIORITY = 5  # a third of a turn beside one that serves; at 10 a template took over 4 s once
TRIAL_MEMORY_BYTES = 512 * 1024 * 1024
"""Beyond what the process has at its start."""


class TrialProcess:
    """The process of a module that calls `answer_trials`; it starts at first use."""

    def __init__(self, module: str) -> None:
        self._process = FrameProcess(python_command("-m", module), {}, LOW_PRIORITY)
        self.clock_s = self._process.clock_s

    def ask(
        self, order: FrameHead, name: str, remedy: str, within_s: float | None = None
    ) -> FrameHead:
        """Return its answer; `name` and `remedy` are for the sentence of an error.

        Raises:
            BadRequest: it costs too much.
            TrialTimeout: that is not known.
        """
        within_s = TRIAL_WALL_S if within_s is None else within_s
        try:
            answer = self._process.ask(order, max(within_s, 0.1), BRIEF_S)
        except NoAnswer as late:
            raise TrialTimeout(name, within_s, remedy, late.processor_s) from None
        if answer is not None:
            return answer
        raise BadRequest(
            f"{name} is too complex: it cannot be computed within {TRIAL_CPU_S} s and "
            f"{TRIAL_MEMORY_BYTES // 2**20} MiB. {remedy}"
        )

    def close(self) -> None:
        self._process.close()

    def __del__(self) -> None:
        self.close()


def answer_trials(answer: Callable[[FrameHead], FrameHead]) -> None:
    """Answer orders within limits until the pipe closes; an empty order is answered at once."""
    requests, answers = take_pipes()
    with suppress(OSError, NameError):  # not Linux
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])  # of its libraries
        limit = pages * resource.getpagesize() + TRIAL_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def answered(order: FrameHead) -> bytes:
        with suppress(AttributeError):  # Windows
            signal.setitimer(signal.ITIMER_PROF, TRIAL_CPU_S)  # whose signal ends the process
        return pack_frame(answer(order) if order else {})

    answer_frames(requests, answers, answered)
