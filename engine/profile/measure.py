"""Measure a model on this device in a few seconds, while it serves no requests.

Runs in the worker's owner thread. The most useful numbers come first, and each is measured only if
it should end in time, so that a large model on a slow machine gets a rough profile rather than a
long wait. Measurements while other programs used the processor are dropped. `Bench` is one context
under measurement: batches of any shape, timed by a `BenchClock` that ends the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.llama.forward_context import ChatModel, EmbeddingModel
from paddock.engine.llama.library import CacheFull, LoadFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.thread_governor import ENOUGH_CPU_SHARE
from paddock.engine.openvino.ir_model import IrEncoder, WorkerModel
from paddock.engine.settings import CacheType, Switch
from paddock.engine.system.records import Struct, replace

from .context_layout import GPU_PASSES
from .profile import Agreement, DecodePoint, Measurements, PrefillPoint


class BenchOptions(Struct, frozen=True):
    n_cells: int
    n_batch_tokens: int
    n_threads: int
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    n_pass_tokens: int = 0
    """Most tokens of a batch that are computed in one pass; 0: all."""
    embeds: bool = False
    is_gpu: bool = False
    uses_extra_buffers: bool = True
    """As `WorkerOptions.uses_extra_buffers`, for models that are loaded for the measurement."""


class MeasuringStopped(Exception):
    """Something else is to be computed; nothing was measured."""


class BenchClock:
    """Time that is left, and the share of the processor that the computation got.

    With `counts_cpu` processor seconds are measured, so that other programs do not affect the
    result. Only for one thread: several wait for each other in a loop. `should_stop` is asked
    before each step.
    """

    def __init__(
        self,
        seconds: float,
        n_threads: int,
        *,
        counts_cpu: bool = False,
        least_share: float = ENOUGH_CPU_SHARE,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.seconds, self.least_share = seconds, least_share
        self._until = time.perf_counter() + seconds
        self._n_threads = n_threads
        self._should_stop = should_stop
        is_fine = time.get_clock_info("process_time").resolution < 1e-4  # Windows has 16 ms
        self._counts_cpu = counts_cpu and is_fine
        self._wall_s = self._cpu_s = 0.0
        self.token_s = 0.0
        """Last measured duration of a prompt's token."""

    @property
    def left_s(self) -> float:
        return self._until - time.perf_counter()

    def time(self, work: Callable[[], object]) -> float:
        self.heed_stop()
        began, began_cpu = time.perf_counter(), time.process_time()
        work()
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        self._cpu_s += cpu_s
        self._wall_s += wall_s
        return cpu_s if self._counts_cpu else wall_s

    def heed_stop(self) -> None:
        if self._should_stop():
            raise MeasuringStopped

    def forget_share(self) -> None:
        """Reset the share: until now pages were read from the disk."""
        self._wall_s = self._cpu_s = 0.0

    @property
    def share(self) -> float:
        return self._cpu_s / self._wall_s / self._n_threads if self._wall_s else 0.0


