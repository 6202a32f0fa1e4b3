"""Subprocess that makes and judges a tuned copy. Started by `tuner` as a module.

A process of its own, because only its end interrupts llama.cpp's quantiser, some of whose errors
end in `abort()`. Judging means measuring the speeds of original and copy,
and how often they agree on the next token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.gguf import TYPE_NAMES, GgufHeader, read_header
from paddock.engine.llama import library
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.llama.quantise import (
    QuantiseFailed,
    low_bit_tensors,
    other_matrices,
    quantise,
    write_widened,
)
from paddock.engine.llama.thread_governor import ENOUGH_CPU_SHARE
from paddock.engine.profile import format_speeds
from paddock.engine.profile.context_layout import workload_s
from paddock.engine.profile.format_speeds import NEAR_LOSSLESS
from paddock.engine.profile.measure import (
    EMBED_BATCHES,
    EMBED_TEXT,
    Bench,
    BenchClock,
    BenchOptions,
    measure_format,
)
from paddock.engine.profile.profile import DecodePoint, FormatPoint, PrefillPoint, Profile, Weights
from paddock.engine.profile.trial_models import can_write_trial_model, write_trial_model
from paddock.engine.system.files import sha256_of, sync_file
from paddock.engine.system.light_dataclasses import asdict, dataclass, replace
from paddock.engine.system.processes import lower_priority, run_and_exit, take_order
from paddock.engine.workers.fallbacks import with_fallback
from paddock.engine.workers.worker_protocol import WorkerOptions

from .tuned_copies import CopySpeeds

# Texts are compared in windows, since the logits of all their tokens are in memory at once: 128
# rows of a vocabulary of 150,000 are 77 MB. A window has a minimum length, since its first tokens
# have no context.
_N_WINDOW, _N_LEAST, _N_ROWS = 256, 64, 128
_N_PROMPT, _N_TOGETHER, _N_TIMES = 256, 8, 3
# Of a prediction these many tokens are compared one by one; the others' share is at least this.
_N_LIKELIEST, _LEAST_SHARE = 64, 1e-6
# Lengths of prompts: eight together must fit into memory as well.
_N_LONGEST, _N_SHORTEST = 512, 32


def measure_speeds(
    path: Path, like: BenchOptions, texts: Sequence[str] = (), *, counts_cpu: bool = False
) -> CopySpeeds:
    """Measure one file, with the threads and kernels of `like`; takes a second or two.

    The prompts are from `texts`, with their median length up to 512 tokens, or else any 256 tokens.
    With `counts_cpu`: processor seconds of one thread. An embedding model only reads.
    """
    if counts_cpu:
        like = replace(like, n_threads=1)
    model = Model(path, ModelOptions(uses_extra_buffers=like.uses_extra_buffers))
    try:
        clock = BenchClock(60.0, like.n_threads, counts_cpu=counts_cpu)
        if like.embeds:
            return _embedding_speeds(model, like, clock)
        read = [_tokens(model, text) for text in texts]
        n_prompt = prompt_length([len(tokens) for tokens in read])
        n_cells = (_N_TOGETHER + 1) * 2 * n_prompt
        shape = replace(like, n_cells=n_cells, n_batch_tokens=min(n_prompt, _N_PROMPT))
        bench = Bench(model, shape, clock, _N_TOGETHER)
        if read:
            bench.use_text(np.concatenate(read).astype(np.int32))
        with bench.context:
            bench.read(0, 1)  # reads the file's pages
            bench.clear()
            clock.forget_share()
            return _speeds(bench, clock, n_prompt)
    finally:
        model.close()


def prompt_length(lengths: Sequence[int]) -> int:
    """Return the length of prompts for texts of these lengths.

    >>> [prompt_length(lengths) for lengths in ([], [90, 300, 4000], [4000], [3])]
    [256, 300, 512, 32]
    """
    if not lengths:
        return _N_PROMPT
    return min(_N_LONGEST, max(_N_SHORTEST, sorted(lengths)[len(lengths) // 2]))


def _speeds(bench: Bench, clock: BenchClock, n_prompt: int) -> CopySpeeds:
    read_s = []
    for _ in range(_N_TIMES):
        bench.clear()
        read_s.append(bench.read(0, n_prompt))
    alone_s = min(bench.step(1) for _ in range(2 * _N_TIMES))
    bench.spread(_N_TOGETHER)
    together_s = min(bench.step(_N_TOGETHER) for _ in range(2 * _N_TIMES))
    return CopySpeeds(
        n_prompt / min(read_s),
        1 / alone_s,
        _N_TOGETHER / together_s,
        min(1.0, clock.share),
        n_prompt,
    )


def _embedding_speeds(model: Model, like: BenchOptions, clock: BenchClock) -> CopySpeeds:
    n_tokens = EMBED_BATCHES[-1]
    n_texts = n_tokens // EMBED_TEXT
    bench = Bench(model, replace(like, n_cells=n_tokens, n_batch_tokens=n_tokens), clock, n_texts)
    with bench.context:
        bench.embed(n_texts, EMBED_TEXT)  # reads the file's pages
        clock.forget_share()
        per_s = n_tokens / min(bench.embed(n_texts, EMBED_TEXT) for _ in range(2 * _N_TIMES))
    return CopySpeeds(per_s, per_s, per_s, min(1.0, clock.share), EMBED_TEXT)


@dataclass(frozen=True, slots=True)
class Results:
    """What a model computes of real texts: predictions, or vectors."""

    likeliest: NDArray[np.int32]
    """The likeliest next token after each token, shape (n,)."""
    ids: NDArray[np.int64]
    """Some tokens, the likeliest in exact arithmetic, shape (n, n_ids)."""
    logprobs: NDArray[np.float32]
    """Their log probabilities, and that of all others together, shape (n, n_ids + 1)."""
    vectors: NDArray[np.float32]
    """Of an embedding model: a vector of length 1 for each piece of a text."""

    def agreement(self, other: Results) -> float:
        """Return the share of positions with the same likeliest token, or the mean cosine."""
        if len(self.vectors):
            return 1 - float(self.distances(other).mean())
        is_equal = self.likeliest == other.likeliest
        return float(is_equal.mean()) if len(is_equal) else 1.0

    def distances(self, other: Results) -> NDArray[np.float32]:
        """Return how far another's results are from these, one by one.

        Of vectors, 1 less the cosine; of predictions, the Kullback-Leibler divergence.
        """
        if len(self.vectors):
            return np.asarray(1 - np.sum(self.vectors * other.vectors, axis=1), np.float32)
        differences = np.exp(self.logprobs) * (self.logprobs - other.logprobs)
        return np.asarray(differences.sum(axis=1), np.float32)


def computed_results(
    path: Path,
    texts: Sequence[str],
    n_tokens: int,
    like: BenchOptions,
    truth: Results | None = None,
) -> Results:
    """Compute at most `n_tokens` tokens of real texts, evenly over these (teacher forcing).

    Log probabilities are those of the tokens of `truth`, or else of the likeliest ones.
    """
    model = Model(path, ModelOptions(uses_extra_buffers=like.uses_extra_buffers))
    try:
        options = ContextOptions(
            n_ctx_tokens=_N_WINDOW,
            n_batch_tokens=_N_WINDOW if like.embeds else _N_ROWS,
            n_seq_max=1,
            n_threads=like.n_threads,
            embeds=like.embeds,
            flash_attention=like.flash_attention,
        )
        with Context(model, options) as context:
            read = [_tokens(model, text) for text in texts]
            n_most = EMBED_TEXT if like.embeds else _N_WINDOW
            pieces = windows([len(tokens) for tokens in read], n_tokens, n_most)
            batches = (read[which][start : start + n] for which, start, n in pieces)
            if like.embeds:
                vectors = np.array([_vector(context, batch) for batch in batches], np.float32)
                return Results(
                    np.empty(0, np.int32), np.empty((0, 0), np.int64), vectors[:0], vectors
                )
            found, n_done = [_prediction(np.empty((0, model.n_vocab), np.float32), None)], 0
            for rows in (rows for batch in batches for rows in _rows(context, batch)):
                ids = None if truth is None else truth.ids[n_done : n_done + len(rows)]
                found.append(_prediction(rows, ids))
                n_done += len(rows)
            likeliest, ids, logprobs = map(np.concatenate, zip(*found, strict=True))
            return Results(likeliest, ids, logprobs, np.empty((0, 0), np.float32))
    finally:
        model.close()


def windows(
    lengths: Sequence[int], n_tokens: int, n_most: int = _N_WINDOW
) -> Iterator[tuple[int, int, int]]:
    """Yield pieces of texts, `n_tokens` altogether: index of the text, first token, length.

    The first piece of every text comes first, then the second piece of every text, and so on.

    >>> list(windows([100, 1000], 600))
    [(0, 0, 100), (1, 0, 256), (1, 256, 244)]
    """
    size = min(n_most, max(_N_LEAST, -(-n_tokens // max(1, len(lengths)))))
    for start in range(0, max(lengths, default=0), size):
        for which, length in enumerate(lengths):
            n = min(size, length - start, n_tokens)
            if n > 0:
                yield which, start, n
                n_tokens -= n


def _tokens(model: Model, text: str) -> Tokens:
    return model.tokenise(text, with_special=True, parse_special=False)


def _rows(context: Context, tokens: Tokens) -> Iterator[Logits]:
    """Yield the logits after each token of a text, piece by piece."""
    context.clear()
    for start in range(0, len(tokens), _N_ROWS):
        piece = tokens[start : start + _N_ROWS]
        n = len(piece)
        pos = np.arange(start, start + n, dtype=np.int32)
        context.decode(piece, pos, np.zeros(n, np.int32), np.ones(n, np.int8))
        yield context.logits(n)


def _prediction(
    rows: Logits, ids: NDArray[np.int64] | None
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Return the fields of `Results` for rows of logits."""
    if ids is None:
        n_ids = min(_N_LIKELIEST, rows.shape[1])
        ids = np.argpartition(rows, -n_ids, axis=1)[:, -n_ids:]
    highest = rows.max(axis=1, keepdims=True)
    total = highest + np.log(np.exp(rows - highest).sum(axis=1, keepdims=True))
    logprobs = np.take_along_axis(rows, ids, axis=1) - total
    others = np.log(np.maximum(1 - np.exp(logprobs).sum(axis=1, keepdims=True), _LEAST_SHARE))
    return rows.argmax(axis=1).astype(np.int32), ids, np.hstack([logprobs, others])


