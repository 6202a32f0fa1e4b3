"""Subprocess that writes and judges a tuned copy. Started by `tuner` as a module.

A process of its own, because what computes with an untried format may crash, and only its end
interrupts it. The copy must read and answer documents faster than the original, and predict the
same next tokens of a reference text.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.gguf import read_header
from paddock.engine.llama import library
from paddock.engine.llama.forward_context import ForwardContext
from paddock.engine.llama.library import DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.llama.quantise import write_widened
from paddock.engine.llama.thread_governor import ENOUGH_CPU_SHARE
from paddock.engine.openvino.form_model import FormModel, open_context
from paddock.engine.profile.measure import (
    EMBED_BATCHES,
    EMBED_TEXT,
    Bench,
    BenchClock,
    BenchOptions,
)
from paddock.engine.system.files import sha256_of, sync_file
from paddock.engine.system.frame_processes import take_order
from paddock.engine.system.processes import lower_priority, run_and_exit
from paddock.engine.system.records import Struct, replace
from paddock.engine.workers.fallbacks import with_fallback
from paddock.engine.workers.worker_protocol import WorkerOptions

from .tuned_copies import OPENVINO, OPENVINO_BF16, graph_file

# Compared positions: by chance, a share of 0.96 of them differs by 0.004.
N_COMPARED = 2048
# Texts are compared in windows, since the logits of all their tokens are in memory at once: 128
# rows of a vocabulary of 150,000 are 77 MB. A window has a minimum length, since its first tokens
# have no context.
_N_WINDOW, _N_LEAST, _N_ROWS = 256, 64, 128
_N_TOGETHER, _N_TURNS, _N_STEPS = 8, 3, 2
# What a copy must be worth: time for a document with an answer, one of eight at once; alone it must
# not take longer, but for what two measurements differ, nor its tokens twice as long. SmolLM2-135M
# in BF16 has 0.75 of the original's speed alone with AVX512_BF16, and reads 4.2 times as fast.
# Measured behind a document: of eight sequences of 640 tokens llama.cpp's attention takes half of a
# pass.
LEAST_GAIN, _LATEST_ALONE, _SLOWEST_ANSWER = 1.15, 1.05, 0.5
# A form that gains so much is kept unseen whether a copy for llama.cpp gains more: of SmolLM2-135M
# these gain 1.5 to 2.1, forms 4. What is so much slower than the fastest takes no further turn.
_SURE_GAIN, _HOPELESS = 2.0, 2.0
_DOCUMENT_TOKENS, _ANSWER_TOKENS = 640, 80

# The bound: share of next tokens that are the original's; of vectors their mean cosine. The
# original's own rounding of activations to 8 bits takes most of it. Copies of SmolLM2-135M, BF16
# and F16: from Q4_1 0.956 to 0.959, from Q4_K 0.950, from Q5_K 0.943 to 0.947.
LEAST_AGREEMENT, LEAST_COSINE = 0.93, 0.999
# A copy's perplexity on the reference text, as a multiple of the original's. openvino-genai reads
# some formats wrongly, and nothing but this tells: SmolLM2-135M from Q4_1 directly has 1.23.
MOST_PERPLEXITY = 1.005


class Weights(Struct, frozen=True):
    """What is computed: a GGUF file, by llama.cpp; or a form of it, by OpenVINO."""

    path: Path
    form: Path | None = None

    @property
    def file(self) -> Path:
        return self.form or self.path

    def load(self, like: BenchOptions) -> Model:
        if self.form is not None:
            return FormModel(self.path, self.form, like.n_threads)
        return Model(self.path, ModelOptions(uses_extra_buffers=like.uses_extra_buffers))


class MeasuredModels:
    """Models that stay loaded between their measurements: OpenVINO takes two seconds to compile."""

    def __init__(self) -> None:
        self._models: dict[Weights, tuple[int, Model]] = {}

    def load(self, weights: Weights, like: BenchOptions) -> Model:
        """Raises `LoadFailed`: it cannot be computed here."""
        n_threads = like.n_threads if weights.form else 0  # llama.cpp's are a context's
        before = self._models.pop(weights, None)
        if before is not None and before[0] != n_threads:
            before[1].close()
            before = None
        self._models[weights] = before or (n_threads, weights.load(like))
        return self._models[weights][1]

    def close(self) -> None:
        for _, model in self._models.values():
            model.close()


class Computed(Struct, frozen=True):
    """Of each token of a text the likeliest next one, shape (n,); or vectors of texts."""

    values: NDArray[np.int32] | Vectors
    surprise: float = 0.0
    """Mean negative log-likelihood of the text's own next tokens."""


