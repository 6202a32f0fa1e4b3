"""Host cache: prefixes that are kept in main memory. Pure.

A finished conversation will likely be continued, but its idle cells slow all others: attention in a
unified cache runs up to the highest used cell (5 to 20 % with two idle documents, 2 cores). Copying
700 tokens of a 135M model takes some milliseconds, computing them again two seconds. Only keys,
tokens and order are here; `kv_cache` holds the bytes.
"""

from __future__ import annotations

from collections import OrderedDict

from paddock.engine.arrays import Tokens

from .prefix_cache import longest_shared_prefix, shared_prefix_length
from .scheduler_data import CellMarks


class HostCache:
    """Saved prefixes of at most `n_most_tokens` tokens together; least recently used goes first."""

    def __init__(self, n_most_tokens: int) -> None:
        self.n_most_tokens = n_most_tokens
        self.n_tokens = 0
        self._entries: OrderedDict[int, Tokens] = OrderedDict()
        self._marks: dict[int, CellMarks] = {}
        self._jobs: set[int] = set()
        self._n_keys = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def keys(self) -> tuple[int, ...]:
        """All keys, the least recently used first."""
        return tuple(self._entries)

    def put(
        self, tokens: Tokens, marks: CellMarks = (), *, is_job: bool = False, spare: int = -1
    ) -> tuple[int | None, tuple[int, ...]]:
        """Add an entry; return its key, or None if there is no room for it, and the evicted keys.

        Jobs' entries are evicted before those of conversations, and never evict one. `spare` is
        never evicted.
        """
        gone = [
            key
            for key, entry in self._entries.items()
            if key != spare and shared_prefix_length(tokens, entry) == len(entry)
        ]
        others = [key for key in self._entries if key not in gone]
        n_kept = sum(len(self._entries[key]) for key in others)
        may_go = (key for key in others if key != spare and (key in self._jobs or not is_job))
        for key in sorted(may_go, key=lambda key: key not in self._jobs):
            if n_kept + len(tokens) <= self.n_most_tokens:
                break
            n_kept -= len(self._entries[key])
            gone.append(key)
        if n_kept + len(tokens) > self.n_most_tokens:
            return None, ()
        for key in gone:
            self._forget(key)
        self._n_keys += 1
        self._entries[self._n_keys] = tokens.copy()
        self._marks[self._n_keys] = marks
        self.n_tokens += len(tokens)
        if is_job:
            self._jobs.add(self._n_keys)
        return self._n_keys, tuple(gone)

    def limit(self, n_most_tokens: int) -> tuple[int, ...]:
        """Set the limit; return the evicted keys."""
        self.n_most_tokens = n_most_tokens
        gone = []
        while self.n_tokens > n_most_tokens:
            gone.append(next(iter(self._entries)))
            self._forget(gone[-1])
        return tuple(gone)

    def clear(self) -> None:
        self._entries.clear()
        self._marks.clear()
        self._jobs.clear()
        self.n_tokens = 0

    def best(self, prompt: Tokens) -> tuple[int, int]:
        return longest_shared_prefix(prompt, self._entries)

    def tokens(self, key: int) -> Tokens:
        return self._entries[key]

    def marks(self, key: int) -> CellMarks:
        return self._marks[key]

    def touch(self, key: int) -> None:
        self._entries.move_to_end(key)

    def _forget(self, key: int) -> None:
        self.n_tokens -= len(self._entries.pop(key))
        self._jobs.discard(key)
        del self._marks[key]
