"""Drafts of a smaller model: tokens that it guesses ahead. In the owner thread.

The model has the same vocabulary and a unified cache of its own. In each step it reads one batch of
what is new in prompts and answers, then guesses some tokens ahead for all sequences together; wrong
guesses are cut off at the next call. Guesses are optional: without a sequence id, without cells or
after an error there are none.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.llama.library import AllocatedBuffers, CacheFull, DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.system.records import Struct, replace

from .drafts import DraftRequest
from .prefix_cache import PrefixCache, shared_prefix_length
from .scheduler_data import batch_arrays


class _DraftSequence(Struct):
    seq_id: int
    n_confirmed: int = 0
    """Tokens in the cache that belong to the request; later ones were guessed."""


class _DraftPiece(Struct, frozen=True):
    request_id: int
    tokens: Tokens
    is_last: bool
    """Whether all of the request is read then, so that the next token is wanted."""


class DraftModel:
    def __init__(self, model: Model, target: Vocabulary, options: ContextOptions) -> None:
        """Make a context of the smaller model.

        Raises:
            LoadFailed: no context can be made, or the models do not fit together.
        """
        # Compare size and a sample of pieces, control tokens included
        if model.n_vocab != target.n_vocab:
            same_vocabulary = False
        else:
            sample = range(0, model.n_vocab, max(1, model.n_vocab // 500))
            same_vocabulary = all(
                model.piece(token, shows_control=True) == target.piece(token, shows_control=True)
                for token in sample
            )
        if not same_vocabulary:
            raise LoadFailed("the draft model has another vocabulary than the model itself")
        if model.memory == "state":
            raise LoadFailed("a recurrent or hybrid model cannot undo a guess, so it cannot be a "
                             "draft model")  # fmt: skip
        self._model = model
        # A batch has a row for each request at most. Logits of 2,048 tokens of 151,936 would
        # reserve 1.24 GB.
        self._options = replace(options, is_unified=True, n_rows_max=options.n_seq_max)
        self.context: Context | None = Context(model, self._options)
        self._cells = PrefixCache(self._options.n_ctx_tokens)
        self._sequences: dict[int, _DraftSequence] = {}

    def guess(
        self, requests: Mapping[int, DraftRequest], running: Collection[int]
    ) -> dict[int, list[int]]:
        """Return each request's guess; sequences of requests that are not `running` are dropped."""
        if self.context is None:
            return {}
        try:
            for request_id in [
                request_id for request_id in self._sequences if request_id not in running
            ]:
                self._cut(self.context, self._sequences.pop(request_id).seq_id, 0)
            return self._guess(self.context, requests)
        except CacheFull:  # llama.cpp sees fewer free cells than we count: start again
            self.context.clear()
            self._drop_all()
        except DecodeFailed as error:
            self._stop_guessing(error)
        return {}

    def widen(self, n_ctx_tokens: int) -> None:
        if self.context is None or n_ctx_tokens <= self._options.n_ctx_tokens:
            return
        self._options = replace(self._options, n_ctx_tokens=n_ctx_tokens)
        self.close()
        self._drop_all()
        try:
            self.context = Context(self._model, self._options)
        except LoadFailed as error:
            self._stop_guessing(error)

    @property
    def buffers(self) -> AllocatedBuffers:
        buffers = self._model.buffers
        return buffers + self.context.buffers if self.context is not None else buffers

    def close(self) -> None:
        if self.context is not None:
            self.context.close()
            self.context = None

    def _stop_guessing(self, error: Exception) -> None:
        print(f"the draft model is not used any more: {error}", file=sys.stderr, flush=True)
        self.close()

    def _drop_all(self) -> None:
        self._sequences.clear()
        self._cells = PrefixCache(self._options.n_ctx_tokens)

    def _cut(self, context: Context, seq_id: int, n_keep: int) -> None:
        if seq_id in self._cells and n_keep < self._cells.n_tokens(seq_id):
            context.trim(seq_id, n_keep)
            self._cells.trim(seq_id, n_keep)

    # Reading

    def _guess(
        self, context: Context, requests: Mapping[int, DraftRequest]
    ) -> dict[int, list[int]]:
        guesses: dict[int, list[int]] = {}
        known = {
            request_id: self._missing(context, sequence, requests[request_id].tokens)
            for request_id, sequence in self._sequences.items()
            if request_id in requests
        }
        in_order = sorted(known, key=lambda request_id: len(known[request_id]))
        room = self._options.n_batch_tokens
        n_free = self._cells.n_free
        pieces = []
        for request_id in (
            *in_order,
            *(request_id for request_id in requests if request_id not in known),
        ):
            if not room:
                break
            request = requests[request_id]
            sequence = self._sequences.get(request_id) or self._add_sequence(
                context, request_id, request.tokens
            )
            if sequence is None:
                break
            tokens = known.get(request_id)
            if tokens is None:
                tokens = np.array(request.tokens[sequence.n_confirmed :], np.int32)
            if len(tokens) + request.n_ahead > n_free:
                continue
            part = tokens[:room]
            pieces.append(_DraftPiece(request_id, part, is_last=len(part) == len(tokens)))
            sequence.n_confirmed += len(part)
            room -= len(part)
            n_free -= len(tokens) + request.n_ahead
        while pieces:
            newest = self._decode(context, pieces)
            pieces = []
            for request_id, token in newest.items():
                guess = guesses.setdefault(request_id, [])
                guess.append(token)
                if len(guess) < requests[request_id].n_ahead:
                    pieces.append(
                        _DraftPiece(request_id, np.array([token], np.int32), is_last=True)
                    )
        return guesses

    def _missing(self, context: Context, sequence: _DraftSequence, tokens: Items[int]) -> Tokens:
        # The last token is always read: its successor is wanted.
        sequence.n_confirmed = min(sequence.n_confirmed, len(tokens) - 1)
        tokens_left = np.array(tokens[sequence.n_confirmed :], np.int32)
        if sequence.seq_id in self._cells:
            guessed = self._cells.computed(sequence.seq_id)[sequence.n_confirmed :]
            n_right = shared_prefix_length(guessed, tokens_left[:-1])
            sequence.n_confirmed += n_right
            self._cut(context, sequence.seq_id, sequence.n_confirmed)
            tokens_left = tokens_left[n_right:]
        return tokens_left

    def _add_sequence(
        self, context: Context, request_id: int, tokens: Items[int]
    ) -> _DraftSequence | None:
        taken = {sequence.seq_id for sequence in self._sequences.values()}
        free = next((n for n in range(self._options.n_seq_max) if n not in taken), None)
        if free is None:
            return None
        sequence = self._sequences[request_id] = _DraftSequence(free)
        if self._model.memory == "cells":
            donor, sequence.n_confirmed = self._cells.best(np.array(tokens[:-1], np.int32))
            if sequence.n_confirmed:
                context.copy(donor, free, sequence.n_confirmed)
                self._cells.share(donor, free, sequence.n_confirmed)
        return sequence

    def _decode(self, context: Context, pieces: Items[_DraftPiece]) -> dict[int, int]:
        """Compute a batch; return the likeliest next token of each request that is read whole."""
        seq_ids = [self._sequences[piece.request_id].seq_id for piece in pieces]
        arrays = batch_arrays(
            [piece.tokens for piece in pieces],
            [self._cells.n_tokens(seq_id) for seq_id in seq_ids],
            seq_ids,
            [int(piece.is_last) for piece in pieces],
        )
        n_rows = context.decode(*arrays)
        for piece, seq_id in zip(pieces, seq_ids, strict=True):
            self._cells.extend(seq_id, piece.tokens)
        if not n_rows:
            return {}
        asking = [piece.request_id for piece in pieces if piece.is_last]
        return dict(zip(asking, context.logits(n_rows).argmax(axis=1).tolist(), strict=True))
