"""Guess what an answer says next with a smaller model of the same vocabulary.

The small model reads each prompt once, then says some tokens ahead for all sequences in common
batches. What it gets wrong is taken back from its cache at the next guess. Lives in the owner
thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np

from paddock.engine.native.context import Context
from paddock.engine.native.faults import LoadFailed
from paddock.engine.native.model import Model


@dataclass(frozen=True, slots=True)
class Wish:
    """What was said of one request so far, prompt included, and how far ahead is asked."""

    tokens: Items[int]
    n_ahead: int


@dataclass(slots=True)
class _Reader:
    """One request in the small model's cache."""

    seq_id: int
    known: list[int] = field(default_factory=list)


class DraftModel:
    """A context of its own over the small model."""

    def __init__(self, model: Model, target: Model, context: Context) -> None:
        """Take a context of the small model; it has a sequence for each request.

        Raises:
            LoadFailed: the two models do not speak the same tokens.
        """
        if not _same_vocabulary(model, target):
            raise LoadFailed("the draft model has another vocabulary than the model itself")
        self._context = context
        self._readers: dict[int, _Reader] = {}

    def guess(self, wishes: Mapping[int, Wish], living: Collection[int]) -> dict[int, list[int]]:
        """Say what comes next, for each request as far ahead as it wishes.

        What was read of requests that are not among the `living` any more is forgotten.
        """
        self._forget_all_but(living)
        guesses: dict[int, list[int]] = {request_id: [] for request_id in wishes}
        missing = {one: self._missing(one, wish.tokens) for one, wish in wishes.items()}
        while missing:
            newest = self._read(missing)
            missing = {}
            for request_id, token in newest.items():
                guesses[request_id].append(token)
                if len(guesses[request_id]) < wishes[request_id].n_ahead:
                    missing[request_id] = [token]
        return guesses

    def close(self) -> None:
        """Free the context."""
        self._context.close()

    def _forget_all_but(self, living: Collection[int]) -> None:
        for request_id in [one for one in self._readers if one not in living]:
            self._context.trim(self._readers.pop(request_id).seq_id, 0)

    def _missing(self, request_id: int, tokens: Items[int]) -> list[int]:
        """Take back what was guessed wrongly; gives the tokens that are to be read."""
        reader = self._readers.get(request_id)
        if reader is None:
            taken = {one.seq_id for one in self._readers.values()}
            free = next(n for n in range(self._context.options.n_seq_max) if n not in taken)
            reader = self._readers[request_id] = _Reader(free)
        n_same = 0
        for known, said in zip(reader.known, tokens[:-1], strict=False):
            if known != said:
                break
            n_same += 1
        if n_same < len(reader.known):
            self._context.trim(reader.seq_id, n_same)
            del reader.known[n_same:]
        return list(tokens[n_same:])

    def _read(self, missing: Mapping[int, list[int]]) -> dict[int, int]:
        """Read tokens of each request, and give the likeliest next one of each."""
        said: dict[int, int] = {}
        batch: list[tuple[int, list[int]]] = []
        room = self._context.options.n_batch_tokens
        for request_id, tokens in missing.items():
            for start in range(0, len(tokens), room):
                part = tokens[start : start + room]
                if sum(len(one) for _, one in batch) + len(part) > room:
                    said.update(self._decode(batch))
                    batch = []
                batch.append((request_id, part))
        said.update(self._decode(batch))
        return said

    def _decode(self, batch: Items[tuple[int, list[int]]]) -> dict[int, int]:
        readers = [self._readers[request_id] for request_id, _ in batch]
        lengths = [len(tokens) for _, tokens in batch]
        ends = np.cumsum(lengths)
        wanted = np.zeros(int(ends[-1]), np.int8)
        wanted[ends - 1] = 1
        n_rows = self._context.decode(
            np.concatenate([np.array(tokens, np.int32) for _, tokens in batch]),
            np.concatenate(
                [
                    np.arange(len(one.known), len(one.known) + n, dtype=np.int32)
                    for one, n in zip(readers, lengths, strict=True)
                ]
            ),
            np.repeat(np.array([one.seq_id for one in readers], np.int32), lengths),
            wanted,
        )
        for reader, (_, tokens) in zip(readers, batch, strict=True):
            reader.known += tokens
        likeliest = self._context.logits(n_rows).argmax(axis=1).tolist()
        return {request_id: token for (request_id, _), token in zip(batch, likeliest, strict=True)}


def _same_vocabulary(one: Model, other: Model) -> bool:
    """Compare size and a sample of pieces, control tokens included."""
    if one.n_vocab != other.n_vocab:
        return False
    sample = range(0, one.n_vocab, max(1, one.n_vocab // 500))
    return all(
        one.piece(token, shows_control=True) == other.piece(token, shows_control=True)
        for token in sample
    )