def _vector(context: Context, tokens: Tokens) -> Vectors:
    n = len(tokens)
    context.clear()
    context.decode(tokens, np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.ones(n, np.int8))
    vector = context.embedding(0)
    length: Vectors = vector / np.linalg.norm(vector)
    return length


# Formats are measured in turn this many times.
_N_ROUNDS = 3
_NOTHING_LOW = "it has no matrices of fewer than 8 bits; others are changed only with `--format`"
_SLOWER_ALONE = (
    "copies that read documents faster write one answer much more slowly; nothing was made. "
    "`--format F16 --force` makes one anyway"
)
# Least speed of an answer alone in a wide format, to the original's. SmolLM2-135M in BF16 has 0.75
# of it with AVX512_BF16, and reads 4.2 times as fast.
_SLOWEST_ANSWER = 0.5
# Formats of 16 bits, in which a processor may have quick kernels (BF16: AVX512_BF16).
WIDE_FORMATS = ("F16", "BF16")
# Longest first reading of the user's documents.
_COMPARED_S = 30.0

# The bound of `tune: near`: share of next tokens as in exact arithmetic, mean KL divergence in
# nats; of vectors their mean cosine. It is less than twice what the rounding of activations alone
# makes: 95.9 % and 0.0029 with SmolLM2-135M in Q4_1. Measured with that model's weights (2,048
# tokens, EPYC with AVX512_BF16): F16 99.8 % and 0.0000, BF16 99.3 % and 0.0001, Q8_0 by
# llama.cpp's quantiser 95.0 % and 0.0038; beyond it Q6_K 92.7 % and 0.011, Q4_K 84.2 % and 0.048,
# Q4_0 65.1 % and 0.26.
NEAR_AGREEMENT, NEAR_DIVERGENCE, NEAR_COSINE = 0.94, 0.005, 0.999