class Bench:
    def __init__(
        self,
        model: ChatModel[Any],
        shape: BenchOptions,
        clock: BenchClock,
        n_seq: int,
        *,
        is_unified: bool = True,
    ) -> None:
        self._clock = clock
        self.n_batch_tokens = shape.n_batch_tokens
        self._is_gpu = shape.is_gpu
        self._n_vocab = model.n_vocab
        self._lengths = [0] * n_seq
        self.n_seq = n_seq
        self.is_unified = is_unified
        self.n_room = shape.n_cells // (1 if is_unified else n_seq)
        """Most tokens of one sequence."""
        # Not for a whole batch, like the contexts of answers: 2,048 rows can take 1.2 GB.
        n_rows = max(n_seq, MOST_ROWS)
        self.context = model.open_context(
            ContextOptions(
                n_ctx_tokens=shape.n_cells,
                n_batch_tokens=max(shape.n_batch_tokens, n_rows),
                n_seq_max=n_seq,
                n_threads=shape.n_threads,
                n_rows_max=n_rows,
                n_pass_tokens=shape.n_pass_tokens,
                flash_attention=shape.flash_attention,
                kv_cache_type=shape.kv_cache_type,
                is_unified=is_unified,
            )
        )

    def clear(self) -> None:
        self.context.clear()
        self._lengths = [0] * len(self._lengths)

    def drop(self, seq_id: int) -> None:
        self.context.trim(seq_id, 0)
        self._lengths[seq_id] = 0

    def n_tokens(self, seq_id: int) -> int:
        return self._lengths[seq_id]

    def read(self, seq_id: int, n_tokens: int) -> float:
        """Add tokens to a sequence in batches; return the seconds."""
        seconds = 0.0
        n_left = n_tokens
        while n_left:
            n = min(n_left, self.n_batch_tokens)
            seconds += self._decode(np.full(n, seq_id, np.int32), n_outputs=1)
            n_left -= n
        return seconds

    def step(self, n_sequences: int) -> float:
        return self._decode(np.arange(n_sequences, dtype=np.int32), n_outputs=n_sequences)

    def rows(self, n_tokens: int, seq_id: int = 0, *, n_beside: int = 0) -> Logits:
        """Add tokens to a sequence in one batch and return a copy of their logits.

        Shape is (n_tokens, n_vocab). The tokens depend only on their positions. Each of the next
        `n_beside` sequences gets a token in the same batch.
        """
        self._clock.heed_stop()
        others = range(seq_id + 1, seq_id + 1 + n_beside)
        seq_ids = np.array([*[seq_id] * n_tokens, *others], np.int32)
        pos = np.array(
            [*range(self._lengths[seq_id], self._lengths[seq_id] + n_tokens)]
            + [self._lengths[other] for other in others],
            np.int32,
        )
        for batch_seq_id in seq_ids.tolist():
            self._lengths[batch_seq_id] += 1
        tokens = ((7 + 7919 * pos.astype(np.int64)) % self._n_vocab).astype(np.int32)
        output_mask = np.ones(len(pos), np.int8)
        n_rows = self.context.decode(tokens, pos, seq_ids, output_mask)
        return self.context.logits(n_rows)[:n_tokens].copy()

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        self.context.use_threads(1)
        yield
        self.context.use_threads(self.context.options.n_threads)

    def cut(self, seq_id: int, n_tokens: int) -> None:
        self._lengths[seq_id] -= n_tokens
        self.context.trim(seq_id, self._lengths[seq_id])

    def spread(self, n_sequences: int) -> float:
        """Copy the cells of the first sequence to the others; return the seconds for a token.

        A graphics device copies its streams itself, at the next decode; then this returns 0.
        """
        copies_there = self._is_gpu and not self.is_unified
        cells = None if copies_there else self.context.save(0)
        began = time.perf_counter()
        n_copied = 0
        for seq_id in range(1, n_sequences):
            if self._lengths[seq_id]:
                continue
            if cells is None:
                self.context.copy(0, seq_id, -1)
            else:
                self.context.restore(seq_id, cells)
                n_copied += self._lengths[0]
            self._lengths[seq_id] = self._lengths[0]
        return (time.perf_counter() - began) / n_copied if n_copied else 0.0

    def copies(self) -> tuple[float, float]:
        """Return the seconds of a token's copy to main memory or back, and of a stream's copy.

        A graphics device makes the latter at the next decode.
        """
        began = time.perf_counter()
        cells = self.context.save(0)
        self.drop(1)
        self.context.restore(1, cells)
        save_s = (time.perf_counter() - began) / 2 / max(1, self._lengths[0])
        self._lengths[1] = self._lengths[0]
        plain_s = min(self.step(1) for _ in range(_N_STEPS))
        self.drop(1)
        self.spread(2)
        return save_s, max(0.0, self.step(1) - plain_s)

    def cell_bytes(self) -> float:
        return len(self.context.save(0)) / max(1, self._lengths[0])

    def _decode(self, seq_ids: NDArray[np.int32], n_outputs: int) -> float:
        n = len(seq_ids)
        pos = np.empty(n, np.int32)
        for row, seq_id in enumerate(seq_ids.tolist()):
            pos[row] = self._lengths[seq_id]
            self._lengths[seq_id] += 1
        tokens = _different_tokens(n, self._n_vocab)
        output_mask = np.zeros(n, np.int8)
        output_mask[n - n_outputs :] = 1

        def compute() -> None:
            n_rows = self.context.decode(tokens, pos, seq_ids, output_mask)
            self.context.logits(n_rows)  # waits for a device

        return self._clock.time(compute)


