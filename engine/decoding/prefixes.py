"""Who owns which cells of the KV cache, and who shares a beginning with whom. Pure.

In a unified cache llama.cpp lets one cell belong to several sequences (`llama_memory_seq_cp`), and
frees it when the last of them lets go. In a split one every sequence has a stream of its own, and
a beginning is copied. This module keeps the same books, so that room is known before a decode.
A radix tree is not needed to find the longest shared beginning: at most some hundreds of
sequences are resident, and comparing two arrays of 4,000 tokens takes 3 µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paddock.engine.arrays import Tokens


@dataclass(slots=True, eq=False)
class _Run:
    """Neighbouring cells that belong to the same sequences."""

    n_cells: int
    holders: set[int]


@dataclass(slots=True, eq=False)
class _Resident:
    """The tokens of one `seq_id` that have cells, and the runs that hold them, in order."""

    tokens: Tokens
    n_tokens: int = 0
    runs: list[_Run] = field(default_factory=list)

    @property
    def computed(self) -> Tokens:
        return self.tokens[: self.n_tokens]


def shared_beginning(one: Tokens, other: Tokens) -> int:
    """Count the tokens at the start that are the same.

    >>> shared_beginning(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    n = min(len(one), len(other))
    differing = np.flatnonzero(one[:n] != other[:n])
    return int(differing[0]) if len(differing) else n


def longest_beginning(prompt: Tokens, others: Mapping[int, Tokens]) -> tuple[int, int]:
    """Return the key of the tokens with the longest shared beginning, and its length, or (-1, 0).

    >>> longest_beginning(np.array([1, 2, 3]), {4: np.array([1, 5]), 6: np.array([1, 2])})
    (6, 2)
    """
    key, n_most = -1, 0
    for one, tokens in others.items():
        # Most differ from the prompt before this token: one comparison instead of thousands.
        if n_most < min(len(tokens), len(prompt)) and tokens[n_most] == prompt[n_most]:
            n = shared_beginning(prompt, tokens)
            if n > n_most:
                key, n_most = one, n
    return key, n_most


class PrefixCache:
    """The books of one context's cells. Not thread-safe: the owner thread keeps them."""

    def __init__(self, n_cells: int, n_cells_each: int | None = None) -> None:
        """Begin with an empty cache.

        Args:
            n_cells: cells of the whole cache.
            n_cells_each: of a split cache: cells of each sequence's stream.
        """
        self.n_cells = n_cells
        self.n_used = 0
        self._n_cells_each = n_cells_each
        self._residents: dict[int, _Resident] = {}

    @property
    def is_unified(self) -> bool:
        """Whether sequences can share cells."""
        return self._n_cells_each is None

    @property
    def n_shared(self) -> int:
        """Cells that several sequences hold, counted once for each holder but the first."""
        return sum(one.n_tokens for one in self._residents.values()) - self.n_used

    def n_free_for(self, seq_id: int) -> int:
        """Cells that this sequence could still take."""
        if self._n_cells_each is None:
            return self.n_free
        resident = self._residents.get(seq_id)
        return self._n_cells_each - (resident.n_tokens if resident else 0)

    def n_tokens(self, seq_id: int) -> int:
        """Tokens of a sequence that have cells."""
        resident = self._residents.get(seq_id)
        return resident.n_tokens if resident else 0

    @property
    def n_free(self) -> int:
        """Cells that nobody holds."""
        return self.n_cells - self.n_used

    def __contains__(self, seq_id: int) -> bool:
        """Tell whether this sequence has an entry."""
        return seq_id in self._residents

    def computed(self, seq_id: int) -> Tokens:
        """Give the tokens of a resident sequence that have cells."""
        return self._residents[seq_id].computed

    def best(self, prompt: Tokens) -> tuple[int, int]:
        """Find the resident with the longest shared beginning: `(seq_id, n_tokens)`, or (-1, 0)."""
        computed = {seq_id: resident.computed for seq_id, resident in self._residents.items()}
        return longest_beginning(prompt, computed)

    def n_own(self, seq_id: int) -> int:
        """Count the cells that would be free if this sequence left."""
        return sum(r.n_cells for r in self._residents[seq_id].runs if r.holders == {seq_id})

    def share(self, source: int, target: int, n_tokens: int) -> None:
        """Give `target`, which must be new, the first `n_tokens` of `source`.

        In a unified cache both hold the same cells; in a split one `target` gets its own.
        """
        if target in self._residents:
            raise ValueError(f"sequence {target} is resident already")
        donor = self._residents[source]
        if not 0 < n_tokens <= donor.n_tokens:
            raise ValueError(f"sequence {source} has no {n_tokens} tokens to share")
        if not self.is_unified:
            self.extend(target, donor.computed[:n_tokens])
            return
        self._cut(donor, n_tokens)
        taken, n_seen = [], 0
        for run in donor.runs:
            if n_seen == n_tokens:
                break
            run.holders.add(target)
            taken.append(run)
            n_seen += run.n_cells
        self._residents[target] = _Resident(
            donor.tokens[:n_tokens].copy(), n_tokens=n_tokens, runs=taken
        )

    def extend(self, seq_id: int, tokens: Tokens) -> None:
        """Add computed tokens at the end of a sequence; a new one begins.

        Raises:
            ValueError: there are not so many free cells.
        """
        n = len(tokens)
        if n > self.n_free_for(seq_id):
            raise ValueError(f"{n} cells wanted, {self.n_free_for(seq_id)} are free")
        resident = self._residents.get(seq_id)
        if resident is None:
            resident = self._residents[seq_id] = _Resident(np.empty(0, np.int32))
        if resident.n_tokens + n > len(resident.tokens):
            grown = np.empty(max(256, 2 * (resident.n_tokens + n)), np.int32)
            grown[: resident.n_tokens] = resident.computed
            resident.tokens = grown
        resident.tokens[resident.n_tokens : resident.n_tokens + n] = tokens
        resident.n_tokens += n
        self.n_used += n
        if resident.runs and len(resident.runs[-1].holders) == 1:  # its own
            resident.runs[-1].n_cells += n
        else:
            resident.runs.append(_Run(n, {seq_id}))

    def trim(self, seq_id: int, n_keep: int) -> None:
        """Let go of all but the first `n_keep` tokens; 0 ends the sequence's entry."""
        resident = self._residents[seq_id]
        if n_keep < resident.n_tokens:
            self._cut(resident, n_keep)
            kept, n_seen = [], 0
            for run in resident.runs:
                if n_seen < n_keep:
                    kept.append(run)
                    n_seen += run.n_cells
                else:
                    self._let_go(run, seq_id)
            resident.runs, resident.n_tokens = kept, n_keep
        if n_keep == 0:
            del self._residents[seq_id]

    def _let_go(self, run: _Run, seq_id: int) -> None:
        run.holders.discard(seq_id)
        if not run.holders:
            self.n_used -= run.n_cells

    def _cut(self, resident: _Resident, n_tokens: int) -> None:
        """Make a border between runs after `n_tokens`, for every holder of the run it falls in."""
        n_seen = 0
        for run in resident.runs:
            if n_seen < n_tokens < n_seen + run.n_cells:
                rest = _Run(n_seen + run.n_cells - n_tokens, set(run.holders))
                run.n_cells = n_tokens - n_seen
                for holder in rest.holders:
                    runs = self._residents[holder].runs
                    runs.insert(runs.index(run) + 1, rest)
                return
            n_seen += run.n_cells
