"""`reply.evidence` and `reply.confidence` in the YAML: faults, references, staleness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.bind import check, read_plan
from tests.fakes.pool import FakePool
from tests.runner.world import World, reasons, states

PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {total: float, kind: "enum[bill, note]"}}
    returns: {total: steps.bill.output.total}
"""


def faults(reply: str, after: str = "", uses: str = "chat, with: {prompt: x}") -> list[str]:
    text = f"steps:\n  - {{id: a, uses: {uses}, reply: {reply}}}\n{after}"
    try:
        check(read_plan(Path("p.yaml"), text))
    except PipelineError as error:
        return [f"{one.message} {one.remedy}".strip() for one in error.faults]
    return []


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (
            "{check: text, evidence: inputs}",
            "in 'reply': `evidence` needs `schema`: it is known for each field of an answer.",
        ),
        (
            "{check: text, confidence: true}",
            "in 'reply': `confidence` needs `schema`: it is known for each field of an answer.",
        ),
        ("{schema: {a: str}, evidence: steps.gone}", "there is no step 'gone'."),
        ("{schema: {a: str}, evidence: [steps.gone]}", "there is no step 'gone'."),
        ("{schema: {a: str}, evidence: steps.a.text}", "step 'a' reads its own outputs. Remove one "
         "of the references or `needs`."),
        ("{schema: {a: str}, evidence: texts}", "'texts' is not known here. Known: 'inputs', "
         "'steps'."),
        ("{schema: {a: str}, evidence: 'steps.'}", "cannot read the expression 'steps.'"),
        ("{schema: {a: str}, evidence: []}", "'evidence' must not be empty."),
        ("{schema: {a: str}, evidence: 3}", "'evidence' must be a list; '3' is a whole number."),
        ("{schema: {a: str}, evidence: {only: a}}", "the key 'from' is missing here."),
        ("{schema: {a: str}, evidence: {from: 'inputs', onli: a}}", "unknown key 'onli'."),
        (
            "{schema: {a: str, b: [{c: int}]}, evidence: {from: inputs, only: [a, b.c, c, c.d]}}",
            "`evidence.only`: the answer has no field 'c.d'.",
        ),
        (
            "{schema: {a: str}, check: \"evidence.a.match == 'exact'\"}",
            "`check`: 'evidence.a.match == 'exact'' needs `evidence`, which is not asked for. Add "
            "`evidence` under `reply`, with the text to look in.",
        ),
        ("{schema: {a: str}, confidence: 0.8}", "'confidence' must be true or false; '0.8' is a "
         "number."),
    ],
)  # fmt: skip
def test_what_cannot_be_evidence_is_a_fault_before_anything_runs(reply: str, fault: str) -> None:
    found = faults(reply)
    assert len(found) == 1
    assert fault in found[0]


def test_a_step_waits_for_the_sources_of_its_evidence() -> None:
    later = "  - {id: b, uses: prompt, with: {template: 'Total: 3'}}\n"
    plan = read_plan(
        Path("p.yaml"),
        "steps:\n  - {id: a, uses: chat, with: {prompt: x}, reply: {schema: {n: int}, "
        f"evidence: steps.b.text}}}}\n{later}",
    )
    assert [node.id for node in plan.nodes] == ["b", "a"]
    around = "  - {id: b, uses: prompt, with: {template: '{{ steps.a.text }}'}}\n"
    [told] = faults("{schema: {n: int}, evidence: steps.b.text}", around)
    assert told.startswith("these steps depend on each other: a → b → a.")


def test_evidence_that_is_asked_for_later_makes_items_stale_and_costs_no_call(
    tmp_path: Path,
) -> None:
    here = World(tmp_path, PIPELINE)
    here.documents(2)
    pool = FakePool(answer=lambda _: json.dumps({"total": 1.5, "kind": "bill"}))
    assert here.run(pool=pool).calls == 2
    here.edit('"enum[bill, note]"}}', '"enum[bill, note]"}, evidence: steps.text}')
    assert set(reasons(here.plan()).values()) == {"sources of its evidence changed (step 'bill')"}
    again = here.run(pool=FakePool())
    assert (again.status, again.calls, again.cached_calls) == ("completed", 0, 2)
    assert states(here.plan()) == {}