class EmbedBench:
    """One context for texts of `EMBED_TEXT` tokens, as many as the largest batch has."""

    def __init__(self, model: EmbeddingModel, shape: BenchOptions, clock: BenchClock) -> None:
        self._clock = clock
        self._n_vocab = model.n_vocab
        self.context = model.open_context(
            ContextOptions(
                n_ctx_tokens=shape.n_cells,
                n_batch_tokens=shape.n_batch_tokens,
                n_seq_max=EMBED_BATCHES[-1] // EMBED_TEXT,
                n_threads=shape.n_threads,
                n_pass_tokens=shape.n_pass_tokens,
                embeds=True,
                flash_attention=shape.flash_attention,
                kv_cache_type=shape.kv_cache_type,
            )
        )

    def embed(self, n_texts: int) -> float:
        n = n_texts * EMBED_TEXT
        tokens, mask = _different_tokens(n, self._n_vocab), np.ones(n, np.int8)
        pos = np.tile(np.arange(EMBED_TEXT, dtype=np.int32), n_texts)
        seq_ids = np.repeat(np.arange(n_texts, dtype=np.int32), EMBED_TEXT)
        self.context.clear()

        def compute() -> None:
            self.context.decode(tokens, pos, seq_ids, mask)
            self.context.embedding(0)

        return self._clock.time(compute)


def _different_tokens(n: int, n_vocab: int) -> Tokens:
    """Return `n` tokens: the same one repeated may be faster in a mixture of experts."""
    return ((7 + 7919 * np.arange(n, dtype=np.int64)) % n_vocab).astype(np.int32)


CPU_SEQUENCES, GPU_SEQUENCES = (1, 4, 8, 16), (1, 4, 8, 16, 32, 64, 128)
# Lengths of the sequences while decoding is measured: a line, and as much of a document as the time
# allows.
SHALLOW_TOKENS, DEEP_TOKENS, GPU_DEEP_TOKENS = 64, (512, 256, 128), (1024, 512, 256)
N_CROWDED = 128
EMBED_BATCHES, EMBED_TEXT = (64, 128, 256, 512), 32
# A draft of a few tokens, and as many as a step may have (`batch.MOST_DRAFTS`).
DRAFTED_ROWS, N_COMPARED = (8, 49), 3
# From 512 cells on, flash attention divides a single token's cells among the threads; from 64
# tokens on, it takes another path for prompts.
AGREED_DEPTH, AGREED_PIECES = 512, (1, 40, 55)
N_BESIDE = 3
# Most rows of one sequence and those beside it that `Bench.rows` is asked for.
MOST_ROWS = max(sum(AGREED_PIECES), *DRAFTED_ROWS) + N_BESIDE
_N_STEPS = 3
_TOO_SHORT = 16
# A long prompt is read a second time if that takes less than this part of the time left.
_WORTH_TWICE = 8
# Cost of reading to a depth in both layouts, and of the steps there, in tokens of a prompt.
_PER_DEPTH = 3.0


class Unmeasured(Exception):
    """The measurement failed; the message is the reason."""


