"""The owner thread's work on the real small model, in this process."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.chat.stream_parser import PlainTextParser
from paddock.engine.decoding import drafts, kv_cache, layout_plans, loop, scheduler_data
from paddock.engine.decoding.draft_model import DraftModel
from paddock.engine.decoding.kv_cache import KvCache
from paddock.engine.decoding.layout_plans import CacheOptions
from paddock.engine.decoding.loop import (
    CancelRequest,
    DecodeLoop,
    IdleWork,
    LoopMessage,
    Shutdown,
    WidenContext,
)
from paddock.engine.decoding.mtp_head import MtpHead
from paddock.engine.decoding.running_request import DecodeRequest, StepOutput
from paddock.engine.decoding.scheduler_data import CopyPrefix, Sequence, TrimCells
from paddock.engine.errors import EngineError, PromptTooLong
from paddock.engine.llama.forward_context import ChatModel, ForwardContext
from paddock.engine.llama.library import CacheFull, LoadFailed, route_llama_log
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.llama.thread_governor import ThreadGovernor
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile import measure as profiling
from paddock.engine.profile.measure import BenchClock, drafts_keep_answers
from paddock.engine.profile.profile import Agreement, DecodePoint, PrefillPoint, Profile
from paddock.engine.request import Constraint, Priority, Sampling
from paddock.engine.sampling.constraint import GrammarCompiler, TokenMatcher
from paddock.engine.sampling.picker import Picker
from paddock.engine.settings import CacheLayout
from paddock.engine.system.hardware import MainMemory
from paddock.engine.system.records import replace
from tests.calls import note_calls

NEWS = (
    "The town council of Elmbridge met on Tuesday to discuss the new bridge over the river Tarn. "
    "The old bridge, built in 1897, could carry no more than 12 tonnes. The new one will cost 4.2 "
    "million pounds and be finished in autumn 2025. The council voted nine to two in favour."
)
BEGINNING = NEWS[:91]
# No letter occurs twice in any of them: what follows a letter is what followed it before.
WORDS = (
    "uncopyrightable", "dermatoglyphics", "misconjugatedly", "hydromagnetics", "ambidextrously",
)  # fmt: skip


def repeated(words: str) -> str:
    """Begin words for the seventh time, so that every processor goes on alike."""
    return f"{words} " * 6 + words[:3]


SURE = tuple(f"{BEGINNING}\n{repeated(word)}" for word in WORDS)
# Two words are all but equally likely in several places of its answers.
DOUBTFUL = tuple(
    f"Read this text.\n{NEWS}\n{question}\n"
    for question in (
        "Repeat the text word for word:",
        "What does it say of the old bridge? Answer:",
        "Summarise it in one sentence:",
    )
)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[str], Model]) -> Model:
    return tiny_model("copying")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    route_llama_log()
    folder = tmp_path_factory.mktemp("models")
    found = ModelFinder(folder, folder).locate("smollm2:135m")
    model = Model(Path(found.path), ModelOptions(n_gpu_layers=0))
    yield model
    model.close()


Later = Iterable[tuple[int, LoopMessage | Callable[[], None]]]
"""What comes after so many turns."""

_OPENED: list[KvCache[Any]] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Free what a test opened: all together are gigabytes."""
    yield
    while _OPENED:
        _OPENED.pop().close()


