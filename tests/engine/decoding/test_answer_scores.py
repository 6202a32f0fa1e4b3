"""Log probabilities of given answers, beside those of llama-cpp-python's own evaluation."""

from collections.abc import Callable, Iterator

import llama_cpp
import numpy as np
import pytest

from paddock.engine.arrays import Tokens
from paddock.engine.chat.stream_parser import PlainTextParser
from paddock.engine.decoding.answer_scores import AnswerScores, telling_tokens
from paddock.engine.decoding.loop import CancelRequest
from paddock.engine.decoding.running_request import DecodeRequest
from paddock.engine.llama.llama_model import Model
from paddock.engine.request import AnswerScore, Sampling, answer_shares
from paddock.engine.sampling.picker import Picker
from paddock.engine.settings import CacheLayout
from tests.fakes import tiny

from .test_loop import Bench, closed, job  # noqa: F401

LONG = "the end of it " * 12
ANSWERS = ("a", "b c", "a longer answer", "zyx", "no", f"{LONG}now", f"{LONG}nowhere", f"{LONG}at")
TEXT = "The weather of the day was fine, and so were they.\nLabel: "


@pytest.fixture(scope="module", params=["llama", "copying", "sliding", "mamba", "hybrid"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tokens_of(model: Model, text: str, *, begins: bool = False) -> Tokens:
    return model.tokenise(text, with_special=begins, parse_special=False)


Scorer = Callable[[str, Tokens, Tokens], list[float]]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    """Yield what returns the log probability of each of some tokens after others."""
    folder, opened = tmp_path_factory.mktemp("same"), dict[str, llama_cpp.Llama]()

    def score(kind: str, prompt: Tokens, answer: Tokens) -> list[float]:
        if kind not in opened:
            path = getattr(tiny, kind)(folder / f"{kind}.gguf")
            opened[kind] = llama_cpp.Llama(
                str(path), n_ctx=512, n_threads=1, logits_all=True, flash_attn=True, verbose=False
            )
        llm, tokens = opened[kind], [*prompt.tolist(), *answer.tolist()]
        llm.n_tokens = 0
        llm.eval(tokens)
        rows = llm.logits_to_logprobs(np.array(llm.scores[: len(tokens)]))
        return [float(rows[len(prompt) - 1 + n, token]) for n, token in enumerate(answer.tolist())]

    yield score
    for llm in opened.values():
        llm.close()


def asked(
    model: Model, number: int, text: str, answers: list[Tokens], *, is_echo: bool = False
) -> DecodeRequest:
    prompt = tokens_of(model, text, begins=True)
    if is_echo:
        answers = [prompt[1:]]
    scores = AnswerScores(answers, model.piece, 0, is_echo=is_echo)
    longest = 4 if is_echo else max(map(len, answers))
    picker = Picker(Sampling(), prompt, model)
    return DecodeRequest(
        number, prompt, longest, "batch", picker, PlainTextParser(), drafts=False, scores=scores
    )


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_each_answer_has_the_probability_that_it_has_alone(
    tiny_model: Callable[[str], Model], theirs: Scorer, kind: str, layout: CacheLayout
) -> None:
    model = tiny_model(kind)
    answers = [tokens_of(model, text) for text in ANSWERS]
    texts = [TEXT, "Another text.\n" * 4 + "Label: "]
    bench = Bench(model, layout)
    requests = [asked(model, number, text, answers) for number, text in enumerate(texts)]
    bench.run([*requests, job(model, 7, TEXT, max_tokens=12, drafts=False)])
    done = {entry["id"]: entry for step in bench.steps for entry in step.done}
    for number, text in enumerate(texts):
        prompt = tokens_of(model, text, begins=True)
        told = telling_tokens(answers)
        for answer, score in zip(told, done[number]["scores"], strict=True):
            expected = sum(theirs(kind, prompt, answer))
            assert score == {"logprob": pytest.approx(expected, rel=5e-4), "n_tokens": len(answer)}
    assert done[0]["usage"]["completion_tokens"] == sum(map(len, told))


@pytest.mark.parametrize(
    ("texts", "n_after"),
    [
        (("a", "b c", "zyx", "no, but later"), []),
        (("at noon", "at night", "an hour", "no"), [4]),  # "at n"
        (("at noon", "at noon", "an hour"), [1]),
    ],
)
def test_only_what_tells_answers_apart_is_computed_in_one_pass_behind_their_prompt(
    tiny_model: Callable[[str], Model], texts: tuple[str, ...], n_after: list[int]
) -> None:
    model = tiny_model("copying")
    bench = Bench(model)
    bench.run([asked(model, 1, TEXT, [tokens_of(model, text) for text in texts])])
    n_prompt = len(tokens_of(model, TEXT, begins=True))
    assert [step.n_tokens for step in bench.steps] == [n_prompt, *n_after]


@pytest.mark.parametrize("layout", ["unified", "split"])
def test_a_prompts_own_tokens_have_theirs_and_the_answer_goes_on(
    tiny_model: Callable[[str], Model], theirs: Scorer, layout: CacheLayout
) -> None:
    model = tiny_model("copying")
    text = TEXT * 3  # more tokens than a step has rows
    plain, bench = Bench(model, layout), Bench(model, layout)
    said = plain.run([job(model, 1, text, max_tokens=4, drafts=False)])
    assert bench.run([asked(model, 1, text, [], is_echo=True)]) == said
    prompt = tokens_of(model, text, begins=True)
    found = [logprob for step in bench.steps for chunk in step.chunks for logprob in
             chunk.get("logprobs", ())]  # fmt: skip
    assert [value for _, value in found] == pytest.approx(
        theirs("copying", prompt[:1], prompt[1:]), rel=5e-4, abs=2e-2
    )
    assert bench.usages[1]["prompt_tokens"] == len(prompt)


def test_answers_are_scored_again_after_their_sequence_lost_its_cells(
    tiny_model: Callable[[str], Model],
) -> None:
    model = tiny_model("copying")
    answers = [tokens_of(model, text) for text in ANSWERS]
    alone, bench = Bench(model), Bench(model)
    alone.run([asked(model, 1, TEXT, answers)])
    requests = [asked(model, 1, TEXT, answers), asked(model, 2, TEXT + "b", answers)]

    def again() -> None:
        for sequence in [*bench.loop._scheduler.running]:
            bench.loop._scheduler.preempt(sequence)

    bench.run(requests, [(1, again), (2, CancelRequest(9))])
    done = {entry["id"]: entry for step in bench.steps for entry in step.done}
    (expected,) = [entry["scores"] for step in alone.steps for entry in step.done]
    assert [one["logprob"] for one in done[1]["scores"]] == pytest.approx(
        [one["logprob"] for one in expected], rel=5e-4
    )


def test_shares_of_unlikely_answers_are_no_division_by_zero() -> None:
    logprobs = (-2000.0, -2000.0 + float(np.log(3)), -9999.0)
    shares = answer_shares([AnswerScore(logprob) for logprob in logprobs])
    assert shares == pytest.approx([0.25, 0.75, 0.0])