class CopySpeeds(Struct, frozen=True):
    prompts: float
    answer: float
    """One answer alone."""
    answers: float
    """Eight at once, together."""
    share: float = 1.0
    """Share of the processor's time that the threads got."""

    def document_s(self, answers: float) -> float:
        return _DOCUMENT_TOKENS / self.prompts + _ANSWER_TOKENS / answers

    @property
    def together_s(self) -> float:
        return self.document_s(self.answers)


class SpeedTrial:
    """One copy under measurement: its context stays open between its turns."""

    def __init__(self, model: Model, like: BenchOptions, *, counts_cpu: bool) -> None:
        """Raises `LoadFailed`, `DecodeFailed`: it cannot be computed here."""
        n_tokens = EMBED_BATCHES[-1] if like.embeds else _DOCUMENT_TOKENS
        n_seq = n_tokens // EMBED_TEXT if like.embeds else _N_TOGETHER
        n_cells = n_tokens if like.embeds else (_N_TOGETHER + 1) * _DOCUMENT_TOKENS
        self._embeds = like.embeds
        self._clock = BenchClock(60.0, like.n_threads, counts_cpu=counts_cpu)
        like = replace(like, n_cells=n_cells, n_batch_tokens=n_tokens)
        self._read_s, self._alone_s, self._together_s = list[float](), list[float](), list[float]()
        with ExitStack() as stack:
            self._bench = Bench(model, like, self._clock, n_seq)
            stack.enter_context(self._bench.context)
            self._read(1)  # reads the file's pages
            self._clock.forget_share()
            self.close = stack.pop_all().close

    def play(self) -> None:
        """Take a turn."""
        bench = self._bench
        bench.clear()
        self._read_s.append(self._read(_DOCUMENT_TOKENS))
        if not self._embeds:
            self._alone_s += [bench.step(1) for _ in range(_N_STEPS)]
            bench.spread(_N_TOGETHER)
            self._together_s += [bench.step(_N_TOGETHER) for _ in range(_N_STEPS)]

    def _read(self, n_tokens: int) -> float:
        bench = self._bench
        return bench.embed(bench.n_seq, EMBED_TEXT) if self._embeds else bench.read(0, n_tokens)

    def speeds(self) -> CopySpeeds:
        share = min(1.0, self._clock.share)
        if self._embeds:  # it only reads
            per_s = EMBED_BATCHES[-1] / median(self._read_s)
            return CopySpeeds(per_s, per_s, per_s, share)
        return CopySpeeds(
            _DOCUMENT_TOKENS / median(self._read_s), 1 / median(self._alone_s),
            _N_TOGETHER / median(self._together_s), share,
        )  # fmt: skip


def measure_speeds(
    copies: Mapping[str, Weights],
    like: BenchOptions,
    models: MeasuredModels,
    *,
    counts_cpu: bool = False,
) -> tuple[dict[str, CopySpeeds], list[str]]:
    """Measure copies with the threads and kernels of `like`; return why others cannot be computed.

    They take turns, and medians count: a machine that is slower for a while is so for each of them.
    With `counts_cpu`: processor seconds of one thread; else other programs end it after a turn.
    """
    if counts_cpu:
        like = replace(like, n_threads=1)
    trials, whys = dict[str, SpeedTrial](), list[str]()
    with ExitStack() as stack:
        for name, weights in copies.items():
            try:
                model = models.load(weights, like)
                trials[name] = SpeedTrial(model, like, counts_cpu=counts_cpu)
                stack.callback(trials[name].close)
            except (LoadFailed, DecodeFailed) as error:
                whys.append(str(error))
        playing = list(trials.values())
        for _ in range(_N_TURNS):
            for trial in playing:
                trial.play()
            if not counts_cpu and _is_disturbed(trial.speeds() for trial in trials.values()):
                break
            seconds = {trial: trial.speeds().together_s for trial in playing}
            slowest = _HOPELESS * min(seconds.values(), default=0.0)
            playing = [trial for trial in playing if seconds[trial] <= slowest]
    return {name: trial.speeds() for name, trial in trials.items()}, whys


