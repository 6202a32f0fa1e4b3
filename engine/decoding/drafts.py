"""Speculative decoding: guess the next tokens by lookup, with a smaller model or an MTP head.

Lookup (`LookupDrafter`, pure): extraction and rewriting repeat their document, and the answers of
one step repeat each other: headings, labels, set phrases. If the last tokens of an answer occur
earlier in its prompt, in itself or in the last answers to similar requests, what followed there is
a good guess. Checking a guess costs a fraction of computing it, and a wrong one is rejected, so the
answer stays the same. The idea is prompt lookup decoding
(github.com/apoorvumang/prompt-lookup-decoding); here the length follows the acceptance rate.

Draft model (`DraftModel`, in the owner thread): a smaller model of the same vocabulary with a
unified cache of its own. In each step it reads one batch of what is new in prompts and answers,
then guesses some tokens ahead for all sequences together; wrong guesses are cut off at the next
call. Guesses are optional: without a sequence id, without cells or after an error there are none.

MTP head (`MtpHead`, in the owner thread): some models have a layer that was trained to guess the
token after the next one (multi-token prediction). It reads each token with the model's hidden state
of the token before, has cells of its own, and continues from its own hidden states.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import OrderedDict
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.llama.library import AllocatedBuffers, CacheFull, DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model

from .batch import MOST_MTP_SEQUENCES, batch_arrays
from .prefix_cache import PrefixCache, shared_prefix_length

# Tokens that must match for a lookup: two agree by chance too often.
N_GRAM = 3
MOST_DRAFT_TOKENS = 48
FIRST_PAUSE, LONGEST_PAUSE = 8, 64

# Requests of one pipeline step begin with the same template and instructions, or end with them
# after the document.
N_SAME_TOKENS = 48
# Tokens kept of the answers to such requests, and number of such steps.
MOST_KEPT_TOKENS, MOST_STEPS = 8192, 8
_ANSWER_END = -1  # separates answers; rows of images are negative, too

# Prior: of nine tokens, eight were right.
_FIRST_RIGHT, _FIRST_WRONG = 8.0, 1.0
_FORGETTING = 0.8


class DraftOdds:
    """Acceptance rate of one source of guesses, and so how far ahead guessing pays.

    The n-th token of a guess is needed only if all before it were right, so guessing it pays as
    long as the rate to the power of n is above the price of checking it.
    """

    def __init__(self) -> None:
        self._n_right, self._n_wrong = _FIRST_RIGHT, _FIRST_WRONG
        self._n_paused = 0
        self._pause = FIRST_PAUSE

    def count_pause(self) -> None:
        self._n_paused = max(0, self._n_paused - 1)

    def n_worth(self, most: int, price: float) -> int:
        """Return how many tokens to guess now, at most `most`.

        `price` is the time to check a guess, as a share of the time for a token without guesses.
        """
        if self._n_paused or most <= 0 or price >= 1:
            return 0
        chance = self._n_right / (self._n_right + self._n_wrong)
        if chance < price:
            self._n_paused, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            # The next guess is short.
            self._n_right, self._n_wrong = 1.5 * price / (1 - price), 1.0
            return 0
        return min(most, MOST_DRAFT_TOKENS, max(1, int(math.log(price) / math.log(chance))))

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        if not n_drafted:
            return
        self._n_right = self._n_right * _FORGETTING + n_accepted
        self._n_wrong = max(0.01, self._n_wrong * _FORGETTING + (n_accepted < n_drafted))
        if n_accepted == n_drafted:
            self._pause = FIRST_PAUSE


class _NgramIndex:
    """Tokens, and the last position after each run of `N_GRAM` of them."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.after: dict[tuple[int, ...], int] = {}
        self._n_indexed = N_GRAM

    def followed(self, last: tuple[int, ...], n_tokens: int) -> list[int]:
        """Return what last followed these tokens, up to the end of that answer or an image."""
        for end in range(self._n_indexed, len(self.tokens)):
            self.after[tuple(self.tokens[end - N_GRAM : end])] = end
        self._n_indexed = max(self._n_indexed, len(self.tokens))
        start = self.after.get(last)
        if start is None:
            return []
        found = self.tokens[start : start + n_tokens]
        return list(itertools.takewhile(lambda token: token >= 0, found))


