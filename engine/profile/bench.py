"""One context under measurement: batches of any shape, timed, and a clock that ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits
from paddock.engine.native import state
from paddock.engine.native.context import Context, ContextOptions
from paddock.engine.native.model import Model
from paddock.engine.settings import CacheType, Switch


@dataclass(frozen=True, slots=True)
class Shape:
    """What the contexts to be measured are like."""

    n_cells: int
    n_batch_tokens: int
    n_threads: int
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    embeds: bool = False
    is_gpu: bool = False
    """Whether the layers are on a graphics device."""
    uses_extra_buffers: bool = True
    """Of the processor, for models that are loaded for the measurement."""

    @property
    def is_flash(self) -> bool:
        """Whether flash attention is on, or left to llama.cpp."""
        return self.flash_attention != "off"


class Clock:
    """Time that is left, and what share of the processor the computing got.

    With `counts_cpu` the processor's seconds are measured, so that other programs take nothing
    from the measurement. It is meant for one thread: several wait for each other in a loop.
    """

    def __init__(self, seconds: float, n_threads: int, *, counts_cpu: bool = False) -> None:
        self._until = time.perf_counter() + seconds
        self._n_threads = n_threads
        is_fine = time.get_clock_info("process_time").resolution < 1e-4  # Windows has 16 ms
        self._counts_cpu = counts_cpu and is_fine
        self._wall_s = self._cpu_s = 0.0
        self.token_s = 0.0
        """What a token of a prompt takes, as far as is known."""

    @property
    def left_s(self) -> float:
        """Until the time is up; below zero after it."""
        return self._until - time.perf_counter()

    def time(self, work: Callable[[], object]) -> float:
        """Do some computing; gives its seconds."""
        began, began_cpu = time.perf_counter(), time.process_time()
        work()
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        self._cpu_s += cpu_s
        self._wall_s += wall_s
        return cpu_s if self._counts_cpu else wall_s

    def forget_share(self) -> None:
        """Judge the share anew: until now pages came from the disk."""
        self._wall_s = self._cpu_s = 0.0

    @property
    def share(self) -> float:
        """Of the processors that the threads could have used, what they got."""
        return self._cpu_s / self._wall_s / self._n_threads if self._wall_s else 0.0


class Bench:
    """One context under measurement."""

    def __init__(
        self, model: Model, shape: Shape, clock: Clock, n_seq: int, *, is_unified: bool = True
    ) -> None:
        self._clock = clock
        self.n_batch_tokens = shape.n_batch_tokens
        self.is_flash = shape.is_flash
        self._is_gpu = shape.is_gpu
        self._n_vocab = model.n_vocab
        self._text: NDArray[np.int32] | None = None
        self._lengths = [0] * n_seq
        self.n_seq = n_seq
        self.is_unified = is_unified
        self.n_room = shape.n_cells // (1 if is_unified else n_seq)
        """Tokens that one sequence may have."""
        self.context = Context(
            model,
            ContextOptions(
                n_ctx_tokens=shape.n_cells,
                n_batch_tokens=shape.n_batch_tokens,
                n_seq_max=n_seq,
                n_threads=shape.n_threads,
                embeds=shape.embeds,
                flash_attention=shape.flash_attention,
                kv_cache_type=shape.kv_cache_type,
                is_unified=is_unified,
            ),
        )

    def use_text(self, tokens: NDArray[np.int32]) -> None:
        """Take each position's token from a text, which is repeated where it is too short."""
        self._text = tokens

    def clear(self) -> None:
        """Empty every sequence."""
        self.context.clear()
        self._lengths = [0] * len(self._lengths)

    def drop(self, seq_id: int) -> None:
        """Empty one sequence."""
        self.context.trim(seq_id, 0)
        self._lengths[seq_id] = 0

    def n_tokens(self, seq_id: int) -> int:
        """Return how long a sequence is."""
        return self._lengths[seq_id]

    def read(self, seq_id: int, n_tokens: int) -> float:
        """Add tokens to a sequence in batches; gives the seconds."""
        seconds, n_left = 0.0, n_tokens
        while n_left:
            n = min(n_left, self.n_batch_tokens)
            seconds += self._decode(np.full(n, seq_id, np.int32), n_wanted=1)
            n_left -= n
        return seconds

    def step(self, n_sequences: int) -> float:
        """Add a token to each of the first sequences; gives the seconds."""
        return self._decode(np.arange(n_sequences, dtype=np.int32), n_wanted=n_sequences)

    def rows(self, n_tokens: int, seq_id: int = 0, *, n_beside: int = 0) -> Logits:
        """Add tokens to a sequence in one batch and return a copy of their logits.

        Shape is (n_tokens, n_vocab). The tokens depend on their positions alone. `n_beside`
        sequences after it are given a token each in the same batch.
        """
        others = range(seq_id + 1, seq_id + 1 + n_beside)
        seq_ids = np.array([*[seq_id] * n_tokens, *others], np.int32)
        pos = np.array(
            [*range(self._lengths[seq_id], self._lengths[seq_id] + n_tokens)]
            + [self._lengths[one] for one in others],
            np.int32,
        )
        for one in seq_ids.tolist():
            self._lengths[one] += 1
        tokens = ((7 + 7919 * pos.astype(np.int64)) % self._n_vocab).astype(np.int32)
        wanted = np.ones(len(pos), np.int8)
        n_rows = self.context.decode(tokens, pos, seq_ids, wanted)
        return self.context.logits(n_rows)[:n_tokens].copy()

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Compute with one thread, as the governor makes it do on a busy machine."""
        self.context.use_threads(1)
        yield
        self.context.use_threads(self.context.options.n_threads)

    def cut(self, seq_id: int, n_tokens: int) -> None:
        """Take back a sequence's last tokens."""
        self._lengths[seq_id] -= n_tokens
        self.context.trim(seq_id, self._lengths[seq_id])

    def embed(self, n_texts: int, n_tokens_each: int) -> float:
        """Compute vectors of texts in one batch; gives the seconds."""
        self.clear()
        return self._decode(np.repeat(np.arange(n_texts, dtype=np.int32), n_tokens_each), 0)

    def spread(self, n_sequences: int) -> float:
        """Copy the cells of the first sequence to the others; return seconds for a token.

        Where streams are on a graphics device, it copies them itself, at the next decode.
        """
        if self._is_gpu and not self.is_unified:
            return self._spread_there(n_sequences)
        cells = state.taken(self.context, 0)
        began = time.perf_counter()
        n_copied = 0
        for seq_id in range(1, n_sequences):
            if not self._lengths[seq_id]:
                state.given(self.context, seq_id, cells)
                self._lengths[seq_id] = self._lengths[0]
                n_copied += self._lengths[0]
        return (time.perf_counter() - began) / max(1, n_copied)

    def _spread_there(self, n_sequences: int) -> float:
        for seq_id in range(1, n_sequences):
            if not self._lengths[seq_id]:
                self.context.copy(0, seq_id, -1)
                self._lengths[seq_id] = self._lengths[0]
        return 0.0

    def cell_bytes(self) -> float:
        """Tell what a token takes in the cache, from the first sequence's."""
        return len(state.taken(self.context, 0)) / max(1, self._lengths[0])

    def _decode(self, seq_ids: NDArray[np.int32], n_wanted: int) -> float:
        n = len(seq_ids)
        pos = np.empty(n, np.int32)
        for row, seq_id in enumerate(seq_ids.tolist()):
            pos[row] = self._lengths[seq_id]
            self._lengths[seq_id] += 1
        # Any tokens take as long as any others; the same one again and again may not, in a
        # mixture of experts.
        tokens = (7 + 7919 * np.arange(n, dtype=np.int64)) % self._n_vocab
        if self._text is not None:
            tokens = self._text[pos % len(self._text)].astype(np.int64)
        # An embedding is made of every token.
        wanted = np.full(n, n_wanted == 0, np.int8)
        wanted[n - n_wanted :] = 1

        def compute() -> None:
            n_rows = self.context.decode(tokens.astype(np.int32), pos, seq_ids, wanted)
            if n_wanted:
                self.context.logits(n_rows)  # waits for a device
            else:
                self.context.embedding(0)

        return self._clock.time(compute)
