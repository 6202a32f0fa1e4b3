"""Claims that a model decides; recorded and replayed as all else."""

from dataclasses import replace
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import Bench, Nobody

PIPELINE = """\
steps: [{id: one, uses: prompt, with: {template: "The ferry leaves at nine."}}]
returns: steps.one.text
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, PIPELINE, "", n_documents=0)


def test_a_judge_is_asked_for_a_reason_and_a_verdict(bench: Bench) -> None:
    requests: list[ChatRequest] = []

    def judge(request: ChatRequest) -> str:
        requests.append(request)
        return '{"reason": "It names no harbour.", "verdict": "no"}'

    assert bench.problem("judge: It names the harbour.", pool=FakePool(answer=judge)) == (
        "judge",
        "smollm2:135m judges that what the run returns does not fulfil: It names the harbour.",
        "It says: It names no harbour.\n\nThe ferry leaves at nine.",
    )
    (request,) = requests
    assert request.constraint is not None
    assert request.messages[1].content == (
        "Requirement: It names the harbour.\n\nText:\n<text>\nThe ferry leaves at nine.\n</text>"
    )


def test_a_judge_may_choose_among_words_that_count(bench: Bench) -> None:
    claim = 'judge: {prompt: "How is {{ text }}", choices: {good: 1, fair: 0.5, bad: 0}}'
    pool = FakePool(answer=lambda request: '{"choice": "bad"}')
    assert bench.problem(claim, pool=pool) == (
        "judge",
        "smollm2:135m chooses 'bad' for what the run returns "
        "(scores: 'good' 1, 'fair' 0.5, 'bad' 0).",
        "The ferry leaves at nine.",
    )
    assert bench.case(pool=FakePool(answer=lambda request: '{"choice": "fair"}')).passed


def test_verdicts_are_recorded(bench: Bench) -> None:
    bench.tests = """
tests:
  - name: two documents
    replay: tests/cassettes
    expect:
      - {judge: It names the ferry.}
      - {similar: The ferry leaves at ten., at_least: -1}
"""
    bench.save()
    yes = FakePool(answer=lambda request: '{"reason": "It does.", "verdict": "yes"}')
    assert bench.case("record", pool=yes).passed
    assert bench.case("replay", pool=Nobody()).passed
    bench.edit("names the ferry", "names a ferry")
    case = bench.case("replay", pool=Nobody())
    assert "unseen" in [problem.kind for problem in case.problems]


class Exchanged(FakePool):
    """The same names, but other models behind them."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return replace(await super().facts(model), digest="another")


def test_another_judge_of_the_same_name_is_asked_again(bench: Bench) -> None:
    bench.tests = """
tests:
  - {name: two documents, replay: tests/cassettes, expect: [{judge: It names the ferry.}]}
"""
    bench.save()
    for pool in (FakePool, Exchanged):
        requests: list[ChatRequest] = []

        def answer(request: ChatRequest, requests: list[ChatRequest] = requests) -> str:
            requests.append(request)
            return '{"reason": "It does.", "verdict": "yes"}'

        assert bench.case("record", pool=pool(answer=answer)).passed
        assert len(requests) == 1
        assert bench.case("replay", pool=Nobody()).problems == ()
