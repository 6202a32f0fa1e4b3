"""Measure a model on this device, in a few seconds, before anything else computes.

Runs in the worker's owner thread. The most useful numbers come first, and each is measured only if
it is expected to end in time, so that a large model on a slow machine gets a rough profile rather
than a long wait. What was measured while others used the processor is not kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from paddock.engine.gguf import read_header
from paddock.engine.native.faults import CacheFull, LoadFailed
from paddock.engine.native.model import Model
from paddock.engine.native.threads import ENOUGH_SHARE

from . import formats, trial
from .bench import Bench, Clock, Shape
from .choice import GPU_PASSES
from .profile import Agreement, DecodePoint, FormatPoint, PrefillPoint, Weights

CPU_SEQUENCES, GPU_SEQUENCES = (1, 4, 8, 16), (1, 4, 8, 16, 32, 64, 128)
# Without flash attention; between them and beyond, steps lie on a line.
PLAIN_SEQUENCES = (1, 8)
# What each sequence holds while decoding is measured: a line, and as much of a document as the
# time allows.
SHALLOW, DEEP, GPU_DEEP = 64, (512, 256, 128), (1024, 512, 256)
N_CROWDED = 128
EMBED_BATCHES, EMBED_TEXT = (64, 128, 256, 512), 32
# A draft of a few tokens, and as many as a step may hold of them (`turn.MOST_DRAFTS`).
DRAFTED_ROWS, N_COMPARED = (8, 49), 3
# From 512 cells on, flash attention divides a single token's cells among the threads; from 64
# tokens on, it takes another path for prompts.
AGREED_DEPTH, AGREED_PIECES = 512, (1, 40, 55)
# So much of the time is kept for the formats of other copies: some 0.1 s each.
_FORMATS_S = 0.8
_N_STEPS = 3
_TOO_SHORT = 16
# Reading to a depth in three layouts, and the steps there, in tokens of a prompt.
_PER_DEPTH = 4.0


class Unmeasured(Exception):
    """No profile came of it; the reason, in plain words."""


@dataclass(slots=True)
class Measured:
    """What came of it; the fields are those of `Profile`."""

    cell_bytes: float = 0.0
    prefill: list[PrefillPoint] = field(default_factory=list)
    decode: list[DecodePoint] = field(default_factory=list)
    copy_s: float | None = None
    formats: list[FormatPoint] = field(default_factory=list)
    weights: tuple[Weights, ...] = ()
    agreements: list[Agreement] = field(default_factory=list)


def measure(
    model: Model,
    path: Path,
    shape: Shape,
    seconds: float,
    *,
    depths: tuple[int, ...] | None = None,
    least_share: float = ENOUGH_SHARE,
) -> Measured:
    """Measure within about so many seconds; the model must be at rest.

    `depths` are tried in their order, beside the shallow one; None: the usual ones.

    Raises:
        Unmeasured: others used the processor, or the model is too slow for the time.
    """
    clock = Clock(seconds, shape.n_threads)
    measured = Measured(weights=formats.census(read_header(path)))
    try:
        if shape.embeds:
            _measure_embedding(model, shape, clock, measured)
        elif shape.is_gpu:
            _measure_device(model, shape, clock, measured, GPU_DEEP if depths is None else depths)
        else:
            depths = DEEP if depths is None else depths
            _measure_chat(model, shape, clock, measured, depths, least_share)
            _measure_formats(shape, clock, measured)
    except (CacheFull, LoadFailed) as error:
        raise Unmeasured(f"llama.cpp could not do it: {error}") from error
    if not measured.prefill:
        raise Unmeasured(f"{seconds:g} s are too short for this model on this machine")
    _refuse_busy(shape, clock, least_share)
    return measured


def _refuse_busy(shape: Shape, clock: Clock, least_share: float) -> None:
    if not shape.is_gpu and clock.share < least_share:
        raise Unmeasured(
            f"other programs used the processor: {clock.share:.0%} of the threads' time was had"
        )


def _measure_chat(
    model: Model,
    shape: Shape,
    clock: Clock,
    measured: Measured,
    depths: tuple[int, ...],
    least_share: float,
) -> None:
    """Measure a unified cache, then a split one at the same depths, or neither of the deep ones.

    Half of a comparison would decide for the wrong side. The split one is measured again without
    flash attention, where there is a choice.
    """
    deep = 0
    began_s = clock.left_s
    with _bench(model, shape, clock, is_unified=True) as bench:
        _warm_up(bench, clock)
        _measure_reading(bench, clock, measured, SHALLOW)
        if not measured.prefill:
            return
        _refuse_busy(shape, clock, least_share)  # before more time is spent in vain
        if model.memory != "state":
            drafts = drafts_keep_answers(bench, clock)
            measured.agreements.append(Agreement(shape.is_flash, drafts=drafts))
        _measure_writing(bench, _counts(shape), clock, measured)
        _measure_crowded(bench, clock, measured)
        shallow_s = began_s - clock.left_s
        reserve_s = shallow_s + _FORMATS_S
        if clock.left_s < reserve_s:
            return
        if shape.flash_attention == "auto" and shape.kv_cache_type == "f16":
            reserve_s += shallow_s / 2 + AGREED_DEPTH * clock.token_s
        n_room = shape.n_cells // bench.n_seq
        fitting = [depth for depth in depths if _most(depth) <= n_room]
        deep = _depth_that_fits(clock, reserve_s, fitting)
        if deep:
            _measure_deep(bench, _counts(shape), clock, measured, deep, first=deep)
    with _bench(model, shape, clock, is_unified=False) as bench:
        bench.read(0, SHALLOW)
        _measure_writing(bench, _counts(shape), clock, measured)
        if deep:
            # Reached in other steps than before, so that more sizes of batches are known.
            _measure_deep(bench, _counts(shape), clock, measured, deep, first=deep // 2)
        _compare(bench, model, clock, measured)
    if deep and shape.flash_attention == "auto" and shape.kv_cache_type == "f16":
        _measure_plain(model, shape, clock, measured, deep)


def _measure_plain(
    model: Model, shape: Shape, clock: Clock, measured: Measured, depth: int
) -> None:
    """Measure a prompt and decoding without flash attention, or nothing where time is too short."""
    if 2 * (SHALLOW + depth) * clock.token_s > clock.left_s:
        return
    plain, counts = Measured(cell_bytes=measured.cell_bytes), _counts(shape)
    counts = tuple(n for n in PLAIN_SEQUENCES if n <= counts[-1])
    shape = replace(shape, flash_attention="off")
    with _bench(model, shape, clock, is_unified=False) as bench:
        _measure_reading(bench, clock, plain, SHALLOW)
        _measure_writing(bench, counts, clock, plain)
        if not plain.decode:
            return
        _measure_deep(bench, counts, clock, plain, depth, first=depth)
        _compare(bench, model, clock, plain)
    measured.prefill += plain.prefill
    measured.decode += plain.decode
    measured.agreements += plain.agreements


def _measure_device(
    model: Model, shape: Shape, clock: Clock, measured: Measured, depths: tuple[int, ...]
) -> None:
    """Measure long prompts, then many sequences at a depth, in a split cache alone.

    In a unified one the processor makes each step's mask in one thread, for all sequences and
    cells: that is computed (`profile.step_s`). Everything is done several times and the quickest
    counts, since kernels are loaded at their first use.
    """
    sizes = sorted({min(size, shape.n_batch_tokens) for size in (SHALLOW, *GPU_PASSES)})
    n_cells = min(shape.n_cells, 2 * sizes[-1])
    with _bench(model, replace(shape, n_cells=n_cells), clock, n_seq=1) as bench:
        _warm_up(bench, clock)
        for size in sizes:
            bench.clear()
            bench.read(0, min(size, n_cells))
            bench.clear()
            _measure_reading(bench, clock, measured, min(size, n_cells))
        bench.clear()
        bench.read(0, SHALLOW)
        _measure_writing(bench, (1,), clock, measured)
    for depth in (SHALLOW, *depths[:1]):
        counts = _counts(shape, depth)
        if counts == GPU_SEQUENCES[:1] or 2 * depth * clock.token_s > clock.left_s:
            return
        with _bench(model, shape, clock, n_seq=counts[-1]) as bench:
            bench.read(0, depth)
            _measure_writing(bench, counts, clock, measured)
            if depth != SHALLOW:
                _compare(bench, model, clock, measured)


@contextmanager
def _bench(
    model: Model, shape: Shape, clock: Clock, *, is_unified: bool = False, n_seq: int = 0
) -> Iterator[Bench]:
    bench = Bench(model, shape, clock, n_seq or _counts(shape)[-1], is_unified=is_unified)
    with bench.context:
        yield bench


def _counts(shape: Shape, depth: int = SHALLOW) -> tuple[int, ...]:
    """Return the numbers of sequences that fit, in streams of their own too."""
    counts = GPU_SEQUENCES if shape.is_gpu else CPU_SEQUENCES
    return tuple(n for n in counts if n * _most(depth) <= shape.n_cells) or counts[:1]


def _most(depth: int) -> int:
    """Return how long a sequence gets that is measured at a depth."""
    return depth + len(GPU_SEQUENCES) * _N_STEPS + N_CROWDED


def _measure_deep(
    bench: Bench,
    counts: tuple[int, ...],
    clock: Clock,
    measured: Measured,
    depth: int,
    *,
    first: int,
) -> None:
    bench.clear()
    _measure_reading(bench, clock, measured, first)
    bench.read(0, max(0, depth - bench.n_tokens(0)))
    _measure_writing(bench, counts, clock, measured)


def _warm_up(bench: Bench, clock: Clock) -> None:
    """Bring the file's pages in, and learn what a token takes; one of many takes half as long."""
    bench.read(0, 1)
    again_s = bench.read(0, 1)
    clock.token_s = clock.token_s or again_s / 2
    bench.clear()
    clock.forget_share()


