"""Measure a model on this device, in a few seconds, before anything else computes.

Runs in the worker's owner thread. The most useful numbers come first, and each is measured only if
it is expected to end in time, so that a large model on a slow machine gets a rough profile rather
than a long wait. What was measured while others used the processor is not kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddock.engine.gguf import read_header
from paddock.engine.native.faults import CacheFull, LoadFailed
from paddock.engine.native.model import Model
from paddock.engine.native.threads import ENOUGH_SHARE

from . import formats, trial
from .bench import Bench, Clock, Shape
from .profile import DecodePoint, FormatPoint, PrefillPoint, Weights

CPU_SEQUENCES, GPU_SEQUENCES = (1, 4, 8, 16), (1, 4, 8, 16, 32, 64)
# What each sequence holds while decoding is measured: a line, and as much of a document as the
# time allows.
SHALLOW, DEEP = 64, (512, 256, 128)
N_CROWDED = 128
EMBED_BATCHES, EMBED_TEXT = (64, 128, 256, 512), 32
# A draft of a few tokens, and as many as a step may hold of them (`turn.MOST_DRAFTS`).
DRAFTED_ROWS, N_COMPARED = (8, 49), 3
# So much of the time is kept for the formats of other copies: some 0.1 s each.
_FORMATS_S = 0.8
_N_STEPS = 3
_TOO_SHORT = 16


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
    drafts_keep_answers: bool | None = None


def measure(
    model: Model,
    path: Path,
    shape: Shape,
    seconds: float,
    *,
    depths: tuple[int, ...] = DEEP,
    least_share: float = ENOUGH_SHARE,
) -> Measured:
    """Measure within about so many seconds; the model must be at rest.

    `depths` are tried in their order, beside the shallow one.

    Raises:
        Unmeasured: others used the processor, or the model is too slow for the time.
    """
    clock = Clock(seconds, shape.n_threads)
    measured = Measured(weights=formats.census(read_header(path)))
    try:
        if shape.embeds:
            _measure_embedding(model, shape, clock, measured)
        else:
            _measure_chat(model, shape, clock, measured, depths, least_share)
            if not shape.is_gpu:
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

    Half of a comparison would decide for the wrong side.
    """
    began_s = clock.left_s
    with _bench(model, shape, clock, is_unified=True) as bench:
        _warm_up(bench, clock)
        _measure_reading(bench, clock, measured, SHALLOW)
        if not measured.prefill:
            return
        _refuse_busy(shape, clock, least_share)  # before more time is spent in vain
        if model.memory != "state":
            measured.drafts_keep_answers = drafts_keep_answers(bench, clock)
        _measure_writing(bench, shape, clock, measured)
        _measure_crowded(bench, clock, measured)
        shallow_s = began_s - clock.left_s
        if clock.left_s < shallow_s + _reserve_s(shape):
            return
        n_room = shape.n_cells // bench.n_seq
        fitting = [depth for depth in depths if _most(depth) <= n_room]
        deep = _depth_that_fits(clock, shallow_s + _reserve_s(shape), fitting)
        if deep:
            _measure_deep(bench, shape, clock, measured, deep, first=deep)
    with _bench(model, shape, clock, is_unified=False) as bench:
        bench.read(0, SHALLOW)
        _measure_writing(bench, shape, clock, measured)
        if deep:
            # Reached in other steps than before, so that more sizes of batches are known.
            _measure_deep(bench, shape, clock, measured, deep, first=deep // 2)


@contextmanager
def _bench(model: Model, shape: Shape, clock: Clock, *, is_unified: bool) -> Iterator[Bench]:
    bench = Bench(model, shape, clock, _counts(shape)[-1], is_unified=is_unified)
    with bench.context:
        yield bench


def _counts(shape: Shape) -> tuple[int, ...]:
    """Give the numbers of sequences that fit, in streams of their own too."""
    counts = GPU_SEQUENCES if shape.is_gpu else CPU_SEQUENCES
    return tuple(n for n in counts if n * _most(SHALLOW) <= shape.n_cells) or counts[:1]


def _most(depth: int) -> int:
    """Tell how long a sequence gets that is measured at a depth."""
    return depth + len(GPU_SEQUENCES) * _N_STEPS + N_CROWDED


def _reserve_s(shape: Shape) -> float:
    return 0.0 if shape.is_gpu else _FORMATS_S


def _measure_deep(
    bench: Bench, shape: Shape, clock: Clock, measured: Measured, depth: int, *, first: int
) -> None:
    bench.clear()
    _measure_reading(bench, clock, measured, first)
    bench.read(0, max(0, depth - bench.n_tokens(0)))
    _measure_writing(bench, shape, clock, measured)


def _warm_up(bench: Bench, clock: Clock) -> None:
    """Bring the file's pages in, and learn what a token takes; one of many takes half as long."""
    bench.read(0, 1)
    again_s = bench.read(0, 1)
    clock.token_s = clock.token_s or again_s / 2
    bench.clear()
    clock.forget_share()


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
    """Choose the depth to which both layouts can be brought in the time that is left."""
    left_s = clock.left_s - needed_s
    return next((n for n in depths if 2.5 * n * clock.token_s <= left_s), 0)


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
        measured.prefill.append(PrefillPoint(n_tokens, n_tokens / seconds))


def _measure_writing(bench: Bench, shape: Shape, clock: Clock, measured: Measured) -> None:
    """Let one, four, … sequences grow, each in cells of its own."""
    measured.cell_bytes = measured.cell_bytes or bench.cell_bytes()
    is_first, depth = not measured.decode, bench.n_tokens(0)
    took_s = clock.token_s
    for n in _counts(shape):
        copy_s = bench.spread(n)
        if copy_s and not bench.is_unified:
            measured.copy_s = copy_s
        if is_first and 2 * _n_times(clock) * took_s > clock.left_s:
            return  # then there is no time for a comparison either
        # The quickest: whatever comes between makes a step longer, never shorter.
        took_s = min(bench.step(n) for _ in range(_n_times(clock)))
        measured.decode.append(DecodePoint(n, depth, bench.is_unified, n / took_s))


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
    measured.prefill.append(PrefillPoint(n_tokens, n_tokens / seconds, n_before))


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