def computed_results(
    model: Model, texts: Sequence[str], n_tokens: int, like: BenchOptions
) -> Computed:
    """Compute at most `n_tokens` tokens of real texts, evenly over these (teacher forcing).

    Vectors are of length 1, one for each piece of a text.
    """
    options = ContextOptions(
        n_ctx_tokens=_N_WINDOW,
        n_batch_tokens=_N_WINDOW if like.embeds else _N_ROWS,
        n_seq_max=1,
        n_threads=like.n_threads,
        embeds=like.embeds,
        flash_attention=like.flash_attention,
    )
    with open_context(model, options) as context:
        read = [model.tokenise(text, with_special=True, parse_special=False) for text in texts]
        n_most = EMBED_TEXT if like.embeds else _N_WINDOW
        pieces = windows([len(tokens) for tokens in read], n_tokens, n_most)
        batches = (read[which][start : start + n] for which, start, n in pieces)
        if like.embeds:
            vectors = [_vector(context, batch) for batch in batches]
            return Computed(np.array(vectors, np.float32))
        return _predictions(context, batches)


def agreement(original: NDArray[Any], copy: NDArray[Any]) -> float:
    """Return the share of positions with the same likeliest token, or the mean cosine."""
    if not len(original):
        return 1.0
    if original.ndim > 1:
        return float(np.sum(original * copy, axis=1).mean())
    return float((original == copy).mean())


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


def _predictions(context: ForwardContext, batches: Iterable[Tokens]) -> Computed:
    likeliest, surprises = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for batch in batches:
        at = 0
        for rows in _rows(context, batch):
            likeliest.append(rows.argmax(axis=1).astype(np.int32))
            following = batch[at + 1 : at + len(rows) + 1]  # the last token has none
            at += len(rows)
            known = rows[: len(following)] - rows[: len(following)].max(axis=1, keepdims=True)
            own = known[np.arange(len(following)), following]
            surprises.append(np.log(np.exp(known).sum(axis=1)) - own)
    of_all = np.concatenate(surprises)
    return Computed(np.concatenate(likeliest), float(of_all.mean()) if len(of_all) else 0.0)


def _rows(context: ForwardContext, tokens: Tokens) -> Iterator[Logits]:
    context.clear()
    for start in range(0, len(tokens), _N_ROWS):
        piece = tokens[start : start + _N_ROWS]
        n = len(piece)
        pos = np.arange(start, start + n, dtype=np.int32)
        context.decode(piece, pos, np.zeros(n, np.int32), np.ones(n, np.int8))
        yield context.logits(n)


def _vector(context: ForwardContext, tokens: Tokens) -> Vectors:
    n = len(tokens)
    context.clear()
    context.decode(tokens, np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.ones(n, np.int8))
    vector = context.embedding(0)
    length: Vectors = vector / np.linalg.norm(vector)
    return length


