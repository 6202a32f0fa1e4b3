"""Guess what an answer says next with a smaller model of the same vocabulary.

The small model has a unified cache of its own. It reads what it has not read of each prompt and
answer, one batch of it at each step, then guesses some tokens ahead for all sequences in common
batches; wrong guesses are cut off at the next call. Guesses are a help, not a promise: without a
sequence id, without cells or after an error there are none. Lives in the owner thread.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.native.context import Context, ContextOptions
from paddock.engine.native.faults import CacheFull, DecodeFailed, LoadFailed
from paddock.engine.native.log import Buffers
from paddock.engine.native.model import Model

from .prefixes import PrefixCache, shared_beginning


@dataclass(frozen=True, slots=True)
class Wish:
    """Prompt and answer of a request so far, and how many tokens to guess; tokens only grow."""

    tokens: Items[int]
    n_ahead: int


@dataclass(slots=True)
class _Reader:
    """One request in the small model's cache."""

    seq_id: int
    n_sure: int = 0
    """Tokens in the cache that belong to the request; what follows them was guessed."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens of one request in a batch."""

    request_id: int
    tokens: Tokens
    is_last: bool
    """Whether the next token is wanted: nothing of the request is left to read."""


class DraftModel:
    """The small model, its context and the books of its cells."""

    def __init__(self, model: Model, target: Model, options: ContextOptions) -> None:
        """Make a context of these options over the small model.

        Raises:
            LoadFailed: no context can be made, or the two models do not fit together.
        """
        if not _same_vocabulary(model, target):
            raise LoadFailed("the draft model has another vocabulary than the model itself")
        if model.memory == "state":
            raise LoadFailed("a recurrent or hybrid model cannot take a guess back, so it cannot "
                             "be a draft model")  # fmt: skip
        self._model = model
        self._options = replace(options, is_unified=True)
        self._context: Context | None = Context(model, self._options)
        self._cells = PrefixCache(self._options.n_ctx_tokens)
        self._readers: dict[int, _Reader] = {}

    def guess(self, wishes: Mapping[int, Wish], living: Collection[int]) -> dict[int, list[int]]:
        """Return the tokens that may come next, for each request at most as many as it wishes.

        What was read of requests that are not among the `living` is forgotten.
        """
        if self._context is None:
            return {}
        try:
            self._forget_all_but(self._context, living)
            return self._guess(self._context, wishes)
        except CacheFull:  # llama.cpp sees less room than the books: begin again
            self._context.clear()
            self._forget_everything()
        except DecodeFailed as error:
            self._give_up(error)
        return {}

    def widen(self, n_ctx_tokens: int) -> None:
        """Make room for longer requests; what was read is read again."""
        if self._context is None or n_ctx_tokens <= self._options.n_ctx_tokens:
            return
        self._options = replace(self._options, n_ctx_tokens=n_ctx_tokens)
        self.close()
        self._forget_everything()
        try:
            self._context = Context(self._model, self._options)
        except LoadFailed as error:
            self._give_up(error)

    @property
    def buffers(self) -> Buffers:
        """The memory of its weights and its context."""
        buffers = self._model.buffers
        return buffers + self._context.buffers if self._context is not None else buffers

    def close(self) -> None:
        """Free the context; there are no guesses any more."""
        if self._context is not None:
            self._context.close()
            self._context = None

    def _give_up(self, error: Exception) -> None:
        print(f"no guesses of the draft model any more: {error}", file=sys.stderr, flush=True)
        self.close()

    def _forget_everything(self) -> None:
        self._readers.clear()
        self._cells = PrefixCache(self._options.n_ctx_tokens)

    def _forget_all_but(self, context: Context, living: Collection[int]) -> None:
        for request_id in [one for one in self._readers if one not in living]:
            self._cut(context, self._readers.pop(request_id).seq_id, 0)

    def _cut(self, context: Context, seq_id: int, n_keep: int) -> None:
        if seq_id in self._cells and n_keep < self._cells.n_tokens(seq_id):
            context.trim(seq_id, n_keep)
            self._cells.trim(seq_id, n_keep)

    # Reading

    def _guess(self, context: Context, wishes: Mapping[int, Wish]) -> dict[int, list[int]]:
        guesses: dict[int, list[int]] = {}
        pieces = self._pieces(context, wishes)
        while pieces:
            newest = self._decode(context, pieces)
            pieces = []
            for request_id, token in newest.items():
                said = guesses.setdefault(request_id, [])
                said.append(token)
                if len(said) < wishes[request_id].n_ahead:
                    pieces.append(_Piece(request_id, np.array([token], np.int32), is_last=True))
        return guesses

    def _pieces(self, context: Context, wishes: Mapping[int, Wish]) -> list[_Piece]:
        """Return one batch of what is to be read, those with the fewest missing tokens first.

        A new request takes its sequence when its turn comes: by then more of a common beginning
        has been read.
        """
        known = {
            request_id: self._missing(context, reader, wishes[request_id].tokens)
            for request_id, reader in self._readers.items()
            if request_id in wishes
        }
        in_order = sorted(known, key=lambda one: len(known[one]))
        room, n_free, pieces = self._options.n_batch_tokens, self._cells.n_free, []
        for request_id in (*in_order, *(one for one in wishes if one not in known)):
            if not room:
                break
            wish = wishes[request_id]
            reader = self._readers.get(request_id) or self._begin(context, request_id, wish.tokens)
            if reader is None:
                break
            tokens = known.get(request_id)
            if tokens is None:
                tokens = np.array(wish.tokens[reader.n_sure :], np.int32)
            if len(tokens) + wish.n_ahead > n_free:
                continue
            part = tokens[:room]
            pieces.append(_Piece(request_id, part, is_last=len(part) == len(tokens)))
            reader.n_sure += len(part)
            room -= len(part)
            n_free -= len(tokens) + wish.n_ahead
        return pieces

    def _missing(self, context: Context, reader: _Reader, tokens: Items[int]) -> Tokens:
        """Cut off what was guessed wrongly, and return the tokens that are to be read."""
        # The last token is read in any case: what comes after it is wanted.
        reader.n_sure = min(reader.n_sure, len(tokens) - 1)
        said = np.array(tokens[reader.n_sure :], np.int32)
        if reader.seq_id in self._cells:
            guessed = self._cells.computed(reader.seq_id)[reader.n_sure :]
            n_right = shared_beginning(guessed, said[:-1])
            reader.n_sure += n_right
            self._cut(context, reader.seq_id, reader.n_sure)
            said = said[n_right:]
        return said

    def _begin(self, context: Context, request_id: int, tokens: Items[int]) -> _Reader | None:
        """Take a sequence id for a new request, and the longest beginning that was read already."""
        taken = {one.seq_id for one in self._readers.values()}
        free = next((n for n in range(self._options.n_seq_max) if n not in taken), None)
        if free is None:
            return None
        reader = self._readers[request_id] = _Reader(free)
        if self._model.memory == "cells":
            donor, reader.n_sure = self._cells.best(np.array(tokens[:-1], np.int32))
            if reader.n_sure:
                context.copy(donor, free, reader.n_sure)
                self._cells.share(donor, free, reader.n_sure)
        return reader

    def _decode(self, context: Context, pieces: Items[_Piece]) -> dict[int, int]:
        """Compute a batch, and return the likeliest next token of each request that is read."""
        seq_ids = [self._readers[piece.request_id].seq_id for piece in pieces]
        lengths = [len(piece.tokens) for piece in pieces]
        starts = [self._cells.n_tokens(seq_id) for seq_id in seq_ids]
        wanted = np.zeros(sum(lengths), np.int8)
        wanted[np.cumsum(lengths) - 1] = [piece.is_last for piece in pieces]
        n_rows = context.decode(
            np.concatenate([piece.tokens for piece in pieces]),
            np.concatenate([np.arange(at, at + n, dtype=np.int32)
                            for at, n in zip(starts, lengths, strict=True)]),
            np.repeat(np.array(seq_ids, np.int32), lengths),
            wanted,
        )  # fmt: skip
        for piece, seq_id in zip(pieces, seq_ids, strict=True):
            self._cells.extend(seq_id, piece.tokens)
        if not n_rows:
            return {}
        asking = [piece.request_id for piece in pieces if piece.is_last]
        return dict(zip(asking, context.logits(n_rows).argmax(axis=1).tolist(), strict=True))


def _same_vocabulary(one: Model, other: Model) -> bool:
    """Compare size and a sample of pieces, control tokens included."""
    if one.n_vocab != other.n_vocab:
        return False
    sample = range(0, one.n_vocab, max(1, one.n_vocab // 500))
    return all(
        one.piece(token, shows_control=True) == other.piece(token, shows_control=True)
        for token in sample
    )