_FARTHER = (
    "copies that read documents faster are farther from exact arithmetic; nothing was made. "
    "`--force` makes one anyway"
)

SendLine = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class TuningOrder:
    """The copy to make."""

    source: str
    target: str
    """A temporary path; the caller renames it."""
    format: str | None
    """Format of all matrices; None: those in slow formats get a near-lossless one."""
    n_threads: int
    """Threads of the quantiser; models are measured with as many or, as a fallback, one."""
    fallback: int
    """As in `workers.fallbacks`."""
    n_compared: int
    """Tokens of real text that both models read, if there is time."""
    n_least: int
    """Tokens that are compared however long it takes."""
    n_documents: int
    """Number of the user's documents in `texts`; 0: they come with Paddock."""
    is_forced: bool
    """Whether to make it even if it does not help."""
    texts: tuple[str, ...]
    least_gain: float = format_speeds.USEFUL_GAIN
    is_background: bool = False
    """Whether all other processes go first."""
    is_trial: bool = False
    """Whether only the gain is measured."""
    is_near: bool = False
    """Whether it may be farther from exact arithmetic than the original, within a bound."""

    @property
    def may_choose(self) -> bool:
        """Whether no format was named: what is made must be near enough to exact arithmetic."""
        return self.format is None or self.is_near

    @property
    def shape(self) -> BenchOptions:
        """Options of the measured models; the sizes are set by each measurement."""
        load = with_fallback(
            WorkerOptions(self.source, "chat", 0, 0, 1, 0, self.n_threads), self.fallback
        )
        return BenchOptions(
            0,
            0,
            load.n_threads,
            load.flash_attention,
            embeds=read_header(Path(self.source)).role == "embed",
            uses_extra_buffers=load.uses_extra_buffers,
        )