def main() -> None:
    """Write the copy and judge it; send its measurements, `why` there is none, or `not_now`."""
    order, send = take_order()
    library.quiet_logs()
    # Take the least priority, and be the first to go when the machine has no memory left
    lower_priority(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    try:
        send(make_copy(order))
    except LoadFailed as error:
        send({"why": str(error)})
    except OSError as error:
        send({"not_now": str(error)})


def make_copy(order: dict[str, Any]) -> dict[str, Any]:
    """Write, measure, compare; return the fastest copy's fields, or `why` it is none."""
    source = Weights(Path(order["source"]))
    load = with_fallback(
        WorkerOptions(order["source"], "chat", 0, 0, 1, 0, order["n_threads"]), order["fallback"]
    )
    is_embedder = read_header(source.path).role == "embed"
    shape = BenchOptions(
        0, 0, load.n_threads, load.flash_attention, embeds=is_embedder,
        uses_extra_buffers=load.uses_extra_buffers,
    )  # fmt: skip
    copies, whys = _written_forms(order, source)
    result = {"why": "".join(whys)}
    with closing(MeasuredModels()) as models:
        if copies:
            least_gain = _SURE_GAIN if order["names"] else LEAST_GAIN
            result = _judge(source, copies, order["texts"], shape, models, least_gain)
        if "why" in result and order["names"]:
            target, names = Path(order["target"]), frozenset(order["names"])
            write_widened(source.path, target, names, order["format"], order["n_threads"])
            copies = {order["format"]: Weights(target), **copies}
            result = _judge(source, copies, order["texts"], shape, models, LEAST_GAIN)
    return result


def _judge(
    source: Weights,
    copies: Mapping[str, Weights],
    texts: Sequence[str],
    shape: BenchOptions,
    models: MeasuredModels,
    least_gain: float,
) -> dict[str, Any]:
    """Return the fields of the fastest copy that says the same; or `why` the fastest is none."""
    contenders = {"": source, **copies}
    speeds, whys = measure_speeds(contenders, shape, models)
    if _is_disturbed(speeds.values()):
        # Beside other programs wall times of one file differ by a factor of 2, the processor's
        # seconds of one thread by a twentieth.
        speeds, lost = measure_speeds(
            {name: contenders[name] for name in speeds}, shape, models, counts_cpu=True
        )
        whys += lost
    before = speeds.pop("", None)
    if before is None or not speeds:
        return {"why": whys[0]}
    original: Computed | None = None
    n_uncomputed = len(whys)
    for format_name, found in sorted(speeds.items(), key=lambda each: each[1].together_s):
        copy = copies[format_name]
        why = _why_too_slow(before, found, least_gain)
        if not why:
            file, form = models.load(source, shape), models.load(copy, shape)
            original = original or computed_results(file, texts, N_COMPARED, shape)
            computed = computed_results(form, texts, N_COMPARED, shape)
            share = agreement(original.values, computed.values)
            why = _why_too_different(original, computed, share, is_embedder=shape.embeds)
        if why:
            whys.append(why)
            continue
        sync_file(copy.file)
        if copy.form is not None:
            sync_file(graph_file(copy.form))
        return {
            "format": format_name,
            **_file_facts(copy),
            "prompts_ratio": found.prompts / before.prompts,
            "answers_ratio": found.answers / before.answers,
            "agreement": share,
            "is_embedder": shape.embeds,
        }
    return {"why": whys[n_uncomputed]}


def _file_facts(copy: Weights) -> dict[str, Any]:
    digest, n_bytes = sha256_of(copy.file), copy.file.stat().st_size
    if copy.form is None:
        return {"digest": digest, "size_bytes": n_bytes}
    # One file of weights is computed in more than one precision, which the graph tells
    both = f"{digest} {sha256_of(graph_file(copy.form))}"
    digest = hashlib.sha256(both.encode()).hexdigest()
    return {"digest": digest, "size_bytes": n_bytes, "form": str(copy.form)}


def _written_forms(order: dict[str, Any], source: Weights) -> tuple[dict[str, Weights], list[str]]:
    """Return the forms by their precisions, or why there is none."""
    copies, whys = dict[str, Weights](), list[str]()
    if order["form"]:
        form = Path(order["form"])
        try:
            writer = importlib.import_module("paddock.engine.openvino.form")
            writer.write_form(source.path, form, graph_file(form), order["n_threads"])
            copies[OPENVINO] = Weights(source.path, form)
            if writer.computes_bf16():
                in_bf16 = form.with_stem(f"{form.stem}-bf16")
                writer.write_in_bf16(form, in_bf16)
                copies[OPENVINO_BF16] = Weights(source.path, in_bf16)
        except (LoadFailed, ImportError) as error:
            whys.append(str(error))
    return copies, whys


def _is_disturbed(speeds: Iterable[CopySpeeds]) -> bool:
    """Return whether other programs used the processor, by the copy whose threads got most of it.

    OpenVINO's threads rest in a part of each pass, llama.cpp's never: 0.82 and 0.95 side by side.
    """
    return max((found.share for found in speeds), default=0.0) < ENOUGH_CPU_SHARE


def _why_too_slow(before: CopySpeeds, after: CopySpeeds, least_gain: float) -> str:
    """Return why a copy is not worth it; empty: it is."""
    gain = before.together_s / after.together_s
    if gain < least_gain:
        return f"it would read documents {gain:.2f} times as fast on this machine"
    alone = after.document_s(after.answer) / before.document_s(before.answer)
    if alone > _LATEST_ALONE or after.answer < before.answer * _SLOWEST_ANSWER:
        return "it would write one answer alone much more slowly"
    return ""


def _why_too_different(
    original: Computed, copy: Computed, share: float, *, is_embedder: bool
) -> str:
    if share < (LEAST_COSINE if is_embedder else LEAST_AGREEMENT):
        return f"its next tokens differ ({share:.1%} are the same)"
    perplexity = math.exp(copy.surprise - original.surprise)
    return f"its perplexity is {perplexity:.3f} times as high" * (perplexity > MOST_PERPLEXITY)


if __name__ == "__main__":
    run_and_exit(main)
