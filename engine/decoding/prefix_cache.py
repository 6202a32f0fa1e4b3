"""Prefix cache: owners of KV cells, and the prefixes that requests share. Pure.

It mirrors llama.cpp's accounting, so that free cells are known before a decode. In a unified cache
one cell belongs to several sequences (`llama_memory_seq_cp`) and is freed when the last of them
leaves; in a split cache every sequence has a stream of its own, and a prefix is copied. No radix
tree is needed: at most some hundreds of sequences are in the cache, and comparing two arrays of
4,000 tokens takes 3 µs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.request import Priority
from paddock.engine.system.records import Struct, field

from .scheduler_data import CellMarks


class _CellRun(Struct, eq=False):
    n_cells: int
    holders: set[int]


class _CachedSequence(Struct, eq=False):
    tokens: Tokens
    n_tokens: int = 0
    runs: list[_CellRun] = field(default_factory=list)
    marks: CellMarks = ()

    @property
    def computed(self) -> Tokens:
        return self.tokens[: self.n_tokens]


def shared_prefix_length(first: Tokens, other: Tokens) -> int:
    """Return the length of the common prefix.

    >>> shared_prefix_length(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    n = min(len(first), len(other))
    differing = np.flatnonzero(first[:n] != other[:n])
    return int(differing[0]) if len(differing) else n


def longest_shared_prefix(prompt: Tokens, others: Mapping[int, Tokens]) -> tuple[int, int]:
    """Return the key and length of the longest prefix shared with `prompt`, or (-1, 0).

    >>> longest_shared_prefix(np.array([1, 2, 3]), {4: np.array([1, 5]), 6: np.array([1, 2])})
    (6, 2)
    """
    key = -1
    n_most = 0
    following = prompt.item(0) if len(prompt) else None
    for other_key, tokens in others.items():
        # Most differ before this token: one comparison instead of thousands.
        if n_most < len(tokens) and tokens.item(n_most) == following:
            n = shared_prefix_length(prompt, tokens)
            if n > n_most:
                key, n_most = other_key, n
                following = prompt.item(n) if n < len(prompt) else None
    return key, n_most


def cell_marks_before(marks: CellMarks, n_tokens: int) -> CellMarks:
    return tuple(mark for mark in marks if mark[0] < n_tokens)


def cell_marks_from(marks: CellMarks, n_tokens: int) -> CellMarks:
    values = [value for place, value in marks if place <= n_tokens][-1:]
    later = tuple(mark for mark in marks if mark[0] > n_tokens)
    return (*((n_tokens, value) for value in values), *later)


class PrefixCache:
    """Accounting of one context's cells. Not thread-safe."""

    def __init__(self, n_cells: int, n_cells_each: int | None = None) -> None:
        """Start empty; `n_cells_each` is the length of each stream of a split cache."""
        self.n_cells = n_cells
        self.n_used = 0
        self._n_cells_each = n_cells_each
        self._residents: dict[int, _CachedSequence] = {}

    @property
    def is_unified(self) -> bool:
        return self._n_cells_each is None

    @property
    def n_shared(self) -> int:
        """Cells shared by several sequences, counted once for each holder but the first."""
        return sum(resident.n_tokens for resident in self._residents.values()) - self.n_used

    def n_free_for(self, seq_id: int) -> int:
        if self._n_cells_each is None:
            return self.n_free
        resident = self._residents.get(seq_id)
        return self._n_cells_each - (resident.n_tokens if resident else 0)

    def n_tokens(self, seq_id: int) -> int:
        resident = self._residents.get(seq_id)
        return resident.n_tokens if resident else 0

    @property
    def n_free(self) -> int:
        """Cells that belong to no sequence."""
        return self.n_cells - self.n_used

    def __contains__(self, seq_id: int) -> bool:
        return seq_id in self._residents

    def computed(self, seq_id: int) -> Tokens:
        return self._residents[seq_id].computed

    def marks(self, seq_id: int) -> CellMarks:
        """Return the circumstances in which a sequence's cells were computed."""
        resident = self._residents.get(seq_id)
        return resident.marks if resident else ()

    def best(self, prompt: Tokens) -> tuple[int, int]:
        """Find the sequence with the longest shared prefix: `(seq_id, n_tokens)`, or (-1, 0).

        Of equal ones the shortest: a copy to another stream takes the whole of it along.
        """
        residents = sorted(self._residents.items(), key=lambda entry: entry[1].n_tokens)
        return longest_shared_prefix(
            prompt, {seq_id: resident.computed for seq_id, resident in residents}
        )

    def n_own(self, seq_id: int) -> int:
        return sum(r.n_cells for r in self._residents[seq_id].runs if r.holders == {seq_id})

    def share(self, source: int, target: int, n_tokens: int) -> None:
        """Add `target` with the first `n_tokens` of `source`.

        In a unified cache both hold the same cells; in a split one `target` gets its own.
        """
        if target in self._residents:
            raise ValueError(f"sequence {target} is resident already")
        donor = self._residents[source]
        if not 0 < n_tokens <= donor.n_tokens:
            raise ValueError(f"sequence {source} has no {n_tokens} tokens to share")
        if not self.is_unified:
            self.extend(target, donor.computed[:n_tokens], cell_marks_before(donor.marks, n_tokens))
            return
        self._cut(donor, n_tokens)
        taken, n_seen = [], 0
        for run in donor.runs:
            if n_seen == n_tokens:
                break
            run.holders.add(target)
            taken.append(run)
            n_seen += run.n_cells
        self._residents[target] = _CachedSequence(
            donor.tokens[:n_tokens].copy(),
            n_tokens,
            taken,
            cell_marks_before(donor.marks, n_tokens),
        )

    def extend(self, seq_id: int, tokens: Tokens, marks: CellMarks = ()) -> None:
        """Append computed tokens to a sequence, which may be new; `marks` have its own places.

        Raises:
            ValueError: too few cells are free.
        """
        n = len(tokens)
        if n > self.n_free_for(seq_id):
            raise ValueError(f"{n} cells wanted, {self.n_free_for(seq_id)} are free")
        resident = self._residents.get(seq_id)
        if resident is None:
            resident = self._residents[seq_id] = _CachedSequence(np.empty(0, np.int32))
        if resident.n_tokens + n > len(resident.tokens):
            grown = np.empty(max(256, 2 * (resident.n_tokens + n)), np.int32)
            grown[: resident.n_tokens] = resident.computed
            resident.tokens = grown
        resident.tokens[resident.n_tokens : resident.n_tokens + n] = tokens
        for mark in marks:
            if not resident.marks or resident.marks[-1][1] != mark[1]:
                resident.marks += (mark,)
        resident.n_tokens += n
        self.n_used += n
        if resident.runs and len(resident.runs[-1].holders) == 1:  # its own
            resident.runs[-1].n_cells += n
        else:
            resident.runs.append(_CellRun(n, {seq_id}))

    def trim(self, seq_id: int, n_keep: int) -> None:
        """Free all but the first `n_keep` cells of a sequence; 0 removes it."""
        resident = self._residents[seq_id]
        if n_keep < resident.n_tokens:
            self._cut(resident, n_keep)
            kept, n_seen = [], 0
            for run in resident.runs:
                if n_seen < n_keep:
                    kept.append(run)
                    n_seen += run.n_cells
                else:
                    run.holders.discard(seq_id)
                    if not run.holders:
                        self.n_used -= run.n_cells
            resident.runs, resident.n_tokens = kept, n_keep
            resident.marks = cell_marks_before(resident.marks, n_keep)
        if n_keep == 0:
            del self._residents[seq_id]

    def _cut(self, resident: _CachedSequence, n_tokens: int) -> None:
        n_seen = 0
        for run in resident.runs:
            if n_seen < n_tokens < n_seen + run.n_cells:
                rest = _CellRun(n_seen + run.n_cells - n_tokens, set(run.holders))
                run.n_cells = n_tokens - n_seen
                for holder in rest.holders:
                    runs = self._residents[holder].runs
                    runs.insert(runs.index(run) + 1, rest)
                return
            n_seen += run.n_cells


# Least part of a document to save for another job: copying it out and in takes some milliseconds,
# computing it again a hundred.
WORTH_REPEATING_TOKENS = 64


# Some thirty conversations decide about the share of those that are continued.
LEAST_SHARE, _SHARE_WEIGHT = 0.01, 1 / 16


class PromptRepeats:
    """Detect jobs that repeat a finished one's prompt, as several steps over one document do."""

    def __init__(self, n_most: int, *, is_likely: bool) -> None:
        """Remember `n_most` jobs; `is_likely`: expect repeats before any was seen.

        These are seen by then, or there are none: steps of one document follow one another.
        """
        self._finished: deque[Tokens] = deque(maxlen=n_most)
        self._n_most = n_most
        self._n_expected = n_most // 2 if is_likely else 0

    @property
    def is_likely(self) -> bool:
        """Whether a job that has just finished may well be repeated."""
        return self._n_expected > 0

    def finish(self, computed: Tokens) -> None:
        self._finished.append(computed.copy())
        self._n_expected -= 1

    def begin(self, prompt: Tokens, n_running: int) -> None:
        """Note a new job's prompt, which shares `n_running` tokens with a running sequence.

        What it shares with all that have finished, too, are instructions.
        """
        n_shared = sorted(shared_prefix_length(prompt, own) for own in self._finished)
        n_usual = max(n_running, n_shared[0] if len(n_shared) > 1 else 0)
        if n_shared and n_shared[-1] >= n_usual + WORTH_REPEATING_TOKENS:
            self._n_expected = self._n_most


class ReturnShares:
    """Share of finished conversations that are continued, as observed for each priority.

    Of jobs 1: `PromptRepeats` knows which are repeated.
    """

    def __init__(self) -> None:
        self._shares: dict[Priority, float] = {"interactive": 0.5, "normal": 0.5, "batch": 1.0}

    def __getitem__(self, priority: Priority) -> float:
        return self._shares[priority]

    def end(self, priority: Priority) -> None:
        self._shares[priority] = max(LEAST_SHARE, (1 - _SHARE_WEIGHT) * self._shares[priority])

    def return_to(self, priority: Priority) -> None:
        self._shares[priority] = min(1.0, self._shares[priority] + _SHARE_WEIGHT)