def main() -> None:
    values, send = take_order()
    order = TuningOrder(**values)
    library.quiet_logs()
    if order.is_background:
        # Take the least priority, and be the first to go when the machine has no memory left
        lower_priority(19)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    try:
        make_copy(order, send)
    except (LoadFailed, QuantiseFailed, OSError) as error:
        send({"event": "broken", "why": str(error)})


def make_copy(order: TuningOrder, send: SendLine) -> None:
    """Try, write, measure, compare; send `done` or `refused`."""
    source, target = Path(order.source), Path(order.target)
    header = read_header(source)
    may_be_wide = format_speeds.may_be_f16(header) and not library.supports_gpu()
    if order.format is None and not (wide_tensors if may_be_wide else low_bit_tensors)(header):
        if not (order.is_near and format_speeds.can_be_judged(header)):
            send({"event": "unfit", "why": _NOTHING_LOW})
            return
        order = replace(order, format=NEAR_LOSSLESS)
    send({"event": "note", "text": "trying its formats"})
    points = () if library.supports_gpu() else measured_formats(order, header)
    promised = expected_gain(order, header, points)
    # A trial of a small model's wide formats is no quicker than the copies themselves.
    tries_wide = order.may_choose and bool(points) and may_be_wide
    if not (promised is None or _is_worth(order, promised) or tries_wide):
        send({"event": "refused", "gain": promised, "is_measured": False})
        return
    names = tensors_to_change(order, header, points)
    description = _copy_description(order, header, names, tries_wide=tries_wide)
    send({"event": "note", "text": f"writing the copy{description}", "is_writing": True})
    with _candidates(order, header, names, tries_wide=tries_wide) as candidates:
        send({"event": "note", "text": "measuring it and the model"})
        chosen = _choose(order, candidates, send)
        if chosen is None:
            return
        if candidates[chosen["format"]] != target:
            candidates[chosen["format"]].replace(target)
            names = wide_tensors(header)
    changes = _changed_matrices(order, header, names)
    changes["is_embedder"] = header.role == "embed"
    # Sync a file to the disk; return its digest and its size.
    sync_file(target)
    synced_file_facts = {"digest": sha256_of(target), "size_bytes": target.stat().st_size}
    send({"event": "done", **chosen, **changes, **synced_file_facts})


