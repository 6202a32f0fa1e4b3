"""How many threads compute while others want the processor too. Pure: time is told to it.

llama.cpp's threads meet at a barrier some hundred times a token. When one of them is not running
because another program has its core, all others wait for it, spinning: with two threads on two
cores beside one busy program, decoding fell from 126 tokens a second to 3; with one thread it
stays at 40. So the share of processor time that the threads really get is watched, and threads
that would only be waited for are let go until the others are quiet again.
"""

from __future__ import annotations

# Long enough for a fair reading, short enough that a stall is soon over.
WINDOW_S = 0.2
# Alone on the machine the share is 0.95 and more; one rival on one of two cores makes it 0.75.
ENOUGH_SHARE = 0.85
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 32.0


class ThreadGovernor:
    """Counts what the threads got, and says how many there should be."""

    def __init__(self, n_most: int) -> None:
        self.n_threads = n_most
        self._n_most = n_most
        self._wall_s = 0.0
        self._cpu_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._until_probe_s = 0.0

    def observe(self, wall_s: float, cpu_s: float) -> int:
        """Take in one decode's wall-clock and processor seconds; gives the number of threads.

        >>> governor = ThreadGovernor(4)
        >>> governor.observe(1.0, 3.9), governor.observe(1.0, 2.2), governor.observe(1.9, 3.8)
        (4, 2, 2)
        >>> governor.observe(0.2, 0.4), governor.observe(0.5, 2.0)
        (4, 4)
        """
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        self._until_probe_s -= wall_s
        if self._wall_s < WINDOW_S:
            return self.n_threads
        n_running = self._cpu_s / self._wall_s
        self._wall_s = self._cpu_s = 0.0
        if n_running < ENOUGH_SHARE * self.n_threads and self.n_threads > 1:
            self._let_go(n_running)
        elif self.n_threads == self._n_most:
            self._pause_s = FIRST_PAUSE_S
        elif self._until_probe_s <= 0:
            self.n_threads = self._n_most
        return self.n_threads

    def _let_go(self, n_running: float) -> None:
        """Keep as many threads as really ran; try all of them again after a growing pause."""
        self.n_threads = max(1, min(self.n_threads - 1, int(n_running)))
        self._until_probe_s = self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
