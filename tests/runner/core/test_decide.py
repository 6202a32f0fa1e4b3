"""`uses: decide`: labels compared by their probability, as `chat` in all that comes after."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec
from paddock.engine.system.records import replace
from paddock.runner.cli.plan_text import plan_text
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.testing.bench import Bench, Nobody
from tests.runner.world import ReviewedWorld, each_document, errors

SORTED = """\
name: sorted
models: {clerk: small}
""" + each_document("""\
      - id: label
        uses: decide
        with: {model: clerk, prompt: "{{ steps.text.text }}"}
        reply:
          schema:
            tag: {choose: "['ferry', 'bridge', 'tram']"}
          evidence: steps.text.text
          confidence: true
        review: {when: "output.tag == 'tram'"}
    returns: {file: doc.relpath, tag: steps.label.output.tag, sure: steps.label.confidence.tag.p,
              second: steps.label.confidence.tag.second, quote: steps.label.evidence.tag.quote}
returns: steps.each.results
""")
SHARE = round(math.exp(-0.25) / (math.exp(-0.25) + 2 * math.exp(-3.0)), 4)


def clerk(request: ChatRequest) -> str:
    """Choose the label that the document mentions; none of the question alone."""
    text = request.messages[-1].content
    return next((label for label in request.answers if f" {label}." in text), "")


def world(folder: Path, pipeline: str = SORTED) -> ReviewedWorld:
    words = ("ferry", "bridge", "tram")
    documents = {f"inbox/{n}.txt": f"About a {word}." for n, word in enumerate(words)}
    return ReviewedWorld(folder, pipeline, documents)


def test_labels_are_compared_reviewed_and_asked_once(tmp_path: Path) -> None:
    here = world(tmp_path)
    report = here.run(pool=FakePool(answer=clerk))
    assert report.returns == [
        {"file": "0.txt", "tag": "ferry", "sure": SHARE, "second": "bridge", "quote": "ferry"},
        {"file": "1.txt", "tag": "bridge", "sure": SHARE, "second": "ferry", "quote": "bridge"},
    ]
    (request, *_) = here.pool.chats
    assert request.constraint is None and request.think is False
    assert request.answers == ("ferry", "bridge", "tram")
    (message,) = request.messages
    begins = 'Decide "tag".\n\nAnswer with one of these, and nothing else:\n- ferry\n- bridge'
    assert message.content.startswith(begins), "what all prompts share is computed once"
    assert [*here.waiting()] == ["2.txt"]
    here.decide("2.txt", "edit", {"tag": "ferry"})
    again = here.run(pool=FakePool(answer=clerk))
    assert [row["tag"] for row in again.returns] == ["ferry", "bridge", "ferry"]
    assert here.pool.chats == [], "the ledger knows how likely each was"
    here.edit("'tram']", "'tram', 'train']")
    assert "schema changed (step 'label')" in plan_text(here.plan())


def test_several_fields_are_asked_behind_one_text(tmp_path: Path) -> None:
    text = SORTED.replace("          evidence", "            wet: bool\n          evidence")
    here = world(tmp_path, text.replace("quote: steps.label.evidence.tag.quote",
                                        "wet: steps.label.output.wet"))  # fmt: skip

    def either(request: ChatRequest) -> str:
        is_alone = "About" not in request.messages[-1].content
        return "" if is_alone else clerk(request) or request.answers[-1]

    report = here.run(pool=FakePool(answer=either))
    assert [row["wet"] for row in report.returns] == [False, False]
    asked = Counter(
        (request.answers, request.messages[0].content[:7]) for request in here.pool.chats
    )
    tag, wet = ("ferry", "bridge", "tram"), ("true", "false")
    assert asked == {
        (tag, "About a"): 3,
        (wet, "About a"): 3,
        (tag, "Decide "): 1,
        (wet, "Decide "): 1,
    }


FAULTS = {
    "no list": ("{choose: \"['ferry', 'bridge', 'tram']\"}", "str",
                "step 'decide' compares labels, and field 'tag' is no list of them."),
    "many of a list": ("'tram']\"}", "'tram']\", most: 2}",
                       "step 'decide' compares labels, and field 'tag' is no list of them."),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_list_of_labels_is_refused(tmp_path: Path, name: str) -> None:
    before, after, message = FAULTS[name]
    here = world(tmp_path, SORTED.replace(before, after))
    fault = fault_of(here.plan)
    assert (fault.message, fault.remedy) == (message, "Choose among labels, or use 'chat'.")


def test_without_a_schema_there_is_nothing_to_compare(tmp_path: Path) -> None:
    start, end = SORTED.index("        reply:"), SORTED.index("    returns: {file")
    here = world(tmp_path, SORTED[:start] + SORTED[end:].partition("tag: steps")[0] + "n: 1}\n")
    assert fault_of(here.plan).message == (
        "step 'decide' needs `reply.schema`, with the labels to choose from."
    )


class Elsewhere(FakePool):
    async def facts(self, model: ModelSpec) -> ModelFacts:
        return replace(await super().facts(model), compares_answers=False)


def test_a_server_that_cannot_compare_is_refused_before_the_run(tmp_path: Path) -> None:
    here = world(tmp_path)
    pool = Elsewhere(answer=clerk)
    fault = fault_of(lambda: here.run(pool=pool))
    assert fault.message == (
        "the server of model 'clerk' cannot compare given answers: it has no /v1/decisions and no "
        "/v1/systemone."
    )
    assert fault.remedy.startswith("Use 'chat' with an `enum` there") and pool.chats == []


def test_a_check_that_fails_is_told_with_the_label(tmp_path: Path) -> None:
    here = world(tmp_path, SORTED.replace("          evidence", """\
          check: ["output.tag != 'bridge'"]
          evidence"""))  # fmt: skip
    report = here.run(pool=FakePool(answer=clerk))
    told = errors(report)
    assert [*told] == ["1.txt"] and 'It was: {"tag":"bridge"}' in told["1.txt"]


def test_a_replay_has_the_probabilities_of_the_record(tmp_path: Path) -> None:
    tests = """\
tests:
  - name: two documents
    replay: tests/cassettes
    expect: [{check: "returns.counts.done == 2 and returns.sure > 0.8"}]
"""
    ending = 'returns: {counts: steps.each.counts, sure: "steps.each.results[0].sure"}\n'
    bench = Bench(tmp_path, SORTED.replace("returns: steps.each.results\n", ending), tests)
    choose: dict[str, Any] = {"pool": FakePool(answer=clerk)}
    assert bench.case("record", **choose).passed
    assert '"answers": ["ferry", "bridge", "tram"]' in bench.cassette.read_text("utf-8")
    assert bench.case("replay", pool=Nobody()).passed