def _choose(
    order: TuningOrder, candidates: Mapping[str, Path], send: SendLine
) -> dict[str, Any] | None:
    """Return what was measured of the quickest faithful copy; None: there is none, and why is sent.

    A format that the user named, and what is forced, need not be faithful.
    """
    source = Path(order.source)
    speeds = measured_speeds(order, (source, *candidates.values()))
    before = speeds[source]
    # A wide format is as large as two of the near-lossless one, and memory counts most for one
    # answer alone. So a document alone must not take longer than with the original, and an answer
    # not twice as long. BF16 is farther from exact arithmetic than F16, so it must be quicker by
    # more than the noise.
    took_s = {
        name: _documents_s(speeds[path]) * (format_speeds.USEFUL_GAIN if name == "BF16" else 1)
        for name, path in candidates.items()
        if name not in WIDE_FORMATS or _is_no_slower_alone(before, speeds[path])
    }
    ranked = sorted(took_s, key=lambda name: took_s[name])
    gains = {name: _documents_s(before) / _documents_s(speeds[candidates[name]]) for name in ranked}
    worth = [name for name in ranked if _is_worth(order, gains[name])]
    if not ranked:
        send({"event": "unfit", "why": _SLOWER_ALONE})
        return None
    if order.is_trial or not worth:
        send({"event": "refused", "gain": gains[ranked[0]], "is_measured": True})
        return None
    send({"event": "note", "text": "comparing both on real text"})
    compared = _compared(order, [candidates[name] for name in worth], before)
    found: list[dict[str, Any]] = []
    for name, comparison in zip(worth, compared, strict=True):
        is_faithful = comparison.pop("is_as_near", True)
        is_near = comparison.pop("is_within_bound", False) and order.is_near and not is_faithful
        if is_faithful or is_near or order.is_forced or not order.may_choose:
            speed = {"before": asdict(before), "after": asdict(speeds[candidates[name]])}
            how = {"format": name, "gain": gains[name], "is_near": is_near}
            found.append({**how, **speed, **comparison})
            if not is_near or order.is_forced:
                break
    if not found:
        send({"event": "unfit", "why": _FARTHER})
        return None
    # The quickest copy, the first; or the last if only that is as near as the original.
    first, last = found[0], found[-1]
    is_much_quicker = first["gain"] >= last["gain"] * format_speeds.USEFUL_GAIN
    return first if is_much_quicker or last["is_near"] else last


def _is_worth(order: TuningOrder, gain: float) -> bool:
    return order.is_forced or gain >= order.least_gain


@contextmanager
def _candidates(
    order: TuningOrder, header: GgufHeader, names: frozenset[str], *, tries_wide: bool
) -> Iterator[dict[str, Path]]:
    """Write the copies to choose from, by their format; those beside `target` go at the end."""
    target, wide = Path(order.target), wide_tensors(header)
    with ExitStack() as stack:
        written = {}
        if names or order.format or not tries_wide:
            _write(order, names)
            written[order.format or NEAR_LOSSLESS] = target
        for name in _wide_formats(header) if tries_wide else ():
            path = written[name] = stack.enter_context(_temporary_file(target, name))
            if wide:
                write_widened(Path(order.source), path, wide, name, order.n_threads)
            else:
                quantise(Path(order.source), path, name, order.n_threads)
        yield written


def _wide_formats(header: GgufHeader) -> tuple[str, ...]:
    """Return the wide formats that most of a model's matrices do not have already."""
    own = format_speeds.count_weights(header)[0].format
    return tuple(name for name in WIDE_FORMATS if name != own)


def wide_tensors(header: GgufHeader) -> frozenset[str]:
    """Return the names of the matrices that a copy in F16 or BF16 changes: 8 bits or fewer."""
    eights = (tensor.name for tensor in header.tensors if TYPE_NAMES.get(tensor.kind) == "Q8_0")
    return low_bit_tensors(header).union(eights)


def _is_no_slower_alone(before: CopySpeeds, after: CopySpeeds) -> bool:
    is_soon = _documents_s(after, n_sequences=1) <= _documents_s(before, n_sequences=1)
    return is_soon and after.answer >= before.answer * _SLOWEST_ANSWER