def _compare(bench: Bench, model: Model, clock: Clock, measured: Measured) -> None:
    """Note whether tokens get the same logits however they are computed, if there is time."""
    if model.memory == "state":
        return
    n_tokens = AGREED_DEPTH if bench.is_flash else SHALLOW
    while n_tokens + DRAFTED_ROWS[-1] > bench.n_room or n_tokens * clock.token_s > clock.left_s:
        n_tokens //= 2
        if n_tokens < _TOO_SHORT:
            return
    bench.clear()
    bench.read(0, n_tokens)
    known = [one for one in measured.agreements if one.is_flash == bench.is_flash]
    drafts = drafts_keep_answers(bench, clock) and all(one.drafts for one in known)
    company = company_keeps_answers(bench, clock)
    others = [one for one in measured.agreements if one not in known]
    measured.agreements = [*others, Agreement(bench.is_flash, company, drafts)]


def company_keeps_answers(bench: Bench, clock: Clock) -> bool | None:
    """Return whether a token's logits are the same alone and in company; None: no time for it.

    Alone, by one thread, with other sequences, and after a prompt that was read in pieces. The
    first piece has one token, as those have in a split cache that go into the pass of a step.
    """
    alone = bench.rows(1)
    bench.cut(0, 1)
    with bench.one_thread():
        by_one_thread = bench.rows(1)
    bench.cut(0, 1)
    n_beside = min(3, bench.n_seq - 1)
    beside = bench.rows(1, n_beside=n_beside)
    if not (np.array_equal(alone, by_one_thread) and np.array_equal(alone, beside)):
        return False
    n_tokens = sum(AGREED_PIECES)
    if 2 * n_tokens * clock.token_s > clock.left_s or n_tokens > bench.n_room:
        return None
    bench.clear()
    whole = bench.rows(n_tokens)
    bench.clear()
    pieces = [bench.rows(n) for n in AGREED_PIECES]
    return np.array_equal(whole[-1], pieces[-1][-1])


