"""Trials of copies: how fast each reads and answers documents beside the original."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from paddock.engine.llama.library import DecodeFailed, LoadFailed
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.llama.thread_governor import ENOUGH_CPU_SHARE
from paddock.engine.openvino.ir_model import IrEncoder, IrModel, WorkerModel
from paddock.engine.profile.measure import (
    EMBED_BATCHES,
    EMBED_TEXT,
    Bench,
    BenchClock,
    BenchOptions,
    EmbedBench,
)
from paddock.engine.system.records import Struct, replace

_N_TOGETHER, _N_TURNS, _N_STEPS = 8, 3, 2
# What a copy must be worth: time for a document with an answer, one of eight at once; alone it must
# not take longer, but for what two measurements differ, nor its tokens twice as long. SmolLM2-135M
# in BF16 has 0.75 of the original's speed alone with AVX512_BF16, and reads 4.2 times as fast.
# Measured behind a document: of eight sequences of 640 tokens llama.cpp's attention takes half of a
# pass.
LEAST_GAIN, _LATEST_ALONE, _SLOWEST_ANSWER = 1.15, 1.05, 0.5
# What is so much slower than the fastest takes no further turn.
_HOPELESS = 2.0
_DOCUMENT_TOKENS, _ANSWER_TOKENS = 640, 80


class CopyRefused(Exception):
    """No copy stands for the original; the message is the reason."""


class Weights(Struct, frozen=True):
    """What is computed: a GGUF file, by llama.cpp; or an IR of it, by OpenVINO."""

    path: Path
    ir: Path | None = None
    format: str = ""
    """Of a copy; empty: it is the original."""

    @property
    def file(self) -> Path:
        return self.ir or self.path

    def load(self, like: BenchOptions) -> WorkerModel:
        if self.ir is not None:
            kind = IrEncoder if like.embeds else IrModel
            return kind(self.path, self.ir, like.n_threads)
        return Model(self.path, ModelOptions(uses_extra_buffers=like.uses_extra_buffers))


class MeasuredModels:
    """Models that stay loaded between their measurements: OpenVINO takes two seconds to compile."""

    def __init__(self) -> None:
        self._models: dict[Weights, tuple[int, WorkerModel]] = {}

    def load(self, weights: Weights, like: BenchOptions) -> WorkerModel:
        """Raises `LoadFailed`: it cannot be computed here."""
        n_threads = like.n_threads if weights.ir else 0  # llama.cpp's are a context's
        before = self._models.pop(weights, None)
        if before is not None and before[0] != n_threads:
            before[1].close()
            before = None
        self._models[weights] = before or (n_threads, weights.load(like))
        return self._models[weights][1]

    def close(self) -> None:
        for _, model in self._models.values():
            model.close()


class CopySpeeds(Struct, frozen=True):
    prompts: float
    answer: float
    """One answer alone."""
    answers: float
    """Eight at once, together."""
    share: float = 1.0
    """Share of the processor's time that the threads got."""

    def seconds_per_document(self, answers: float) -> float:
        return _DOCUMENT_TOKENS / self.prompts + _ANSWER_TOKENS / answers

    @property
    def together_s(self) -> float:
        return self.seconds_per_document(self.answers)


class _ChatTrial:
    """One copy under measurement: its context stays open between its turns."""

    def __init__(self, model: Model | IrModel, like: BenchOptions, clock: BenchClock) -> None:
        n_cells = (_N_TOGETHER + 1) * _DOCUMENT_TOKENS
        like = replace(like, n_cells=n_cells, n_batch_tokens=_DOCUMENT_TOKENS)
        self.clock = clock
        self._read_s, self._alone_s, self._together_s = list[float](), list[float](), list[float]()
        self._bench = Bench(model, like, clock, _N_TOGETHER)
        self.context = self._bench.context

    def warm_up(self) -> None:
        self._bench.read(0, 1)

    def play(self) -> None:
        bench = self._bench
        bench.clear()
        self._read_s.append(bench.read(0, _DOCUMENT_TOKENS))
        self._alone_s += [bench.step(1) for _ in range(_N_STEPS)]
        bench.spread(_N_TOGETHER)
        self._together_s += [bench.step(_N_TOGETHER) for _ in range(_N_STEPS)]

    def speeds(self) -> CopySpeeds:
        return CopySpeeds(
            _DOCUMENT_TOKENS / median(self._read_s), 1 / median(self._alone_s),
            _N_TOGETHER / median(self._together_s), min(1.0, self.clock.share),
        )  # fmt: skip


