"""Claims that a model decides; recorded and replayed as all else."""

from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
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