def drafts_keep_answers(bench: Bench, clock: Clock) -> bool:
    """Return whether batches of the sizes that drafts make give each token its own logits.

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


def _depth_that_fits(clock: Clock, needed_s: float, depths: Sequence[int]) -> int:
    """Return the depth to which every layout can be brought in the time that is left."""
    left_s = clock.left_s - needed_s
    return next((n for n in depths if _PER_DEPTH * n * clock.token_s <= left_s), 0)


def _measure_reading(bench: Bench, clock: Clock, measured: Measured, n_tokens: int) -> None:
    """Read a prompt into the empty first sequence, or a shorter one where time is too short."""
    n_tokens = min(n_tokens, bench.n_batch_tokens)
    while n_tokens * clock.token_s > clock.left_s:
        n_tokens //= 2
        if n_tokens < _TOO_SHORT:
            return
    seconds = bench.read(0, n_tokens)
    if n_tokens <= SHALLOW and seconds < clock.left_s / 2:
        # So short that it is easily disturbed, and all estimates begin with it.
        bench.clear()
        seconds = min(seconds, bench.read(0, n_tokens))
    clock.token_s = seconds / n_tokens
    if all(one.n_batch_tokens != n_tokens or one.n_cells_before for one in measured.prefill):
        measured.prefill.append(PrefillPoint(n_tokens, n_tokens / seconds, is_flash=bench.is_flash))


def _measure_writing(
    bench: Bench, counts: tuple[int, ...], clock: Clock, measured: Measured
) -> None:
    """Let one, four, … sequences grow, each in cells of its own."""
    measured.cell_bytes = measured.cell_bytes or bench.cell_bytes()
    is_first, depth = not measured.decode, bench.n_tokens(0)
    took_s = clock.token_s
    for n in counts:
        copy_s = bench.spread(n)
        if copy_s and not bench.is_unified:
            measured.copy_s = copy_s
        if is_first and 2 * _n_times(clock) * took_s > clock.left_s:
            return  # then there is no time for a comparison either
        # The quickest: whatever comes between makes a step longer, never shorter.
        took_s = min(bench.step(n) for _ in range(_n_times(clock)))
        measured.decode.append(DecodePoint(n, depth, bench.is_unified, n / took_s, bench.is_flash))


def _n_times(clock: Clock) -> int:
    return _N_STEPS if clock.left_s > 0 else 1


def _measure_crowded(bench: Bench, clock: Clock, measured: Measured) -> None:
    """Read a prompt beside the sequences that are there, in place of the last one."""
    if N_CROWDED * clock.token_s > clock.left_s:
        return
    bench.drop(bench.n_seq - 1)
    n_before = sum(bench.n_tokens(seq_id) for seq_id in range(bench.n_seq))
    n_tokens = min(N_CROWDED, bench.n_batch_tokens)
    seconds = bench.read(bench.n_seq - 1, n_tokens)
    measured.prefill.append(PrefillPoint(n_tokens, n_tokens / seconds, n_before, bench.is_flash))


def _measure_embedding(model: Model, shape: Shape, clock: Clock, measured: Measured) -> None:
    """Measure batches packed with short texts."""
    sizes = [n for n in EMBED_BATCHES if n <= shape.n_batch_tokens]
    bench = Bench(model, shape, clock, EMBED_BATCHES[-1] // EMBED_TEXT)
    with bench.context:
        bench.embed(1, EMBED_TEXT)
        clock.forget_share()
        clock.token_s = bench.embed(1, EMBED_TEXT) / EMBED_TEXT
        for size in sizes:
            if 2 * size * clock.token_s > clock.left_s:
                return
            took_s = min(bench.embed(size // EMBED_TEXT, EMBED_TEXT) for _ in range(2))
            clock.token_s = took_s / size
            measured.prefill.append(PrefillPoint(size, size / took_s))


def _measure_formats(shape: Shape, clock: Clock, measured: Measured) -> None:
    """Measure the model's own formats and the near-lossless one, on trial models."""
    names = [name for name in formats.wanted(measured.weights) if trial.can_write(name)]
    with tempfile.TemporaryDirectory(prefix="paddock-trial-") as folder:
        for name in names:
            path = Path(folder) / f"{name}.gguf"
            trial.write(path, name)
            measured.formats += format_points(path, name, shape, clock)


def format_points(path: Path, name: str, like: Shape, clock: Clock) -> tuple[FormatPoint, ...]:
    """Measure one trial model, on the processor, with the threads and kernels of `like`."""
    most = formats.ROWS[-1]
    model = Model(path, n_gpu_layers=0, uses_extra_buffers=like.uses_extra_buffers)
    try:
        shape = Shape(trial.N_CTX_TOKENS, most, like.n_threads, like.flash_attention)
        bench = Bench(model, shape, clock, 1)
        with bench.context:
            took = {}
            for n_rows in formats.ROWS:
                bench.clear()
                took[n_rows] = min(_timed_rows(bench, n_rows) for _ in range(_n_times(clock)))
        return formats.points_of(name, took, trial.N_WEIGHTS)
    finally:
        model.close()


def _timed_rows(bench: Bench, n_rows: int) -> float:
    bench.clear()
    return bench.read(0, n_rows)
