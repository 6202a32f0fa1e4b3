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

from .prefixes import shared_beginning


class Shelf:
    """At most `n_most_tokens` tokens in entries, the least recently used one goes first."""

    def __init__(self, n_most_tokens: int) -> None:
        self.n_most_tokens = n_most_tokens
        self.n_tokens = 0
        self._entries: OrderedDict[int, Tokens] = OrderedDict()
        self._n_keys = 0

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)

    @property
    def keys(self) -> tuple[int, ...]:
        """What is kept, the least recently used first."""
        return tuple(self._entries)

    def put(self, tokens: Tokens) -> tuple[int | None, tuple[int, ...]]:
        """Take an entry in; gives its key, or None if it is too large, and the keys that went."""
        if len(tokens) > self.n_most_tokens:
            return None, ()
        gone = [key for key, one in self._entries.items() if _contains(tokens, one)]
        for key in gone:
            self._forget(key)
        while self.n_tokens + len(tokens) > self.n_most_tokens:
            oldest = next(iter(self._entries))
            self._forget(oldest)
            gone.append(oldest)
        self._n_keys += 1
        self._entries[self._n_keys] = tokens.copy()
        self.n_tokens += len(tokens)
        return self._n_keys, tuple(gone)

    def best(self, prompt: Tokens) -> tuple[int, int]:
        """Find the entry with the longest shared beginning: `(key, n_tokens)`, or (-1, 0)."""
        best = (-1, 0)
        for key, tokens in self._entries.items():
            n = shared_beginning(prompt, tokens)
            if n > best[1]:
                best = (key, n)
        return best

    def tokens(self, key: int) -> Tokens:
        """Give an entry's tokens."""
        return self._entries[key]

    def touch(self, key: int) -> None:
        """Note that an entry was used."""
        self._entries.move_to_end(key)

    def _forget(self, key: int) -> None:
        self.n_tokens -= len(self._entries.pop(key))


def _contains(longer: Tokens, shorter: Tokens) -> bool:
    return shared_beginning(longer, shorter) == len(shorter)
