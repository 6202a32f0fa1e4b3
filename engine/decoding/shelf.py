"""Beginnings that were taken out of the KV cache and are kept in main memory. Pure books.

A finished conversation is likely to be continued, but its idle cells slow all others: attention
in a unified cache runs up to the highest used cell (5 to 20 % with two idle documents, 2 cores).
So it is moved out when others want to run, and back when it is asked for; copying 700 tokens of a
135M model takes some milliseconds, computing them anew two seconds. The bytes themselves are kept
by whoever acts; here stand their keys, tokens and order.
"""

from __future__ import annotations

from collections import OrderedDict

from paddock.engine.arrays import Tokens

from .prefixes import longest_beginning, shared_beginning


class Shelf:
    """At most `n_most_tokens` tokens in entries, the least recently used one goes first."""

    def __init__(self, n_most_tokens: int) -> None:
        self.n_most_tokens = n_most_tokens
        self.n_tokens = 0
        self._entries: OrderedDict[int, Tokens] = OrderedDict()
        self._jobs: set[int] = set()
        self._n_keys = 0

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)

    @property
    def keys(self) -> tuple[int, ...]:
        """What is kept, the least recently used first."""
        return tuple(self._entries)

    def put(self, tokens: Tokens, *, is_job: bool = False) -> tuple[int | None, tuple[int, ...]]:
        """Take an entry in; gives its key, or None if it is too large, and the keys that went.

        Jobs' entries go before those of conversations, and never take the place of one.
        """
        gone = [key for key, one in self._entries.items() if _contains(tokens, one)]
        others = [key for key in self._entries if key not in gone]
        order = [key for key in others if key in self._jobs]
        order += [key for key in others if key not in self._jobs and not is_job]
        n_kept = sum(len(self._entries[key]) for key in others)
        for key in order:
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
        self.n_tokens += len(tokens)
        if is_job:
            self._jobs.add(self._n_keys)
        return self._n_keys, tuple(gone)

    def limit(self, n_most_tokens: int) -> tuple[int, ...]:
        """Hold no more than this from now on; returns the keys of the entries that went."""
        self.n_most_tokens, gone = n_most_tokens, []
        while self.n_tokens > n_most_tokens:
            gone.append(next(iter(self._entries)))
            self._forget(gone[-1])
        return tuple(gone)

    def clear(self) -> None:
        """Forget every entry."""
        self._entries.clear()
        self.n_tokens = 0

    def best(self, prompt: Tokens) -> tuple[int, int]:
        """Find the entry with the longest shared beginning: `(key, n_tokens)`, or (-1, 0)."""
        return longest_beginning(prompt, self._entries)

    def tokens(self, key: int) -> Tokens:
        """Give an entry's tokens."""
        return self._entries[key]

    def touch(self, key: int) -> None:
        """Note that an entry was used."""
        self._entries.move_to_end(key)

    def _forget(self, key: int) -> None:
        self.n_tokens -= len(self._entries.pop(key))
        self._jobs.discard(key)


def _contains(longer: Tokens, shorter: Tokens) -> bool:
    return shared_beginning(longer, shorter) == len(shorter)
