"""The tests of a prompt file: each row of its data a case, its evaluators the claims."""

from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.errors import PipelineError
from paddock.runner.testing import suite_runner
from paddock.runner.testing.case_runner import ReplayMode
from paddock.runner.testing.junit_and_markdown import CaseResult, SuiteResult
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import Nobody

FILE = """\
name: Sums
model: openai/gpt-4o-mini
modelParameters: {maxTokens: 30}
messages:
  - {role: system, content: Be brief.}
  - {role: user, content: "Sum up {{input}}"}
testData:
  - {input: "the ferry {{ and }} {% more %}", expected: A ferry.}
  - {input: the bees, expected: Bees.}
evaluators:
  - {name: has, string: {contains: FERRY}}
  - {name: starts, string: {startsWith: "the "}}
  - {name: ends, string: {endsWith: "."}}
  - name: judged
    llm:
      modelId: openai/gpt-4o
      systemPrompt: You judge.
      prompt: "Is {{completion}} right for {{input}}?"
      choices: [{choice: right, score: 1}, {choice: wrong, score: 0}]
"""


def tried(file: Path, mode: ReplayMode = "auto", pool: FakePool | None = None) -> SuiteResult:
    (suite,) = suite_runner.run_suites(
        [suite_runner.read_suite(file)], suite_runner.SuiteOptions(mode, pool=pool or FakePool())
    )
    return suite


def answer(request: ChatRequest) -> str:
    if request.constraint is not None:
        return '{"choice": "right"}'
    return "The ferry, and more."


def problems(case: CaseResult) -> list[str]:
    return [problem.message for problem in case.problems]


def test_each_row_is_a_test_and_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "s.prompt.yml"
    file.write_text(FILE)
    pool = FakePool(answer=answer)
    suite = tried(file, "record", pool)
    assert suite.name == "Sums"
    assert [case.name for case in suite.cases] == [
        "1: the ferry {{ and }} {% more %}",
        "2: the bees",
    ]
    assert [case.word for case in suite.cases] == ["passed", "passed"]
    unread, model = suite.notes[:2]
    assert unread == (
        "s.prompt.yml: no evaluator reads `expected`, so an answer that differs passes, too"
    )
    assert model == (
        "s.prompt.yml: its model 'openai/gpt-4o-mini' is not available; the default one is used"
    )
    assert tried(file, "replay").notes == (unread,), "a replay asks no model"
    first, judge = pool.chats[:2]
    assert [(message.role, message.content) for message in first.messages] == [
        ("system", "Be brief."),
        ("user", "Sum up the ferry {{ and }} {% more %}"),
    ]
    assert first.params["max_tokens"] == 30
    assert judge.messages[1].content == (
        "Is The ferry, and more. right for the ferry {{ and }} {% more %}?"
    )
    assert [case.word for case in tried(file, "replay", Nobody()).cases] == ["passed", "passed"]


def test_what_an_evaluator_finds_is_told(tmp_path: Path) -> None:
    file = tmp_path / "s.prompt.yml"
    file.write_text(FILE)

    def wrong(request: ChatRequest) -> str:
        return '{"choice": "wrong"}' if request.constraint is not None else "A boat"

    suite = tried(file, pool=FakePool(answer=wrong))
    assert problems(suite.cases[0]) == [
        '`contains(text, "FERRY")`: It does not contain "FERRY"; it must.',
        '`text.strip().lower().startswith("the ")` is not true.',
        '`text.strip().lower().endswith(".")` is not true.',
        "smollm2:135m chooses 'wrong' for what the run returns (scores: 'right' 1, 'wrong' 0).",
    ]


def test_what_could_not_be_told_apart_is_a_fault_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "s.prompt.yml"
    file.write_text(
        FILE.replace("{choice: wrong, score: 0}", "{choice: right, score: 0}")
        .replace("Sum up {{input}}", "Sum up {{input}}, {{the-tone}}")
        .replace("input: the bees", "input: the bees, the-tone: dry")
    )
    with pytest.raises(PipelineError) as caught:
        suite_runner.read_suite(file)
    assert [(fault.message, fault.remedy) for fault in caught.value.faults] == [
        (
            "'the-tone' cannot be the name of a variable.",
            "Use only letters, digits and `_`, also in the messages.",
        ),
        (
            "a judge with a single choice decides nothing.",
            "Give it at least two different choices.",
        ),
    ]
    assert all(fault.mark is not None and fault.mark.line > 1 for fault in caught.value.faults)