def measure_model(
    model: WorkerModel,
    shape: BenchOptions,
    clock: BenchClock,
    *,
    depths: tuple[int, ...] | None = None,
) -> Measurements:
    """Measure for about the clock's time; nothing else may use the model.

    `depths` are tried in order, in addition to the shallow one; None: the usual ones. What was
    measured before llama.cpp failed is kept.

    Raises:
        Unmeasured: other programs used the processor, the model is too slow for the time, or
            llama.cpp failed at once.
        MeasuringStopped: the clock was asked to stop.
    """
    measured = Measurements()
    try:
        if isinstance(model, IrEncoder) or (isinstance(model, Model) and shape.embeds):
            _measure_embedding(model, shape, clock, measured)
        elif shape.is_gpu:
            deep = GPU_DEEP_TOKENS if depths is None else depths
            _Measurement(model, shape, clock, measured).device(deep)
        else:
            deep = DEEP_TOKENS if depths is None else depths
            _Measurement(model, shape, clock, measured).chat(deep)
    except (CacheFull, LoadFailed) as error:
        if not measured.prefill:
            raise Unmeasured(f"llama.cpp could not do it: {error}") from error
    if not measured.prefill:
        raise Unmeasured(f"{clock.seconds:g} s are too short for this model on this machine")
    _refuse_busy(clock, shape)
    return measured


def _refuse_busy(clock: BenchClock, shape: BenchOptions) -> None:
    if not shape.is_gpu and clock.share < clock.least_share:
        share = f"{clock.share:.0%}"
        raise Unmeasured(
            f"other programs used the processor: the threads got {share} of their time"
        )