@dataclass
class Bench:
    """A loop that is run to its end."""

    model: ChatModel[Any]
    layout: CacheLayout = "unified"
    n_cells: int = 8192
    n_parallel: int = 4
    n_host_cache_tokens: int = 0
    is_gpu: bool = False
    draft_model: DraftModel | MtpHead | None = None
    profile: Profile | None = None
    n_batch_tokens: int = 256
    n_threads: int = 1
    texts: dict[int, str] = field(default_factory=dict)
    steps: list[StepOutput] = field(default_factory=list)

    def __post_init__(self) -> None:
        wishes = CacheOptions(
            n_ctx_tokens=min(self.n_cells, 1024),
            n_cells=self.n_cells,
            n_parallel=self.n_parallel,
            options=replace(
                options(), n_batch_tokens=self.n_batch_tokens, n_threads=self.n_threads
            ),
            layout=self.layout,
            n_host_cache_tokens=self.n_host_cache_tokens,
            is_gpu=self.is_gpu,
        )
        self.cache = KvCache(self.model, wishes, self.profile)
        _OPENED.append(self.cache)
        self.widened: list[int] = []
        self.refused: dict[int, EngineError] = {}
        self.loop = DecodeLoop(
            self.cache, self._hear, self.widened.append, self._refuse, self.draft_model
        )
        self._n_left = 0
        self._later: Later = ()

    def _hear(self, step: StepOutput) -> None:
        self.steps.append(step)
        json.dumps(step.as_head())  # it goes to the pool in a frame
        for chunk in step.chunks:
            self.texts[chunk["id"]] = self.texts.get(chunk["id"], "") + chunk["text"]
        for _, post in [entry for entry in self._later if entry[0] == len(self.steps)]:
            if callable(post):
                post()
            else:
                self.loop.post(post)
        self._end(len(step.done))

    def _refuse(self, request_id: int, error: EngineError) -> None:
        self.refused[request_id] = error
        self._end(1)

    def _end(self, n_requests: int) -> None:
        self._n_left -= n_requests
        if self._n_left == 0:
            self.loop.post(Shutdown())

    def run(self, jobs: Iterable[DecodeRequest], later: Later = ()) -> dict[int, str]:
        """Serve jobs to their end; each of the `later` ones is posted or called after a turn."""
        requests, self._later = list(jobs), list(later)
        self._n_left = len(requests) + sum(
            isinstance(post, DecodeRequest) for _, post in self._later
        )
        for job in requests:
            self.loop.post(job)
        self.loop._is_open = True
        self.loop.run()
        return {
            number: self.texts[number]
            for job in requests
            if (number := job.request_id) in self.texts
        }

    def total(self, name: str) -> float:
        """Return the sum of a number over the usage of all answers."""
        return sum(usage[name] for usage in self.usages.values())

    @property
    def usages(self) -> dict[int, dict[str, float]]:
        return {done["id"]: done["usage"] for step in self.steps for done in step.done}


def options() -> ContextOptions:
    return ContextOptions(n_ctx_tokens=8192, n_batch_tokens=256, n_seq_max=8, n_threads=1)


def job(
    model: Vocabulary,
    number: int,
    text: str,
    *,
    max_tokens: int = 24,
    priority: Priority = "batch",
    drafts: bool | None = True,
    sampling: Sampling | None = None,
) -> DecodeRequest:
    prompt = model.tokenise(text, with_special=True, parse_special=False)
    picker = Picker(sampling or Sampling(), prompt, model)
    return DecodeRequest(
        number, prompt, max_tokens, priority, picker, PlainTextParser(), drafts=drafts
    )


def held_to(
    matcher: TokenMatcher, request: DecodeRequest, n_logprobs: int | None = None
) -> DecodeRequest:
    picker = Picker(
        Sampling(), request.prompt, request.picker._model, matcher=matcher.new(),
        max_tokens=request.max_tokens, n_logprobs=n_logprobs,
    )  # fmt: skip
    return replace(request, picker=picker)


