"""Estimate of how long a step's items take yet, from the first one that ended.

Items run side by side, and their calls wait for a place in the model's batch, so that neither the
time of one item nor the number of those in flight says much. What is counted is work: tokens that
the model has read and written, against those that are still expected. A prompt counts when its
answer begins, an answer as it grows; how much is expected of a call is what its text's length and
the calls that ended say, and of an item that has not begun what its size says.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from paddock.engine.request import Usage
from paddock.engine.system.records import Struct

# A token of an answer takes as long as so many of a prompt: 3 to 6 with 8 sequences in a batch on
# processors (benchmarks/decode.py). It evens out where all items are alike.
ANSWER_WEIGHT = 4.0


class OpenCall(Struct, eq=False):
    n_chars: int
    """Of its prompt."""
    n_tokens: int = 0
    """Of its answer, so far."""
    has_begun: bool = False
    usage: Usage | None = None

    def note_tokens(self, n_tokens: int) -> None:
        self.has_begun = True
        self.n_tokens += n_tokens

    @property
    def work(self) -> float:
        """What it took, once it has ended."""
        if self.usage is None:
            return 0.0
        return _read_tokens(self.usage) + ANSWER_WEIGHT * self.usage.completion_tokens


class _CallSums(Struct):
    n: int = 0
    n_chars: int = 0
    n_read: int = 0
    n_written: int = 0

    def add(self, call: OpenCall, usage: Usage) -> None:
        self.n += 1
        self.n_chars += call.n_chars
        self.n_read += _read_tokens(usage)
        self.n_written += usage.completion_tokens

    @property
    def mean_work(self) -> float:
        return (self.n_read + ANSWER_WEIGHT * self.n_written) / self.n

    def expected(self, call: OpenCall) -> tuple[float, float]:
        """Return the work that is done of an open call, and what is left of it."""
        length = call.n_chars * self.n / self.n_chars if self.n_chars else 1.0
        prompt = length * self.n_read / self.n
        # Between answers that are as long as each other and those that are as long as the prompt.
        usual = math.sqrt(length) * ANSWER_WEIGHT * self.n_written / self.n
        written = min(ANSWER_WEIGHT * call.n_tokens, usual)
        done = written + (prompt if call.has_begun else 0.0)
        return done, prompt + usual - done


class TimeLeft:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._first_call_at: float | None = None
        self._load_s = 0.0
        self._sizes: Mapping[str, float] = {}
        self._n_to_do = 0
        self._n_ended = 0
        self._n_calls_of_ended = 0
        self._work_of_ended = 0.0
        self._size_of_ended = 0.0
        self._size_left = 0.0
        """Of all items that have not ended."""
        self._calls: dict[str, list[OpenCall]] = defaultdict(list)
        """Of each item in flight."""
        self._sums = _CallSums()

    def expect(self, n_to_do: int, sizes: Mapping[str, float]) -> None:
        """Note how many items are to be done; `sizes`, by key, compare them with one another."""
        self._n_to_do, self._sizes = n_to_do, sizes
        self._size_left = float(n_to_do) if not sizes else sum(sizes.values())

    def begin_call(self, key: str, n_chars: int) -> OpenCall:
        if self._first_call_at is None:
            self._first_call_at = self._clock()
        call = OpenCall(n_chars)
        self._calls[key].append(call)
        return call

    def answered(self, call: OpenCall, usage: Usage) -> None:
        call.usage = usage
        self._load_s = max(self._load_s, usage.load_s)
        self._sums.add(call, usage)

    def end(self, key: str) -> None:
        self._n_ended += 1
        size = self._sizes.get(key, 1.0)
        self._size_left -= size
        self._size_of_ended += size
        ended = [call for call in self._calls.pop(key, ()) if call.usage is not None]
        self._n_calls_of_ended += len(ended)
        self._work_of_ended += sum(call.work for call in ended)

    def seconds(self) -> float | None:
        """Return the seconds to go; None before an item has ended, and when all have."""
        n_left = self._n_to_do - self._n_ended
        if not self._n_ended or n_left <= 0:
            return None
        if self._first_call_at is None or not self._sums.n:
            return (self._clock() - self._began) / self._n_ended * n_left
        usual_calls = self._n_calls_of_ended / self._n_ended
        done = self._work_of_ended
        left = 0.0
        size_begun, size_left = self._size_of_ended, self._size_left
        for key, calls in self._calls.items():
            size = self._sizes.get(key, 1.0)
            size_begun, size_left = size_begun + size, size_left - size
            for call in calls:
                if call.usage is not None:
                    done += call.work
                    continue
                its_done, its_left = self._sums.expected(call)
                done, left = done + its_done, left + its_left
            left += max(0.0, usual_calls - len(calls)) * self._sums.mean_work
        of_others = (done + left) / size_begun * size_left if size_begun else 0.0
        left += max(0.0, of_others)
        elapsed = self._clock() - self._first_call_at - self._load_s
        return max(0.0, elapsed) * left / done if done else None


def _read_tokens(usage: Usage) -> int:
    return usage.prompt_tokens - usage.prompt_reused_tokens
