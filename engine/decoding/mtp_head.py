"""Drafts of an MTP head: a layer that was trained to guess a token ahead. In the owner thread.

Multi-token prediction: it reads each token with the model's hidden state of the token before, has
cells of its own, and continues from its own hidden states.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items

import numpy as np

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.gguf import GgufHeader
from paddock.engine.llama.library import AllocatedBuffers, CacheFull, DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.system.records import Struct, replace

from .context_limits import MOST_MTP_SEQUENCES
from .drafts import MOST_MTP_TOKENS, HiddenStates
from .scheduler_data import batch_arrays

# Hidden states that wait for the next guess; 64 of 4,096 values take 1 MB.
_MOST_UNREAD = 64


def mtp_price(header: GgufHeader) -> float:
    """Return the weights of a guess, a layer and the output, as a share of those of a token.

    Of a mixture's experts only those that a token uses count.
    """
    names = {tensor.name for tensor in header.tensors}
    head_name = "output.weight" if "output.weight" in names else "token_embd.weight"
    n_experts = header.number("expert_count")
    used = header.number("expert_used_count", n_experts) / n_experts if n_experts else 1.0
    n_head = n_layers = 0.0
    for tensor in header.tensors:
        if tensor.name == head_name:
            n_head = float(tensor.n_weights)
        elif len(tensor.axes) >= 2 and tensor.name.startswith("blk."):
            n_layers += tensor.n_weights * (used if "_exps." in tensor.name else 1.0)
    return (n_head + n_layers / header.number("block_count", 1)) / max(1.0, n_head + n_layers)


class _HeadSequence(Struct):
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

    @property
    def n_known(self) -> int:
        """Position of the next hidden state."""
        return self.n_read - 1 + len(self.unread)


class _HeadPiece(Struct, frozen=True):
    seq_id: int
    tokens: Tokens
    pos: int
    states: Vectors


class MtpHead:
    def __init__(self, model: Model) -> None:
        """Make no context yet: `prepare` does, or the first request that has guesses."""
        self._model = model
        self.context: Context | None = None
        self._sequences: dict[int, _HeadSequence] = {}
        self.is_open = True

    def prepare(self, options: ContextOptions) -> None:
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
            # A context with as many cells as the model's own; another one starts empty.
            fitting_options = replace(
                options,
                n_batch_tokens=max(options.n_batch_tokens, MOST_MTP_SEQUENCES * (_MOST_UNREAD + 1)),
                n_seq_max=MOST_MTP_SEQUENCES,
                n_rows_max=MOST_MTP_SEQUENCES,
                is_unified=True,
                is_mtp=True,
            )
            if self.context is None or self.context.options != fitting_options:
                self.close()
                self.context = Context(self._model, fitting_options)
            context = self.context
            for request_id in [
                request_id for request_id in self._sequences if request_id not in running
            ]:
                context.trim(self._sequences.pop(request_id).seq_id, 0)
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
                self._decode(context, [piece], has_output=False)

    def _start(self, context: Context, states: HiddenStates) -> _HeadSequence | None:
        known = self._sequences.pop(states.request_id, None)
        taken = {sequence.seq_id for sequence in self._sequences.values()}
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
            self._decode(context, list(pieces.values()), has_output=True)
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
    def _decode(context: Context, pieces: Items[_HeadPiece], *, has_output: bool) -> None:
        arrays = batch_arrays(
            [piece.tokens for piece in pieces],
            [piece.pos for piece in pieces],
            [piece.seq_id for piece in pieces],
            [int(has_output)] * len(pieces),
        )
        context.decode(*arrays, np.concatenate([piece.states for piece in pieces]))
