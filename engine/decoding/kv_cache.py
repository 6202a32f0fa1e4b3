"""One context over a model's weights, made anew where another layout suits the work better.

The weights stay; a context is made in some 30 ms. Its streams are as long as the longest request
so far needs, not as long as the model could: memory is taken when it is wanted. Lives in the owner
thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np

from paddock.engine.native.context import Context, ContextOptions
from paddock.engine.native.model import Model
from paddock.engine.native.state import State, given, taken
from paddock.engine.profile.choice import (
    Bounds,
    Layout,
    Workload,
    choose,
    estimate,
    n_reserved,
    streams,
    turn_tokens,
)
from paddock.engine.profile.profile import Profile, prefill_s, step_s
from paddock.engine.settings import CacheLayout

from .budget import LEAST_PIECE_TOKENS
from .places import Places
from .prefixes import shared_beginning
from .sequence import Sequence
from .turn import MOST_SEQ_IDS, Copy, Discard, Limits, Operation, Restore, Shelve, Trim

# A chat's first token is wanted within 0.3 s: it waits for the turn that is being computed, and
# for its own. While it is being answered, each token waits for one turn.
NEAR_TURN_S, CHAT_TURN_S = 0.2, 0.1

# Another layout must save so many seconds, and such a share of the work. When nobody runs it costs
# a new context, and beginnings that were kept; else those that run must end first, in an emptying
# batch.
WORTH_A_CONTEXT, WORTH_A_PAUSE = (0.2, 0.05), (4.0, 0.2)

LEAST_STREAM_TOKENS = 1024
SLACK_TOKENS = 256
# On 2 cores with SmolLM2-135M, a token of a 64-token batch takes a third of one alone.
UNMEASURED_PRICE = 0.35
_PROBE_TOKENS, _DEPTH, _USUAL_GUESS = 64, 512, 6

_PAD_TOKENS = 256  # llama.cpp's own


@dataclass(frozen=True, slots=True)
class CacheWishes:
    """What a cache may become."""

    n_ctx_tokens: int
    """The longest request, answer included."""
    n_cells: int
    n_parallel: int
    options: ContextOptions
    layout: CacheLayout = "auto"
    n_shelf_tokens: int = 0
    is_gpu: bool = False


class KvCache:
    """Holds the context; use `operate` and `context` between changes of layout."""

    def __init__(self, model: Model, wishes: CacheWishes, profile: Profile | None = None) -> None:
        self.model = model
        self._wishes = wishes
        self._profile = profile
        self._shelf: dict[int, State] = {}
        self._prices: dict[int, float] = {}
        self.n_computed = 0
        """Tokens that were computed since the cells were last in order."""
        self._n_stream_tokens = min(wishes.n_ctx_tokens, LEAST_STREAM_TOKENS)
        self._n_longest_tokens = 0
        """Of all requests so far: one alone must find room."""
        n_usual = min(512, self._n_stream_tokens // 2)
        self._layout = self._chosen(Workload(wishes.n_parallel, n_usual, n_usual // 8))
        self.limits = self._limits()
        self.context = self._made()

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    @property
    def n_idle_cores(self) -> int:
        """Cores that are free between two steps: where they decode, llama.cpp's threads spin on."""
        return self._wishes.options.n_threads if self._wishes.is_gpu else 1

    # Operations

    def operate(self, operations: Iterable[Operation]) -> None:
        """Carry out what a scheduler decided, in order.

        Raises:
            CacheFull: something that was kept outside finds no room.
        """
        for one in operations:
            match one:
                case Trim(seq_id, n_keep):
                    self.context.trim(seq_id, n_keep)
                case Copy(source, target, n_tokens):
                    self._copy(source, target, n_tokens)
                case Shelve(seq_id, key):
                    self._shelf[key] = taken(self.context, seq_id)
                case Restore(key, seq_id):
                    given(self.context, seq_id, self._shelf[key])
                case Discard(key):
                    self._shelf.pop(key, None)

    def clear(self) -> None:
        """Empty the context and what is kept outside of it."""
        self.context.clear()
        self._shelf.clear()
        self.n_computed = 0

    def tidy(self, places: Places) -> None:
        """Move what is left to the lowest cells; nobody may be running.

        llama.cpp fills a unified cache onwards and comes back only now and then, and attention
        runs up to the highest used cell: after some jobs, steps took half as long again.
        """
        cells = places.cells
        is_compact = self.n_computed <= 2 * cells.n_used + SLACK_TOKENS
        if is_compact or not self.limits.is_unified or cells.n_shared:
            return
        states = {seq_id: taken(self.context, seq_id) for seq_id in places.idle}
        self.context.clear()
        for seq_id, state in states.items():
            given(self.context, seq_id, state)
        self.n_computed = cells.n_used

    def _copy(self, source: int, target: int, n_tokens: int) -> None:
        if self.limits.is_unified:
            self.context.copy(source, target, n_tokens)
            return
        if self.model.memory == "window":
            # A state lacks what the window has passed. llama.cpp copies the streams before the
            # next decode, so nothing may be brought into the source's from outside until then.
            self.context.copy(source, target, -1)
            self.context.trim(target, n_tokens)
            return
        # llama.cpp copies between streams only as a whole, cells that nobody uses included.
        given(self.context, target, taken(self.context, source))
        self.context.trim(target, n_tokens)

    @property
    def drafts_keep_answers(self) -> bool | None:
        """Whether drafts leave greedy answers as they are on this device; None: not measured."""
        return self._profile.drafts_keep_answers if self._profile is not None else None

    def draft_price(self, n_sequences: int) -> float:
        """Tell what checking a guess costs, as a share of a token's cost in a step without."""
        if self._profile is None or not self._profile.prefill or not self._profile.decode:
            return UNMEASURED_PRICE
        if n_sequences not in self._prices:
            whole_s = step_s(self._profile, n_sequences, _DEPTH, self.limits.is_unified)
            more_s = prefill_s(self._profile, _PROBE_TOKENS) / _PROBE_TOKENS
            if n_sequences > 1 and not self.limits.is_unified:
                # Streams that have more tokens than the others get a pass of their own.
                alone_s, four_s = (step_s(self._profile, n, _DEPTH, False) for n in (1, 4))
                more_s += max(0.0, alone_s - (four_s - alone_s) / 3) / _USUAL_GUESS
            self._prices[n_sequences] = more_s / (whole_s / n_sequences)
        return self._prices[n_sequences]

    # Layout

    def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        """Make room for longer requests; nobody may be in the cache."""
        if n_ctx_tokens > self._wishes.n_ctx_tokens:
            self._wishes = replace(self._wishes, n_ctx_tokens=n_ctx_tokens, n_cells=n_cells)

    def fits(self, sequence: Sequence) -> bool:
        """Whether a sequence fits into this context as it is."""
        if self.limits.is_unified and sequence.n_most_tokens > self.limits.n_cells:
            return False
        return sequence.n_likely_tokens <= self._n_stream_tokens

    def suits(self, sequences: Items[Sequence], *, is_running: bool) -> bool:
        """Tell whether the present layout is good enough for this work."""
        if not all(map(self.fits, sequences)):
            return False
        grows = self._may_outgrow(sequences)
        if grows and not is_running and not self._layout.is_unified:
            return False
        if len(sequences) < 2:
            return True
        workload = _workload(sequences)
        bounds = self._bounds(self._n_stream_for(sequences))
        better = self._chosen(workload, grows=grows)
        if better == self._layout or self._profile is None:
            return better == self._layout or is_running
        present_s = estimate(self._profile, workload, self._layout, bounds)
        gain_s = present_s - estimate(self._profile, workload, better, bounds)
        least_s, share = WORTH_A_PAUSE if is_running else WORTH_A_CONTEXT
        return gain_s < max(least_s, share * present_s)

    def suit(self, sequences: Items[Sequence]) -> None:
        """Make the context anew for this work; nobody may be in the cache."""
        self._n_stream_tokens = self._n_stream_for(sequences)
        longest = (one.n_most_tokens for one in sequences)
        self._n_longest_tokens = max((self._n_longest_tokens, *longest))
        self._layout = self._chosen(_workload(sequences), grows=self._may_outgrow(sequences))
        self.limits = self._limits()
        self._shelf.clear()
        self._prices.clear()
        self.n_computed = 0
        self.context.close()
        self.context = self._made()

    def _n_stream_for(self, sequences: Items[Sequence]) -> int:
        """Give the length of a stream: it only grows, by doubling, up to what was asked for."""
        longest = max((one.n_likely_tokens for one in sequences), default=0)
        length = max(self._n_stream_tokens, LEAST_STREAM_TOKENS)
        while length < longest:
            length *= 2
        return min(length, self._wishes.n_ctx_tokens)

    def _may_outgrow(self, sequences: Items[Sequence]) -> bool:
        """Whether an answer may become longer than a stream, where the layout may be chosen.

        In a unified cache it takes what others leave; in a split one it would have to be computed
        anew, in a context with longer streams, while whoever reads it waits.
        """
        if self.model.memory == "window" or self._wishes.layout != "auto":
            return False
        longest = max((one.n_most_tokens for one in sequences), default=0)
        return longest > self._n_stream_tokens

    def _chosen(self, workload: Workload, *, grows: bool = False) -> Layout:
        bounds = self._bounds(self._n_stream_tokens)
        layout = choose(self._profile, workload, bounds)
        if grows:
            layout = replace(layout, is_unified=True, n_parallel=self._wishes.n_parallel)
        elif self._wishes.layout != "auto":
            layout = replace(layout, is_unified=self._wishes.layout == "unified")
        elif self.model.memory == "window":
            layout = replace(layout, is_unified=False)  # a unified one shares no beginnings
        if not layout.is_unified:
            n_streams = bounds.n_cells // self._n_stream_tokens
            layout = replace(layout, n_parallel=max(1, min(layout.n_parallel, n_streams)))
        return layout

    def _bounds(self, n_stream_tokens: int) -> Bounds:
        wishes = self._wishes
        n_cells = max(n_stream_tokens, min(wishes.n_cells, wishes.n_parallel * n_stream_tokens))
        n_batch = wishes.options.n_batch_tokens
        return Bounds(n_cells, wishes.n_parallel, n_batch, wishes.is_gpu)

    def _limits(self) -> Limits:
        layout, each = self._layout, _padded(self._n_stream_tokens)
        wishes = self._wishes
        n_chats = n_reserved(wishes.n_parallel)
        n_parallel = min(layout.n_parallel, MOST_SEQ_IDS - n_chats)
        if layout.is_unified:
            n_cells = min(wishes.n_cells, (wishes.n_parallel + n_chats) * each)
            n_cells = max(n_cells, each, min(self._n_longest_tokens, wishes.n_ctx_tokens))
            n_cells = _padded(n_cells)
        else:
            n_parallel, n_chats = streams(wishes.n_cells, each, n_parallel)
            n_cells = (n_parallel + n_chats) * each
        is_window = self.model.memory == "window" and not layout.is_unified
        near = max(LEAST_PIECE_TOKENS, turn_tokens(self._profile, NEAR_TURN_S))
        near = min(near, layout.n_batch_tokens)
        limits = Limits(
            n_cells=n_cells,
            n_parallel=n_parallel,
            n_batch_tokens=layout.n_batch_tokens,
            can_share=self.model.memory == "cells" or is_window,
            is_unified=layout.is_unified,
            spares_idle=is_window,
            n_reserved=n_chats,
            near_turn_tokens=near,
            chat_turn_tokens=min(
                near, max(LEAST_PIECE_TOKENS, turn_tokens(self._profile, CHAT_TURN_S))
            ),
            n_shelf_tokens=0 if is_window else wishes.n_shelf_tokens,
        )
        # Each answer's next token and its guesses must find room beside some of a prompt.
        return replace(limits, n_batch_tokens=max(limits.n_batch_tokens, limits.n_rows))

    def _made(self) -> Context:
        limits = self.limits
        options = replace(
            self._wishes.options,
            n_ctx_tokens=limits.n_cells,
            n_batch_tokens=max(self._wishes.options.n_batch_tokens, limits.n_rows),
            n_seq_max=limits.n_seq_ids,
            n_rows_max=limits.n_rows,
            is_unified=limits.is_unified,
        )
        return Context(self.model, options)


def _workload(sequences: Items[Sequence]) -> Workload:
    """Describe what waits: means, and the beginning that all have in common."""
    first, *others = [one.prompt for one in sequences] or [np.empty(0, np.int32)]
    n_shared = min((shared_beginning(first, other) for other in others), default=0)
    n = max(1, len(sequences))
    return Workload(
        n_sequences=n,
        n_prompt_tokens=sum(len(one.prompt) for one in sequences) / n,
        n_answer_tokens=sum(one.n_likely_tokens - len(one.prompt) for one in sequences) / n,
        n_shared_tokens=n_shared,
    )


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // _PAD_TOKENS) * _PAD_TOKENS