def jobs(
    model: Model, *, texts: tuple[str, ...] = SURE, drafts: bool | None = True, max_tokens: int = 24
) -> list[DecodeRequest]:
    return [
        job(model, number, text, drafts=drafts, max_tokens=max_tokens)
        for number, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[int, str]:
    """What is said by each alone, without guesses."""
    return said_alone(model, jobs(model, drafts=False))


def said_alone(model: Model, requests: list[DecodeRequest]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for request in requests:
        texts |= Bench(model).run([request])
    return texts


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_answers_are_the_same_with_and_without_guesses_and_as_alone(
    model: Model, layout: CacheLayout, alone: dict[int, str]
) -> None:
    bench, plain = Bench(model, layout), Bench(model, layout)
    texts = bench.run(jobs(model))
    assert texts == plain.run(jobs(model, drafts=False)) == alone
    assert texts[0] == "opyrightable uncopyright"[:24]
    reused = sorted(usage["prompt_reused_tokens"] for usage in bench.usages.values())
    assert reused[0] == 0
    assert reused[1] >= 70, "the text is read once for all"


def test_a_batch_smaller_than_the_sequences_of_a_step_is_no_end_of_the_process(
    model: Model,
) -> None:
    bench = Bench(model, n_parallel=24, n_batch_tokens=16)
    texts = tuple(f"{number} and" for number in range(28))
    assert len(bench.run(jobs(model, texts=texts, max_tokens=3))) == 28
    limits = bench.cache.limits
    assert limits.n_batch_tokens == bench.cache.context.options.n_rows_max == limits.n_rows >= 72


# In a unified cache an answer may also depend on those beside it, with or without guesses.
@pytest.mark.parametrize(("layout", "n_parallel"), [("unified", 1), ("split", 4)])
def test_where_the_profile_promises_it_guesses_change_no_doubtful_answer_either(
    real: Model, layout: CacheLayout, n_parallel: int, profile: Profile
) -> None:
    bench = Bench(real, layout, n_parallel=n_parallel, profile=profile)
    plain = Bench(real, layout, n_parallel=n_parallel)
    texts = bench.run(jobs(real, texts=DOUBTFUL, drafts=None))
    assert texts == plain.run(jobs(real, texts=DOUBTFUL, drafts=False))
    n_drafted = bench.total("drafted_tokens")
    assert bool(n_drafted) == profile.agreement.drafts


@pytest.fixture(scope="module")
def profile(real: Model) -> Profile:
    """Make a profile that knows of drafts what is so on this machine."""
    bench = profiling.Bench(
        real, profiling.BenchOptions(512, 256, 1), clock := BenchClock(60.0, 1), 1
    )
    with bench.context:
        return profile_of(drafts_keep_answers=drafts_keep_answers(bench, clock))


def profile_of(*, drafts_keep_answers: bool | None) -> Profile:
    return Profile("", "cpu", "", 0.0, agreement=Agreement(drafts=drafts_keep_answers))


@pytest.mark.parametrize(
    ("keeps", "drafts", "is_drafted"),
    [
        (True, None, True), (None, None, True), (False, None, False),
        (False, True, True), (True, False, False),
    ],
)  # fmt: skip
def test_tokens_are_guessed_where_answers_stay_the_same_or_it_is_asked_for(
    model: Model, keeps: bool | None, drafts: bool | None, is_drafted: bool
) -> None:
    bench = Bench(model, profile=profile_of(drafts_keep_answers=keeps))
    bench.run([job(model, 0, SURE[0], drafts=drafts)])
    assert bool(bench.usages[0]["drafted_tokens"]) == is_drafted


def test_guesses_from_the_prompt_are_accepted_where_it_is_repeated(model: Model) -> None:
    bench, plain = Bench(model), Bench(model)
    texts = bench.run([job(model, 0, SURE[0], max_tokens=60)])
    expected = plain.run([job(model, 0, SURE[0], max_tokens=60, drafts=False)])
    assert texts == expected
    usage = bench.usages[0]
    assert usage["accepted_tokens"] >= 20
    assert len(bench.steps) < len(plain.steps) - 10, "fewer steps for the same answer"


def test_a_draft_model_guesses_ahead_and_changes_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch, alone: dict[int, str]
) -> None:
    monkeypatch.setattr(drafts, "N_GRAM", 500)  # so that nothing is copied from the prompt
    small = DraftModel(model, model, options())
    bench = Bench(model, draft_model=small)
    assert bench.run(jobs(model)) == alone
    n_drafted, n_accepted = bench.total("drafted_tokens"), bench.total("accepted_tokens")
    assert n_accepted >= 0.8 * n_drafted > 10, "it is the same model"
    small.close()


def test_a_conversation_is_brought_back_from_outside_the_cache(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(model, n_host_cache_tokens=4000)
    first = bench.run([job(model, 0, SURE[1], priority="interactive", max_tokens=8)])
    bench.run([job(model, 1, "Tell me of ships. " * 20)])
    longer = SURE[1] + first[0]
    bench.run([job(model, 2, longer, priority="interactive")])
    assert bench.usages[2]["prompt_reused_tokens"] > 95
    alone = Bench(model).run([job(model, 2, longer, priority="interactive")])
    assert bench.texts[2] == alone[2]
    assert bench.cache._saved
    monkeypatch.setattr(kv_cache, "read_memory", lambda: MainMemory(32 * 1024**3, 1024**3))
    bench.loop._recheck_at = 0.0
    bench.run([job(model, 3, "Tell me of ships.", max_tokens=1)])
    assert not bench.cache._saved, "main memory runs short"


def test_a_longer_request_neither_disturbs_those_that_run_nor_holds_up_a_chat(
    model: Model, alone: dict[int, str]
) -> None:
    bench = Bench(model, "split", n_parallel=3)
    long = job(model, 8, f"{BEGINNING} " * 12 + SURE[2], max_tokens=4)
    chat = job(model, 9, SURE[3], max_tokens=2, priority="interactive")
    later: Later = [(4, WidenContext(7, 2048, 8192)), (4, long), (6, chat)]
    assert len(long.prompt) + 4 > bench.cache.limits.n_longest_tokens
    texts = bench.run(jobs(model, texts=SURE[:2], drafts=False), later)
    assert bench.widened == [7]
    assert texts == {number: alone[number] for number in (0, 1)}
    assert bench.total("n_preempted") == 0
    assert next(iter(bench.usages)) == 9, "the chat waits for none of them"


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_answers_go_on_as_they_were_when_the_context_is_changed_amid_them(
    model: Model, layout: CacheLayout, alone: dict[int, str]
) -> None:
    bench = Bench(model, layout, n_parallel=5)
    other: CacheLayout = "split" if layout == "unified" else "unified"

    def change() -> None:
        n_used.append(bench.steps[-1].n_cells_used)
        planner = bench.cache.planner
        planner.options = replace(planner.options, layout=other)
        bench.loop._remake([answer.sequence for answer in bench.loop._answers.values()])
        n_used.append(bench.loop._scheduler.slots.cells.n_used)

    n_used: list[int] = []
    assert bench.run(jobs(model, drafts=False), [(8, change)]) == alone
    assert bench.cache.limits.is_unified == (other == "unified")
    assert sum(step.n_preempted for step in bench.steps) == 0, "nothing is computed again"
    shared, apart = n_used if layout == "unified" else reversed(n_used)
    assert shared + 4 * 70 < apart, "what they begin with is shared again in a unified cache"


@pytest.mark.parametrize(
    ("n_parallel", "n_cells", "n_each"),
    [(8, 12 * 4096, 4096), (8, 12 * 2048, 2048), (4, 3072, 1024)],
)
def test_streams_on_a_graphics_device_take_all_planned_cells_at_once(
    tiny_model: Callable[[str], Model], n_parallel: int, n_cells: int, n_each: int
) -> None:
    wishes = CacheOptions(4096, n_cells, n_parallel, options(), "split", is_gpu=True)
    _OPENED.append(cache := KvCache(tiny_model("sliding"), wishes))
    assert (cache.limits.n_cells_each, cache.limits.n_cells) == (n_each, n_cells)
    assert cache.limits.n_longest_tokens == n_each


@pytest.mark.parametrize(("kind", "n_each"), [("sliding", 4096), ("copying", 2048)])
def test_streams_of_a_window_on_a_processor_grow_only_once(
    tiny_model: Callable[[str], Model], kind: str, n_each: int
) -> None:
    wishes = CacheOptions(8192, 12 * 4096, 8, options(), "split")
    _OPENED.append(cache := KvCache(tiny_model(kind), wishes))
    assert cache.limits.n_cells_each == 1024, "memory is taken when it is needed"
    for n_tokens, expected in ((1024, 1024), (1025, n_each), (4097, 8192)):
        long = Sequence(0, np.zeros(n_tokens - 8, np.int32), 8)
        assert cache.planner.plan([long]).limits.n_cells_each == expected


@pytest.mark.parametrize(
    ("n_computed", "cell_bytes", "is_suited"),
    [(0, 131_072, False), (100, 131_072, False), (1000, 131_072, True), (1000, 1024, False)],
)
def test_on_a_graphics_device_another_layout_must_gain_more_than_moving_all_cells_takes(
    model: Model, n_computed: int, cell_bytes: float, is_suited: bool
) -> None:
    """The gain is 1.2 s; 8 x 1,000 tokens of 8 billion weights take 0.4 s, the context 0.5 s."""
    points = tuple(
        DecodePoint(n, depth, is_unified, n * (50 if is_unified else 42.7))
        for n in (1, 8)
        for depth in (64, 256)
        for is_unified in (True, False)
    )
    profile = replace(
        profile_of(drafts_keep_answers=None),
        cell_bytes=cell_bytes,
        prefill=(PrefillPoint(64, 5000.0),),
        decode=points,
    )
    bench = Bench(model, "split", n_parallel=8, n_cells=12 * 1024, is_gpu=True, profile=profile)
    planner, present = bench.cache.planner, bench.cache.present
    planner.options = replace(planner.options, layout="auto")
    sequences = [Sequence(n, np.full(200, n, np.int32), 350) for n in range(8)]
    for sequence in sequences:
        sequence.n_computed = n_computed
    assert planner.plan(sequences).limits.is_unified
    assert planner.is_suited(present, sequences, is_running=True) == is_suited


def test_a_request_for_which_no_context_can_be_made_is_refused_and_the_others_go_on(
    model: Model, alone: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(model: Model, options: ContextOptions) -> Context:
        if options.n_ctx_tokens > 2048:
            raise LoadFailed("failed to allocate buffer for kv cache")
        return Context(model, options)

    monkeypatch.setattr(Model, "open_context", make)
    bench = Bench(model, "split", n_parallel=2, n_cells=2048)
    long = job(model, 8, f"{BEGINNING} " * 40, max_tokens=4)
    later: Later = [(4, WidenContext(7, 4096, 8192)), (4, long)]
    texts = bench.run(jobs(model, texts=SURE[:2], drafts=False), later)
    assert texts == {number: alone[number] for number in (0, 1)}
    assert bench.total("n_preempted") == 0
    error = bench.refused[8]
    assert isinstance(error, PromptTooLong)
    assert error.n_ctx_tokens < error.n_prompt_tokens == len(long.prompt)


def test_a_request_that_is_given_up_ends_at_the_next_step(model: Model) -> None:
    bench = Bench(model)
    gone = job(model, 0, SURE[0], max_tokens=200)

    def hear(step: StepOutput) -> None:
        bench._hear(step)
        if len(bench.steps) == 3:
            bench.loop.post(CancelRequest(0))

    bench.loop._on_step = hear
    bench.loop.post(gone)
    bench.run([job(model, 1, SURE[1], max_tokens=40)])
    assert all(chunk["id"] != 0 for step in bench.steps[4:] for chunk in step.chunks)
    assert 0 not in bench.usages


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_an_answer_without_an_end_gets_room_as_it_grows(
    model: Model, layout: CacheLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_plans, "LEAST_STREAM_TOKENS", 256)
    monkeypatch.setattr(scheduler_data, "LIKELY_ANSWER_TOKENS", 64)
    monkeypatch.setattr(loop, "RECHECK_LAYOUT_S", 0.0)  # the whole answer takes less than the usual
    forever = Sampling(logit_bias={257: -100}, guards_repetition=False)

    def answers_of(bench: Bench) -> dict[int, str]:
        return bench.run(
            replace(job(model, n, SURE[n], max_tokens=280, sampling=forever), is_open=True)
            for n in range(2)
        )

    bench = Bench(model, layout, n_parallel=2)
    assert bench.cache.limits.n_cells < 1024
    texts = answers_of(bench)
    assert [usage["completion_tokens"] for usage in bench.usages.values()] == [280, 280]
    assert bench.total("n_preempted") == 0
    assert bench.cache.limits.n_cells >= 2 * 390
    monkeypatch.undo()
    roomy = Bench(model, layout, n_parallel=2)
    expected = answers_of(roomy)
    assert texts == expected


# Where llama.cpp finds no cells although the books have some


def lacks_cells(
    monkeypatch: pytest.MonkeyPatch, context: ForwardContext[Any], *, n_times: int
) -> list[int]:
    """Make a context's next decodes find no room; return how many sequences each had."""
    decode = Context.decode
    failed: list[int] = []

    def full(self: Context, *args: Any) -> int:
        if self is context and len(failed) < n_times:
            failed.append(len(set(args[2].tolist())))
            raise CacheFull
        return decode(self, *args)

    monkeypatch.setattr(Context, "decode", full)
    return failed


def test_one_that_finds_no_cells_alone_starts_over_once_and_is_then_refused(
    tiny_model: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("sliding")
    texts = Bench(model).run([job(model, 0, "a" * 60)])
    bench = Bench(model)
    lacks_cells(monkeypatch, bench.cache.context, n_times=1)
    assert bench.run([job(model, 0, "a" * 60)]) == texts
    bench = Bench(model)
    failed = lacks_cells(monkeypatch, bench.cache.context, n_times=1000)
    bench.run([job(model, 0, "a" * 60)])
    assert failed == [1, 1]
    assert "60 tokens do not fit into the model's cache" in str(bench.refused[0])
    monkeypatch.undo()
    assert bench.run([job(model, 0, "a" * 60)]) == texts, "the worker goes on"


def test_of_many_that_find_no_cells_the_youngest_waits(
    tiny_model: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("sliding")

    def requests() -> list[DecodeRequest]:
        return [job(model, n, letter * 60) for n, letter in enumerate("abc")]

    texts, bench = Bench(model).run(requests()), Bench(model)
    lacks_cells(monkeypatch, bench.cache.context, n_times=2)
    assert bench.run(requests()) == texts
    assert [usage["n_preempted"] for _, usage in sorted(bench.usages.items())] == [0, 1, 1]


# While nothing runs


def test_equal_requests_of_one_model_have_equal_answers_or_other_fingerprints(real: Model) -> None:
    """With flash attention fewer threads change greedy answers, as beside a busy program."""
    bench = Bench(real, "split", n_threads=2)
    context, texts = bench.cache.context, dict[str, set[str]]()
    long = f"{NEWS} {NEWS} {NEWS} {NEWS}\n{DOUBTFUL[2]}"
    n_threads = [2, 2, 1, 2, 1, 2]
    assert isinstance(context, Context)
    for number, n in enumerate(n_threads):
        context._governors = {many: Governed(n) for many in (False, True)}
        bench.run([job(real, number, long, drafts=False, max_tokens=20)])
    ends = {done["id"]: done for step in bench.steps for done in step.done}
    for number, end in ends.items():
        texts.setdefault(end["fingerprint"], set()).add(bench.texts[number])
    assert all(len(alike) == 1 for alike in texts.values()), texts
    found = [ends[number]["fingerprint"] for number in range(6)]
    assert found[1] == found[3] == found[5] != found[2] == found[4]
    assert found[0] != found[1], "its last tokens were computed in another piece"


class Governed(ThreadGovernor):
    """Has a number of threads, as if measured."""

    def observe(self, wall_s: float, cpu_s: float, n_tokens: int = 1) -> int:
        return self.n_threads


# Models whose memory cannot be cut at any place

FORM = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "is_large": {"type": "boolean"}},
    "required": ["colour", "is_large"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("kind", ["mamba", "hybrid", "sliding"])
def test_a_model_of_any_memory_fills_in_forms(
    tiny_model: Callable[[str], Model], kind: str
) -> None:
    model = tiny_model(kind)
    with closing(GrammarCompiler(model)) as grammars:
        form = grammars.matcher(Constraint("json_schema", json.dumps(FORM)))

    def filled(number: int, prompt: str) -> DecodeRequest:
        return held_to(form, job(model, number, prompt, max_tokens=100))

    prompts = [f"{letter * 40} fill in" for letter in "abc"]
    bench = Bench(model)
    texts = bench.run(filled(number, prompt) for number, prompt in enumerate(prompts))
    assert all(set(json.loads(text)) == {"colour", "is_large"} for text in texts.values())
    drafted = [
        (usage["drafted_tokens"], usage["accepted_tokens"]) for usage in bench.usages.values()
    ]
    assert all(n == n_accepted > 10 for n, n_accepted in drafted), "the last one counts, too"
    for number, prompt in enumerate(prompts):
        assert Bench(model).run([filled(number, prompt)]) == {number: texts[number]}


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_tokens_that_a_form_forces_are_said_without_logits(
    tiny_model: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch, layout: CacheLayout
) -> None:
    model = tiny_model("sliding")
    with closing(GrammarCompiler(model)) as grammars:
        form = grammars.matcher(Constraint("json_schema", json.dumps(FORM)))
    n_rows: list[int] = []

    def filled(*, n_logprobs: int | None) -> tuple[dict[int, str], int, float]:
        n_rows.clear()
        bench = Bench(model, layout)
        texts = bench.run(
            held_to(
                form,
                job(model, number, f"{letter * 40} fill in", max_tokens=100, drafts=False),
                n_logprobs,
            )
            for number, letter in enumerate("ab")
        )
        return texts, sum(n_rows), bench.total("completion_tokens")

    note_calls(monkeypatch, Context, "decode", lambda n, *_: n_rows.append(n))
    texts, n_few, n_tokens = filled(n_logprobs=None)
    assert filled(n_logprobs=0) == (texts, n_few, n_tokens), "their probability is known: 1"
    monkeypatch.setattr(Picker, "follow", lambda _: None)
    expected, n_all, _ = filled(n_logprobs=None)
    assert texts == expected
    assert n_few < 0.5 * n_tokens <= n_all


@pytest.mark.parametrize(("n_answers", "is_ahead"), [(2, True), (8, False)])
def test_forced_tokens_go_one_by_one_where_a_pass_of_their_own_costs_more_than_steps(
    model: Model, n_answers: int, is_ahead: bool
) -> None:
    """A step takes 12 ms with one answer or with eight, so 8 answers in 10 ms gain more."""
    profile = replace(
        profile_of(drafts_keep_answers=None),
        device="gpu",
        prefill=(PrefillPoint(64, 10_000.0),),
        decode=tuple(
            DecodePoint(n, depth, False, n / 0.012) for n in (1, 8) for depth in (64, 512)
        ),
    )
    bench = Bench(model, "split", n_parallel=8, n_cells=12 * 1024, is_gpu=True, profile=profile)
    with closing(GrammarCompiler(model)) as grammars:
        form = grammars.matcher(Constraint("json_schema", json.dumps(FORM)))
        texts = bench.run(
            held_to(form, job(model, number, "fill in", max_tokens=100, drafts=False))
            for number in range(n_answers)
        )
    assert all(set(json.loads(text)) == {"colour", "is_large"} for text in texts.values())
    assert bool(bench.total("accepted_tokens")) == is_ahead


@pytest.mark.parametrize("kind", ["mamba", "hybrid", "sliding"])
@pytest.mark.parametrize("layout", ["unified", "split"])
def test_a_conversation_goes_on_from_the_memory_of_its_last_turn(
    tiny_model: Callable[[str], Model], kind: str, layout: CacheLayout
) -> None:
    model = tiny_model(kind)
    bench = Bench(model, layout, n_host_cache_tokens=2000)
    turn = job(model, 0, "a" * 200, max_tokens=8, priority="interactive", drafts=False)
    answer = Sampling(logit_bias={token: 100 for token in b"!"})
    turn = replace(turn, picker=Picker(answer, turn.prompt, model))
    bench.run([turn])
    other = job(model, 1, "b" * 300, max_tokens=8, priority="interactive", drafts=False)
    bench.run([other])  # in a unified cache the first turn is moved out
    following = "a" * 200 + "!" * 8 + "c" * 20
    goes_on = job(model, 2, following, max_tokens=8, priority="interactive", drafts=False)
    texts = bench.run([goes_on])
    assert bench.usages[2]["prompt_reused_tokens"] >= 207, "all but the last token, never computed"
    assert bench.usages[1]["prompt_reused_tokens"] == 0
    again = job(model, 2, following, max_tokens=8, priority="interactive", drafts=False)
    assert Bench(model, layout).run([again]) == texts


def test_a_model_with_a_sliding_window_shares_beginnings_in_streams_of_their_own(
    tiny_model: Callable[[str], Model],
) -> None:
    model = tiny_model("sliding")

    def requests() -> list[DecodeRequest]:
        return [job(model, n, "a" * 200 + letter * 40) for n, letter in enumerate("bcde")]

    bench, unified = Bench(model, "auto"), Bench(model, "unified")
    assert not bench.cache.limits.is_unified
    bench.run(requests())
    assert [usage["prompt_reused_tokens"] for usage in bench.usages.values()].count(200) == 3
    unified.run(requests())  # where llama.cpp may have given away the cells before a window
    assert not unified.total("prompt_reused_tokens")


def test_idle_work_has_the_loop_for_itself_until_a_message_comes(model: Model) -> None:
    bench = Bench(model)
    seen: list[str] = []

    def work(should_stop: Callable[[], bool]) -> None:
        seen.append(f"idle {should_stop()}")
        bench.loop.post(job(model, 1, "Hello", max_tokens=4))
        seen.append(f"asked {should_stop()}")

    def late(should_stop: Callable[[], bool]) -> None:
        seen.append(f"running {should_stop()}")

    bench.loop.post(IdleWork(work))
    bench._n_left, bench._later = 1, [(2, IdleWork(late))]
    bench.loop.run()
    assert seen == ["idle False", "asked True", "running True"]
    assert bench.texts[1]


def test_what_is_shared_of_a_sliding_window_is_exact(tiny_model: Callable[[str], Model]) -> None:
    model = tiny_model("sliding")
    known, rest = (np.random.default_rng(n).integers(0, 255, 200).astype(np.int32) for n in (1, 2))
    donor, fresh = Bench(model, "split").cache, Bench(model, "split").cache

    def read(cache: KvCache[Any], seq_id: int, tokens: Tokens, pos: int) -> Logits:
        slots = np.arange(pos, pos + len(tokens), dtype=np.int32)
        output_mask = (np.arange(len(tokens)) == len(tokens) - 1).astype(np.int8)
        seq_ids = np.full(len(tokens), seq_id, np.int32)
        n_rows = cache.context.decode(tokens, slots, seq_ids, output_mask)
        return cache.context.logits(n_rows).copy()

    for seq_id in (0, 2):
        read(donor, seq_id, known, 0)
        read(donor, seq_id, rest, 200)
    donor.apply_operations([CopyPrefix(0, 1, 100), TrimCells(0, 100)])
    read(fresh, 0, known[:100], 0)
    expected = read(fresh, 0, rest, 100)
    assert np.array_equal(read(donor, 0, rest, 100), expected)
    assert np.array_equal(read(donor, 1, rest, 100), expected)