def measured_speeds(order: TuningOrder, paths: Sequence[Path]) -> dict[Path, CopySpeeds]:
    """Measure each file.

    While other programs run, in processor seconds of one thread: wall times of one file then
    differ by a factor of 2, these by a twentieth.
    """
    prompts = order.texts if order.n_documents else ()
    speeds = {path: measure_speeds(path, order.shape, prompts) for path in paths}
    is_idle = min(speed.share for speed in speeds.values()) >= ENOUGH_CPU_SHARE
    if is_idle or library.supports_gpu():
        return speeds
    return {path: measure_speeds(path, order.shape, prompts, counts_cpu=True) for path in paths}


def _documents_s(speeds: CopySpeeds, n_sequences: int | None = None) -> float:
    job = format_speeds.DOCUMENT_WORKLOAD
    return workload_s(
        _rough_profile(speeds), replace(job, n_sequences=n_sequences or job.n_sequences)
    )


def measured_formats(order: TuningOrder, header: GgufHeader) -> tuple[FormatPoint, ...]:
    """Measure the formats of the model and of the copy on trial models; the quickest counts.

    In processor seconds of one thread, as `measured_speeds` on a busy machine.
    """
    shape = replace(order.shape, n_threads=1)
    names = [
        *format_speeds.formats_to_measure(format_speeds.count_weights(header)),
        order.format or NEAR_LOSSLESS,
    ]
    best: dict[tuple[str, int], FormatPoint] = {}
    with ExitStack() as stack:
        target = Path(order.target)
        paths = {
            name: stack.enter_context(_temporary_file(target, f"trial-{name}"))
            for name in filter(can_write_trial_model, names)
        }
        for name, path in paths.items():
            write_trial_model(path, name)
        for _ in range(_N_ROUNDS):
            for name, path in paths.items():
                clock = BenchClock(60.0, 1, counts_cpu=True)
                for measured in measure_format(path, name, shape, clock):
                    key = (name, measured.n_rows)
                    best[key] = min(
                        best.get(key, measured), measured, key=lambda point: point.seconds
                    )
    return tuple(best.values())


def expected_gain(
    order: TuningOrder, header: GgufHeader, points: tuple[FormatPoint, ...]
) -> float | None:
    """Return the predicted gain for reading documents; None if nothing was measured."""
    if not points:
        return None
    prompts = order.texts if order.n_documents else ()
    before = measure_speeds(Path(order.source), order.shape, prompts, counts_cpu=True)
    profile = _rough_profile(before, format_speeds.count_weights(header), points)
    return format_speeds.predicted_gain(profile, format_speeds.DOCUMENT_WORKLOAD, order.format)


def tensors_to_change(
    order: TuningOrder, header: GgufHeader, points: tuple[FormatPoint, ...]
) -> frozenset[str]:
    """Return the names of the tensors to write in the near-lossless format.

    These are all that can be, if nothing was measured, or none is slow and the copy is forced.
    """
    every = low_bit_tensors(header)
    if order.format is not None or not points:
        return every
    slow = format_speeds.slow_tensors(header, format_speeds.slow_formats(points)) & every
    return slow or (every if order.is_forced else slow)


def _copy_description(
    order: TuningOrder, header: GgufHeader, names: frozenset[str], *, tries_wide: bool
) -> str:
    if tries_wide:
        *others, last = NEAR_LOSSLESS, *_wide_formats(header)
        return f" in {', '.join(others)} and {last}, to choose from"
    changes = _changed_matrices(order, header, names)
    if not changes.get("n_kept"):
        return f" in {order.format or NEAR_LOSSLESS}"
    return (
        f": {changes['n_changed']} matrices of {changes['changed_from']} in "
        f"{NEAR_LOSSLESS}, {changes['n_kept']} as they are"
    )


def _changed_matrices(
    order: TuningOrder, header: GgufHeader, names: frozenset[str]
) -> dict[str, Any]:
    """Return which matrices are changed and how many stay, if they are chosen one by one."""
    if order.format is not None:
        return {}
    kinds = {
        TYPE_NAMES.get(tensor.kind, "others") for tensor in header.tensors if tensor.name in names
    }
    return {
        "changed_from": ", ".join(sorted(kinds)),
        "n_changed": len(names),
        "n_kept": len(low_bit_tensors(header) - names),
    }