class SimilarAnswers:
    """The last answers to requests with the same beginning or end."""

    def __init__(self) -> None:
        self.odds = DraftOdds()
        self.n_answers = 0
        self._index = _NgramIndex([])

    def add(self, answer: list[int]) -> None:
        """Add an answer with the tokens before it, so that its first ones can be guessed too."""
        self.n_answers += 1
        kept = self._index.tokens
        kept += [*answer, _ANSWER_END]
        if len(kept) > MOST_KEPT_TOKENS:
            self._index = _NgramIndex(kept[-MOST_KEPT_TOKENS // 2 :])

    def followed(self, last: tuple[int, ...], n_tokens: int) -> list[int]:
        return self._index.followed(last, n_tokens)


class PastAnswers:
    """The last answers, by the beginning and by the end of their requests."""

    def __init__(self) -> None:
        self._by_beginning: OrderedDict[bytes, SimilarAnswers] = OrderedDict()
        self._by_end: OrderedDict[bytes, SimilarAnswers] = OrderedDict()

    def like(self, prompt: Tokens) -> tuple[SimilarAnswers, ...]:
        """Return the answers to requests with this one's beginning, and those with its end."""
        ends = (
            (self._by_beginning, prompt[:N_SAME_TOKENS]), (self._by_end, prompt[-N_SAME_TOKENS:])
        )  # fmt: skip
        found = []
        for steps, tokens in ends:
            key = tokens.tobytes()
            found.append(steps.setdefault(key, SimilarAnswers()))
            steps.move_to_end(key)
            if len(steps) > MOST_STEPS:
                steps.popitem(last=False)
        return tuple(found)


class LookupDrafter:
    """Guesses for one answer. Adding a token and guessing cost 1 µs (one dictionary entry).

    A prompt is indexed at the first guess that pays: 8,000 tokens take 2 ms, which delay a step.
    """

    def __init__(self, prompt: Tokens, past: Items[SimilarAnswers] = ()) -> None:
        self._index = _NgramIndex(prompt.tolist())
        self._n_before = max(0, len(prompt) - N_GRAM)
        self._odds = self._guessed_by = DraftOdds()
        self._past = past

    def add(self, token: int) -> None:
        self.tokens.append(token)
        self._odds.count_pause()
        for past in self._past:
            past.odds.count_pause()

    def guess(self, most: int, price: float) -> list[int]:
        """Return tokens that may come next, or [] if nothing repeats or guessing does not pay.

        The prompt and the answer itself are searched before other answers. Of these, the larger set
        is that of the same step: the others are those about the same document.
        """
        last = tuple(self.tokens[-N_GRAM:])
        self._guessed_by = self._odds
        n_tokens = self._odds.n_worth(most, price)
        guess = self._index.followed(last, n_tokens) if n_tokens else []
        if not guess and self._past:
            past = max(self._past, key=lambda one: one.n_answers)
            n_tokens = past.odds.n_worth(most, price)
            guess = past.followed(last, n_tokens) if n_tokens else []
            if guess:
                self._guessed_by = past.odds
        return guess

    def n_worth(self, most: int, price: float) -> int:
        """Return how far ahead a draft model's guess pays; see `DraftOdds.n_worth`."""
        return self._odds.n_worth(most, price)

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far; do not change it."""
        return self._index.tokens

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        self._guessed_by.learn(n_drafted, n_accepted)

    def keep(self) -> None:
        for past in self._past:
            past.add(self.tokens[self._n_before :])


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Prompt and answer of a request so far, which only grow, and how many tokens to guess."""

    tokens: Items[int]
    n_ahead: int


@dataclass(slots=True)
class _DraftSequence:
    """One request in the small model's cache."""

    seq_id: int
    n_confirmed: int = 0
    """Tokens in the cache that belong to the request; later ones were guessed."""


@dataclass(frozen=True, slots=True)
class _DraftPiece:
    """Tokens of one request in a batch."""

    request_id: int
    tokens: Tokens
    is_last: bool
    """Whether all of the request is read then, so that the next token is wanted."""


class DraftModel:
    """The smaller model, its context and the accounting of its cells."""

    def __init__(self, model: Model, target: Model, options: ContextOptions) -> None:
        """Make a context of the smaller model.

        Raises:
            LoadFailed: no context can be made, or the models do not fit together.
        """
        if not _same_vocabulary(model, target):
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
            for one in [one for one in self._sequences if one not in running]:
                self._cut(self.context, self._sequences.pop(one).seq_id, 0)
            return self._guess(self.context, requests)
        except CacheFull:  # llama.cpp sees fewer free cells than we count: start again
            self.context.clear()
            self._drop_all()
        except DecodeFailed as error:
            self._stop_guessing(error)
        return {}

    def widen(self, n_ctx_tokens: int) -> None:
        """Make a larger context; everything is read again."""
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
        """Free the context; there are no more guesses."""
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
        pieces = self._pieces(context, requests)
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

    def _pieces(self, context: Context, requests: Mapping[int, DraftRequest]) -> list[_DraftPiece]:
        """Return one batch of what is to be read, requests with the fewest missing tokens first.

        A new request gets its sequence when its turn comes: by then more of a shared prefix has
        been read.
        """
        known = {
            request_id: self._missing(context, sequence, requests[request_id].tokens)
            for request_id, sequence in self._sequences.items()
            if request_id in requests
        }
        in_order = sorted(known, key=lambda one: len(known[one]))
        room, n_free, pieces = self._options.n_batch_tokens, self._cells.n_free, []
        for request_id in (*in_order, *(one for one in requests if one not in known)):
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
        return pieces

    def _missing(self, context: Context, sequence: _DraftSequence, tokens: Items[int]) -> Tokens:
        """Cut off wrong guesses, and return the tokens that are to be read."""
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
        """Assign a sequence id to a new request, with the longest prefix that was read already."""
        taken = {one.seq_id for one in self._sequences.values()}
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


# It was trained for one token ahead; later ones are less often right.
MOST_MTP_TOKENS = 3
# Hidden states that wait for the next guess; 64 of 4,096 values take 1 MB.
_MOST_UNREAD = 64


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The model's hidden states of some consecutive tokens of a request."""

    request_id: int
    tokens: Items[int]
    """Prompt and answer so far, which only grow."""
    pos: int
    """Position of the first of the states."""
    states: Vectors


@dataclass(slots=True)
class _HeadSequence:
    """One request in the head's cache.

    A cell stands for a token and the hidden state of the one before. The first token that the head
    saw has none, so its cells begin after it.
    """

    seq_id: int
    tokens: Items[int]
    n_read: int
    """Position of the next token to be read."""
    unread: Vectors
    """Hidden states of the tokens before those that are to be read, shape (n, n_embedding)."""
    n_guessed: int = 0
    """Guessed tokens that have cells."""

    @property
    def n_known(self) -> int:
        """Position of the next hidden state."""
        return self.n_read - 1 + len(self.unread)


@dataclass(frozen=True, slots=True)
class _HeadPiece:
    """Tokens of one request, from position `pos` on, with the hidden states before them."""

    seq_id: int
    tokens: Tokens
    pos: int
    states: Vectors


class MtpHead:
    """The model's layer that guesses ahead, its context and the requests that it follows."""

    def __init__(self, model: Model) -> None:
        """Make no context yet: `prepare` does, or the first request that has guesses."""
        self._model = model
        self.context: Context | None = None
        self._sequences: dict[int, _HeadSequence] = {}
        self.is_open = True
        """Whether there may be guesses."""

    def prepare(self, options: ContextOptions) -> None:
        """Make the context now, so that its memory is counted before requests come."""
        self.guess((), {}, (), options)

    def guess(
        self,
        read: Items[HiddenStates],
        n_ahead: Mapping[int, int],
        running: Collection[int],
        options: ContextOptions,
    ) -> dict[int, list[int]]:
        """Take the last decode's hidden states; return guesses of `n_ahead` tokens by request.

        Requests that are not `running` are dropped. `options` are those of the model's own context,
        whose cells the head's are to match.
        """
        try:
            context = self._fitting(options)
            for one in [one for one in self._sequences if one not in running]:
                context.trim(self._sequences.pop(one).seq_id, 0)
            for states in read:
                self._take(context, states)
            return self._guess(context, n_ahead)
        except CacheFull:  # start again
            self._sequences.clear()
            if self.context is not None:
                self.context.clear()
        except (LoadFailed, DecodeFailed) as error:
            print(f"the model guesses no tokens any more: {error}", file=sys.stderr, flush=True)
            self.close()
            self.is_open = False
        return {}

    @property
    def buffers(self) -> AllocatedBuffers:
        return self.context.buffers if self.context is not None else AllocatedBuffers()

    def close(self) -> None:
        self._sequences.clear()
        if self.context is not None:
            self.context.close()
            self.context = None

    def _fitting(self, options: ContextOptions) -> Context:
        """Return a context with as many cells as the model's own; another one starts empty."""
        wanted = replace(
            options,
            n_batch_tokens=max(options.n_batch_tokens, MOST_MTP_SEQUENCES * (_MOST_UNREAD + 1)),
            n_seq_max=MOST_MTP_SEQUENCES,
            n_rows_max=MOST_MTP_SEQUENCES,
            is_unified=True,
            is_mtp=True,
        )
        if self.context is None or self.context.options != wanted:
            self.close()
            self.context = Context(self._model, wanted)
        return self.context

    def _take(self, context: Context, states: HiddenStates) -> None:
        """Add hidden states to a request; start it again where some were left out before."""
        sequence = self._sequences.get(states.request_id)
        if sequence is None or sequence.n_known != states.pos:
            sequence = self._start(context, states)
        if sequence is None:
            return
        sequence.unread = np.concatenate([sequence.unread, states.states])
        if len(sequence.unread) > _MOST_UNREAD:
            n_early, n_most = len(sequence.unread) - 1, context.options.n_batch_tokens
            for n in range(0, n_early, n_most):
                piece = self._piece(context, sequence, min(n_most, n_early - n))
                self._decode(context, [piece], is_wanted=False)

    def _start(self, context: Context, states: HiddenStates) -> _HeadSequence | None:
        known = self._sequences.pop(states.request_id, None)
        taken = {one.seq_id for one in self._sequences.values()}
        seq_id = next((n for n in range(MOST_MTP_SEQUENCES) if n not in taken), None)
        if known is not None:
            seq_id = known.seq_id
            context.trim(seq_id, 0)
        if seq_id is None:
            return None
        sequence = _HeadSequence(seq_id, states.tokens, states.pos + 1, states.states[:0])
        self._sequences[states.request_id] = sequence
        return sequence

    def _piece(self, context: Context, sequence: _HeadSequence, n_tokens: int) -> _HeadPiece:
        """Return the next tokens to be read, and count them as read; guessed cells are cut off."""
        if sequence.n_guessed:
            context.trim(sequence.seq_id, sequence.n_read)
            sequence.n_guessed = 0
        start = sequence.n_read
        states, sequence.unread = sequence.unread[:n_tokens], sequence.unread[n_tokens:]
        sequence.n_read += n_tokens
        tokens = np.array(sequence.tokens[start : sequence.n_read], np.int32)
        return _HeadPiece(sequence.seq_id, tokens, start, states)

    def _guess(self, context: Context, n_ahead: Mapping[int, int]) -> dict[int, list[int]]:
        guesses: dict[int, list[int]] = {}
        pieces: dict[int, _HeadPiece] = {}
        for request_id, sequence in self._sequences.items():
            # Where a grammar has forced tokens, the next one is known already.
            if request_id in n_ahead and sequence.n_known + 1 == len(sequence.tokens):
                pieces[request_id] = self._piece(context, sequence, len(sequence.unread))
        while pieces:
            self._decode(context, list(pieces.values()), is_wanted=True)
            newest = context.logits(len(pieces)).argmax(axis=1)
            ends = np.cumsum([len(piece.tokens) for piece in pieces.values()])
            states = context.states(int(ends[-1]))[ends - 1]
            following: dict[int, _HeadPiece] = {}
            for row, (request_id, piece) in enumerate(pieces.items()):
                guess = guesses.setdefault(request_id, [])
                guess.append(int(newest[row]))
                if len(guess) < min(n_ahead[request_id], MOST_MTP_TOKENS):
                    self._sequences[request_id].n_guessed += 1
                    following[request_id] = _HeadPiece(
                        piece.seq_id,
                        np.array(guess[-1:], np.int32),
                        piece.pos + len(piece.tokens),
                        states[row : row + 1],
                    )
            pieces = following
        return guesses

    @staticmethod
    def _decode(context: Context, pieces: Items[_HeadPiece], *, is_wanted: bool) -> None:
        arrays = batch_arrays(
            [piece.tokens for piece in pieces],
            [piece.pos for piece in pieces],
            [piece.seq_id for piece in pieces],
            [int(is_wanted)] * len(pieces),
        )
        context.decode(*arrays, np.concatenate([piece.states for piece in pieces]))


def _same_vocabulary(one: Model, other: Model) -> bool:
    """Compare size and a sample of pieces, control tokens included."""
    if one.n_vocab != other.n_vocab:
        return False
    sample = range(0, one.n_vocab, max(1, one.n_vocab // 500))
    return all(
        one.piece(token, shows_control=True) == other.piece(token, shows_control=True)
        for token in sample
    )
