"""How many threads compute while other programs want the processor too. Pure: time is an argument.

llama.cpp's threads meet at a barrier some hundred times a token. When one of them is not running
because another program has its core, all others wait for it, spinning: with two threads on two
cores beside one busy program, decoding fell from 126 tokens a second to 3; with one thread it
stays at 40. So the share of processor time that the threads really get is watched. Threads are
let go where some of them do not run and steps take longer than they would with those that do: a
program that uses a fifth of the processor slows steps by a fifth, and half of the threads would
slow them by half.
"""

from __future__ import annotations

# Long enough for a fair reading, short enough that a stall is soon over.
WINDOW_S = 0.2
# Alone on the machine the share is 0.95 and more; one rival on one of two cores makes it 0.75.
ENOUGH_SHARE = 0.85
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 32.0


class ThreadGovernor:
    """Compares steps with those of fewer threads, and chooses the number of threads."""

    def __init__(self, n_most: int) -> None:
        self.n_threads = n_most
        self._n_most = n_most
        self._wall_s = 0.0
        self._cpu_s = 0.0
        self._steps: dict[int, tuple[int, float]] = {}
        """Steps of this window and their seconds, by size."""
        self._undisturbed_s: dict[tuple[int, int], float] = {}
        """Seconds of a step with so many threads, of such a size, while all threads ran."""
        self._pause_s = FIRST_PAUSE_S
        self._until_probe_s = 0.0

    def observe(self, wall_s: float, cpu_s: float, n_tokens: int = 1) -> int:
        """Note one decode's wall-clock and processor seconds; return the number of threads.

        >>> governor = ThreadGovernor(4)
        >>> governor.observe(1.0, 3.9), governor.observe(3.0, 6.2), governor.observe(1.9, 3.8)
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
        if self._wall_s >= WINDOW_S:
            self._judge(self._cpu_s / self._wall_s)
            self._wall_s = self._cpu_s = 0.0
            self._steps.clear()
        return self.n_threads

    def _judge(self, n_running: float) -> None:
        """Choose the number of threads after a window in which so many ran."""
        if n_running >= ENOUGH_SHARE * self.n_threads:
            self._learn()
            if self.n_threads == self._n_most:
                self._pause_s = FIRST_PAUSE_S
        else:
            n_fewer = max(1, min(self.n_threads - 1, int(n_running)))
            if n_fewer < self.n_threads and self._would_be_quicker_with(n_fewer):
                # All of them are tried again after a growing pause.
                self.n_threads = n_fewer
                self._until_probe_s = self._pause_s
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
                return
        if self.n_threads < self._n_most and self._until_probe_s <= 0:
            self.n_threads = self._n_most

    def _learn(self) -> None:
        for size, (n_steps, steps_s) in self._steps.items():
            self._undisturbed_s[self.n_threads, size] = steps_s / n_steps

    def _would_be_quicker_with(self, n_fewer: int) -> bool:
        """Return whether the window's steps took longer than they would with fewer threads.

        What was not seen with fewer is taken in proportion; what was never seen undisturbed, as
        slow.
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
