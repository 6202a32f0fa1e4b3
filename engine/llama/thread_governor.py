"""Fewer threads while other programs use the processor.

llama.cpp's threads meet at a barrier some hundred times a token, and all spin while one is not
running. With two threads on two cores and one other busy program, decoding fell from 126 tokens a
second to 3; with one thread it stays at 40.
"""

from __future__ import annotations

import time

from paddock.engine.system.retry import Backoff, Pauses

# Long enough for a fair measurement, short enough that a stall is soon over.
GOVERNOR_WINDOW_S = 0.2
# Alone on the machine the share is above 0.95; another program on one of two cores makes it 0.75.
ENOUGH_CPU_SHARE = 0.85
# Below it, even pieces of prompts are quicker with fewer threads: beside 17 busy programs one of 71
# tokens took 10 s with two threads and 1.5 to 1.9 s with one.
CROWDED_CPU_SHARE = 0.65
# Most stalls are over at once: a longer first pause cost more than they did. With 0.8 s, requests
# that took 0.1 s of a processor each second held up the chats of two cores by half. A trial that
# fails may take ten seconds, so the pause after it is so many times what it took too long.
PROBE_BACKOFF = Backoff(first_s=0.2, longest_s=32.0)
PAUSE_TRIALS = 4


class ThreadGovernor:
    """Choose the number of threads by measured steps."""

    def __init__(self, n_most: int) -> None:
        self.n_threads = n_most
        self._n_most = n_most
        self._wall_s = 0.0
        self._cpu_s = 0.0
        self._steps: dict[int, tuple[int, float]] = {}
        """Steps of this window and their seconds, by size."""
        self._undisturbed_s: dict[tuple[int, int], float] = {}
        """Seconds of an undisturbed step, by number of threads and size."""
        self._pauses = Pauses(PROBE_BACKOFF)
        self._until_probe_s = 0.0
        self._n_left = n_most
        self._crowded_until = 0.0

    @property
    def n_left(self) -> int:
        """Threads that others left when they took much of the processor, until the next trial.

        Longer steps heed it too: they would lose seconds to find out.
        """
        return self._n_left if time.monotonic() < self._crowded_until else self._n_most

    def observe(self, wall_s: float, cpu_s: float, n_tokens: int = 1) -> int:
        """Note one decode's wall-clock and processor seconds; return the number of threads.

        >>> governor = ThreadGovernor(4)
        >>> governor.observe(1.0, 3.9), governor.observe(3.0, 6.2), governor.observe(2.7, 5.4)
        (4, 2, 2)
        >>> governor.observe(0.2, 0.4), governor.observe(0.5, 2.0)
        (4, 4)
        """
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        size = n_tokens.bit_length()
        n_steps, steps_s = self._steps.get(size, (0, 0.0))
        self._steps[size] = (n_steps + 1, steps_s + wall_s)
        self._until_probe_s -= wall_s
        if self._wall_s >= GOVERNOR_WINDOW_S:
            is_over = cpu_s >= ENOUGH_CPU_SHARE * self.n_threads * wall_s
            self._judge(self._cpu_s / self._wall_s, is_over=is_over)
            self._wall_s = self._cpu_s = 0.0
            self._steps.clear()
        return self.n_threads

    def _judge(self, n_running: float, *, is_over: bool) -> None:
        """`is_over`: nothing disturbed the last step."""
        if n_running >= ENOUGH_CPU_SHARE * self.n_threads:
            for size, (n_steps, steps_s) in self._steps.items():
                self._undisturbed_s[self.n_threads, size] = steps_s / n_steps
            if self.n_threads == self._n_most:
                self._pauses.succeeded()
                self._crowded_until = 0.0
        elif not is_over:
            n_fewer = max(1, min(self.n_threads - 1, int(n_running)))
            if n_fewer < self.n_threads and self._would_be_quicker_with(n_fewer):
                # All of them are tried again after a growing pause.
                pause_s = self._pauses.failed()
                n_trials = PAUSE_TRIALS if pause_s > PROBE_BACKOFF.first_s else 1
                too_long_s = self._wall_s - GOVERNOR_WINDOW_S
                self._until_probe_s = max(pause_s, n_trials * too_long_s)
                if n_running < CROWDED_CPU_SHARE * self.n_threads:
                    self._n_left = n_fewer
                    self._crowded_until = time.monotonic() + self._until_probe_s
                self.n_threads = n_fewer
                return
        if self.n_threads < self._n_most and self._until_probe_s <= 0:
            self.n_threads = self._n_most

    def _would_be_quicker_with(self, n_fewer: int) -> bool:
        """Return whether the window's steps took longer than they would with fewer threads.

        Steps not measured with fewer are estimated in proportion; those never measured undisturbed
        count as slow.
        """
        expected_s = actual_s = 0.0
        for size, (n_steps, steps_s) in self._steps.items():
            each_s = self._undisturbed_s.get((n_fewer, size))
            if each_s is None and (self.n_threads, size) in self._undisturbed_s:
                each_s = self._undisturbed_s[self.n_threads, size] * self.n_threads / n_fewer
            if each_s is not None:
                expected_s += n_steps * each_s
                actual_s += steps_s
        return actual_s > expected_s or not expected_s