def _measure_embedding(
    model: EmbeddingModel, shape: BenchOptions, clock: BenchClock, measured: Measurements
) -> None:
    bench = EmbedBench(model, shape, clock)
    with bench.context:
        bench.embed(1)
        clock.forget_share()
        clock.token_s = bench.embed(1) / EMBED_TEXT
        for size in [n for n in EMBED_BATCHES if n <= shape.n_batch_tokens]:
            if 2 * size * clock.token_s > clock.left_s:
                return
            took_s = min(bench.embed(size // EMBED_TEXT) for _ in range(2))
            clock.token_s = took_s / size
            measured.prefill.append(PrefillPoint(size, size / took_s))


class _Measurement(Struct, frozen=True):
    model: ChatModel[Any]
    shape: BenchOptions
    clock: BenchClock
    measured: Measurements

    # What is measured of each kind of model

    def chat(self, depths: tuple[int, ...]) -> None:
        """Measure a unified cache, then a split one at the same depths.

        Both are measured deep or neither, since half of a comparison could decide wrongly.
        """
        clock, counts = self.clock, self._sequence_counts()
        deep = 0
        began_s = clock.left_s
        with self._bench(is_unified=True) as bench:
            self._warm_up(bench)
            self._reading(bench, SHALLOW_TOKENS)
            if not self.measured.prefill:
                return
            if self.model.memory != "state":
                self.measured.agreement = Agreement(drafts=drafts_keep_answers(bench, clock))
            _refuse_busy(clock, self.shape)  # before more time is wasted
            self._writing(bench, counts)
            self._crowded(bench)
            shallow_s = began_s - clock.left_s
            reserve_s = shallow_s
            if clock.left_s < reserve_s:
                return
            n_room = self.shape.n_cells // bench.n_seq
            fitting = [depth for depth in depths if _longest_at(depth) <= n_room]
            # The first depth for which there is time in every layout; 0 if there is none.
            left_s, token_s = self.clock.left_s - reserve_s, self.clock.token_s
            deep = next((n for n in fitting if _PER_DEPTH * n * token_s <= left_s), 0)
            if deep:
                self._deep(bench, counts, deep, first=deep)
        with self._bench() as bench:
            bench.read(0, SHALLOW_TOKENS)
            self._writing(bench, counts)
            if deep:
                # Reached by other steps than before, so that more batch sizes are measured.
                self._deep(bench, counts, deep, first=deep // 2)
            self._compare(bench)

    def device(self, depths: tuple[int, ...]) -> None:
        """Measure long prompts, then many sequences at a depth, only in a split cache.

        For a unified cache, whose mask the processor fills in one thread, the time is computed
        (`profile.step_s`). Everything is done several times and the quickest counts, since kernels
        are loaded at their first use.
        """
        shape, clock = self.shape, self.clock
        sizes = sorted({min(size, shape.n_batch_tokens) for size in (SHALLOW_TOKENS, *GPU_PASSES)})
        n_cells = min(shape.n_cells, 2 * sizes[-1])
        with replace(self, shape=replace(shape, n_cells=n_cells))._bench(n_seq=1) as bench:
            self._warm_up(bench)
            for size in sizes:
                bench.clear()
                bench.read(0, min(size, n_cells))
                bench.clear()
                self._reading(bench, min(size, n_cells))
            bench.clear()
            bench.read(0, SHALLOW_TOKENS)
            self._writing(bench, (1,))
        for depth in (SHALLOW_TOKENS, *depths[:1]):
            counts = self._sequence_counts(depth)
            if counts == GPU_SEQUENCES[:1] or 2 * depth * clock.token_s > clock.left_s:
                return
            with self._bench(n_seq=counts[-1]) as bench:
                bench.read(0, depth)
                self._writing(bench, counts)
                bench.copies()  # buffers and kernels are made at the first use
                self.measured.save_s, self.measured.stream_s = bench.copies()
                if depth != SHALLOW_TOKENS:
                    self._compare(bench)

    # Parts of it

    @contextmanager
    def _bench(self, *, is_unified: bool = False, n_seq: int = 0) -> Iterator[Bench]:
        n_seq = n_seq or self._sequence_counts()[-1]
        bench = Bench(self.model, self.shape, self.clock, n_seq, is_unified=is_unified)
        with bench.context:
            yield bench

    def _sequence_counts(self, depth: int = SHALLOW_TOKENS) -> tuple[int, ...]:
        counts = GPU_SEQUENCES if self.shape.is_gpu else CPU_SEQUENCES
        return (
            tuple(n for n in counts if n * _longest_at(depth) <= self.shape.n_cells) or counts[:1]
        )

    def _warm_up(self, bench: Bench) -> None:
        """Read the file's pages, and measure a token; in a batch it takes half as long."""
        bench.read(0, 1)
        again_s = bench.read(0, 1)
        self.clock.token_s = self.clock.token_s or again_s / 2
        bench.clear()
        self.clock.forget_share()

    def _deep(self, bench: Bench, counts: tuple[int, ...], depth: int, *, first: int) -> None:
        bench.clear()
        self._reading(bench, first)
        bench.read(0, max(0, depth - bench.n_tokens(0)))
        self._writing(bench, counts)

    def _compare(self, bench: Bench) -> None:
        if self.model.memory == "state":
            return
        clock, n_tokens = self.clock, AGREED_DEPTH
        while n_tokens + DRAFTED_ROWS[-1] > bench.n_room or n_tokens * clock.token_s > clock.left_s:
            n_tokens //= 2
            if n_tokens < _TOO_SHORT:
                return
        bench.clear()
        bench.read(0, n_tokens)
        drafts = drafts_keep_answers(bench, clock) and self.measured.agreement.drafts is not False
        self.measured.agreement = Agreement(company_keeps_answers(bench, clock), drafts)

    def _reading(self, bench: Bench, n_tokens: int) -> None:
        """Read a prompt into the empty first sequence, a shorter one if time is short."""
        clock, points = self.clock, self.measured.prefill
        n_tokens = min(n_tokens, bench.n_batch_tokens)
        while n_tokens * clock.token_s > clock.left_s:
            n_tokens //= 2
            if n_tokens < _TOO_SHORT:
                return
        seconds = bench.read(0, n_tokens)
        if seconds < clock.left_s / (2 if n_tokens <= SHALLOW_TOKENS else _WORTH_TWICE):
            # All estimates depend on it, so the quicker of two counts.
            bench.clear()
            seconds = min(seconds, bench.read(0, n_tokens))
        clock.token_s = seconds / n_tokens
        if all(point.n_batch_tokens != n_tokens or point.n_cells_before for point in points):
            points.append(PrefillPoint(n_tokens, n_tokens / seconds))

    def _writing(self, bench: Bench, counts: tuple[int, ...]) -> None:
        clock, measured = self.clock, self.measured
        measured.cell_bytes = measured.cell_bytes or bench.cell_bytes()
        is_first, depth = not measured.decode, bench.n_tokens(0)
        took_s = clock.token_s
        for n in counts:
            copy_s = bench.spread(n)
            if copy_s and not bench.is_unified:
                measured.copy_s = copy_s
            if is_first and 2 * _n_times(clock) * took_s > clock.left_s:
                return  # there is no time for a comparison either
            # The quickest counts: disturbances only make a step longer.
            took_s = min(bench.step(n) for _ in range(_n_times(clock)))
            measured.decode.append(DecodePoint(n, depth, bench.is_unified, n / took_s))

    def _crowded(self, bench: Bench) -> None:
        if N_CROWDED * self.clock.token_s > self.clock.left_s:
            return
        bench.drop(bench.n_seq - 1)
        n_before = sum(bench.n_tokens(seq_id) for seq_id in range(bench.n_seq))
        n_tokens = min(N_CROWDED, bench.n_batch_tokens)
        speed = n_tokens / bench.read(bench.n_seq - 1, n_tokens)
        self.measured.prefill.append(PrefillPoint(n_tokens, speed, n_before))


def _longest_at(depth: int) -> int:
    return depth + len(GPU_SEQUENCES) * _N_STEPS + N_CROWDED


def _n_times(clock: BenchClock) -> int:
    return _N_STEPS if clock.left_s > 0 else 1


def company_keeps_answers(bench: Bench, clock: BenchClock) -> bool | None:
    """Return whether a token's logits are the same alone and in company; None if time is short.

    Compared: alone, by one thread, with other sequences, and after a prompt in pieces. The first
    piece has one token, like pieces in a split cache that go into the pass of a step.
    """
    alone = bench.rows(1)
    bench.cut(0, 1)
    with bench.one_thread():
        by_one_thread = bench.rows(1)
    bench.cut(0, 1)
    n_beside = min(N_BESIDE, bench.n_seq - 1)
    in_company = bench.rows(1, n_beside=n_beside)
    if not (np.array_equal(alone, by_one_thread) and np.array_equal(alone, in_company)):
        return False
    n_tokens = sum(AGREED_PIECES)
    if 2 * n_tokens * clock.token_s > clock.left_s or n_tokens > bench.n_room:
        return None
    bench.clear()
    whole = bench.rows(n_tokens)
    bench.clear()
    pieces = [bench.rows(n) for n in AGREED_PIECES]
    return np.array_equal(whole[-1], pieces[-1][-1])


def drafts_keep_answers(bench: Bench, clock: BenchClock) -> bool:
    """Return whether tokens in batches of drafts get the same logits as one at a time.

    Kernels may differ by the number of rows: Intel's AMX path multiplies several rows at once in
    another order than a single one.
    """
    singly = [bench.rows(1) for _ in range(N_COMPARED)]
    bench.cut(0, N_COMPARED)
    for n_rows in DRAFTED_ROWS:
        if n_rows * clock.token_s > clock.left_s and n_rows > DRAFTED_ROWS[0]:
            break  # a slow machine: the smallest batch has to do
        together = bench.rows(n_rows)[:N_COMPARED]
        bench.cut(0, n_rows)
        if not np.array_equal(np.concatenate(singly), together):
            return False
    return True