def _rough_profile(
    measured: CopySpeeds, weights: tuple[Weights, ...] = (), points: tuple[FormatPoint, ...] = ()
) -> Profile:
    decode = (
        DecodePoint(1, measured.n_prompt_tokens, True, measured.answer),
        DecodePoint(8, measured.n_prompt_tokens, True, measured.answers),
    )
    prefill = (PrefillPoint(measured.n_prompt_tokens, measured.prompts),)
    return Profile("", "", "", time.time(), 1, 0.0, 0, 0.0, prefill, decode, None, points, weights)


def _write(order: TuningOrder, names: frozenset[str]) -> None:
    """Write the copy: low-bit tensors almost exactly, all other changes by llama.cpp."""
    source, target = Path(order.source), Path(order.target)
    if order.format not in (None, NEAR_LOSSLESS):
        quantise(source, target, order.format, order.n_threads)
        return
    if order.format is None or not other_matrices(read_header(source)):
        write_widened(source, target, names, NEAR_LOSSLESS, order.n_threads)
        return
    with _temporary_file(target, "half-way") as half_way:
        write_widened(source, half_way, names, NEAR_LOSSLESS, order.n_threads)
        quantise(half_way, target, order.format, order.n_threads)


@contextmanager
def _temporary_file(target: Path, label: str) -> Iterator[Path]:
    path = target.with_name(f"{target.name}.{label}.part")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _compared(
    order: TuningOrder, copies: Sequence[Path], before: CopySpeeds
) -> Iterator[dict[str, Any]]:
    """Yield how often each copy and the original agree, and each of both with exact results.

    The latter not of a large model.

    The processor's kernels round activations to 8 bits, also with the original. A copy in F32 is
    computed in single precision, so it is the reference; of a larger model one in F16.
    """
    n_in_time = max(order.n_least, int(before.prompts * _COMPARED_S))
    order = replace(order, n_compared=min(order.n_compared, n_in_time))
    header, truth = read_header(Path(order.source)), None
    if format_speeds.can_be_judged(header):
        with _temporary_file(Path(order.target), "exact") as exact:
            name = "F32" if format_speeds.may_be_f16(header) else "F16"
            quantise(Path(order.source), exact, name, order.n_threads)
            truth = _results(order, exact)
    original = _results(order, Path(order.source), truth)
    for path in copies:
        copy = _results(order, path, truth)
        result: dict[str, Any] = {
            "agreement": original.agreement(copy),
            "n_compared": len(original.vectors) or len(original.likeliest),
        }
        if truth is not None:
            result["exact_before"] = truth.agreement(original)
            result["exact_after"] = truth.agreement(copy)
            result["divergence"] = float(truth.distances(copy).mean())
            result["is_as_near"] = is_as_near(truth, original, copy)
            result["is_within_bound"] = is_within_bound(truth, copy)
        yield result


def is_as_near(truth: Results, before: Results, after: Results) -> bool:
    """Return whether a copy is as near to the truth as the original, but for chance.

    It must predict the true token as often (of n positions at which only one of them is right,
    chance makes a difference of √n), and its results must be no farther away in the mean (but for
    its standard error).
    """
    farther = truth.distances(after) - truth.distances(before)
    if farther.mean() > farther.std() / math.sqrt(len(farther)):
        return False
    was_right, is_right = (results.likeliest == truth.likeliest for results in (before, after))
    n_lost, n_gained = int(np.sum(was_right & ~is_right)), int(np.sum(is_right & ~was_right))
    return n_lost - n_gained <= math.sqrt(n_lost + n_gained)


def is_within_bound(truth: Results, after: Results) -> bool:
    """Return whether a copy is within the bound of `tune: near`, whatever the original is."""
    if len(truth.vectors):
        return truth.agreement(after) >= NEAR_COSINE
    is_sure = truth.agreement(after) >= NEAR_AGREEMENT
    return is_sure and float(truth.distances(after).mean()) <= NEAR_DIVERGENCE


def _results(order: TuningOrder, path: Path, truth: Results | None = None) -> Results:
    return computed_results(path, order.texts, order.n_compared, order.shape, truth)


if __name__ == "__main__":
    run_and_exit(main)