class _EmbedTrial:
    """As `_ChatTrial`, of a model that only reads."""

    def __init__(self, model: Model | IrEncoder, like: BenchOptions, clock: BenchClock) -> None:
        n_tokens = EMBED_BATCHES[-1]
        like = replace(like, n_cells=n_tokens, n_batch_tokens=n_tokens)
        self.clock = clock
        self._read_s = list[float]()
        self._bench = EmbedBench(model, like, clock)
        self.context = self._bench.context

    def warm_up(self) -> None:
        self.play()
        self._read_s.clear()

    def play(self) -> None:
        self._read_s.append(self._bench.embed(EMBED_BATCHES[-1] // EMBED_TEXT))

    def speeds(self) -> CopySpeeds:
        per_s = EMBED_BATCHES[-1] / median(self._read_s)
        return CopySpeeds(per_s, per_s, per_s, min(1.0, self.clock.share))


def measure_speeds(
    contenders: Sequence[Weights],
    like: BenchOptions,
    models: MeasuredModels,
    *,
    counts_cpu: bool = False,
) -> dict[Weights, CopySpeeds]:
    """Measure an original, the first, and its copies with the threads and kernels of `like`.

    They take turns, and medians count: a machine that is slower for a while is so for each of them.
    With `counts_cpu`: processor seconds of one thread; else other programs end it after a turn.
    What cannot be computed here is left out.

    Raises:
        CopyRefused: the original cannot, or no copy.
    """
    if counts_cpu:
        like = replace(like, n_threads=1)
    trials, whys = dict[Weights, _ChatTrial | _EmbedTrial](), list[str]()
    with ExitStack() as stack:
        for weights in contenders:
            try:
                model = models.load(weights, like)
                clock = BenchClock(60.0, like.n_threads, counts_cpu=counts_cpu)
                trial = _trial(model, like, clock)
                stack.enter_context(trial.context)
                trial.warm_up()  # reads the file's pages
                clock.forget_share()
                trials[weights] = trial
            except (LoadFailed, DecodeFailed) as error:
                whys.append(str(error))
        if contenders[0] not in trials or len(trials) < 2:
            raise CopyRefused(whys[0])
        playing = list(trials.values())
        for _ in range(_N_TURNS):
            for trial in playing:
                trial.play()
            if not counts_cpu and is_disturbed(trial.speeds() for trial in trials.values()):
                break
            seconds = {trial: trial.speeds().together_s for trial in playing}
            slowest = _HOPELESS * min(seconds.values())
            playing = [trial for trial in playing if seconds[trial] <= slowest]
    return {weights: trial.speeds() for weights, trial in trials.items()}


def _trial(model: WorkerModel, like: BenchOptions, clock: BenchClock) -> _ChatTrial | _EmbedTrial:
    if isinstance(model, IrEncoder) or (isinstance(model, Model) and like.embeds):
        return _EmbedTrial(model, like, clock)
    return _ChatTrial(model, like, clock)


def is_disturbed(speeds: Iterable[CopySpeeds]) -> bool:
    """Return whether other programs used the processor, by the copy whose threads got most of it.

    OpenVINO's threads rest in a part of each pass, llama.cpp's never: 0.82 and 0.95 side by side.
    """
    return max((found.share for found in speeds), default=0.0) < ENOUGH_CPU_SHARE


def require_gain(before: CopySpeeds, after: CopySpeeds, least_gain: float) -> None:
    """Raise `CopyRefused` if a copy is not fast enough to be worth it."""
    gain = before.together_s / after.together_s
    if gain < least_gain:
        raise CopyRefused(f"it would read documents {gain:.2f} times as fast on this machine")
    alone = after.seconds_per_document(after.answer) / before.seconds_per_document(before.answer)
    if alone > _LATEST_ALONE or after.answer < before.answer * _SLOWEST_ANSWER:
        raise CopyRefused("it would write one answer alone much more slowly")
