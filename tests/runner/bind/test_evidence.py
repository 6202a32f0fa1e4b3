"""`reply.evidence` and `reply.confidence` in the YAML: faults, references, staleness."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.expressions import Expression
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.answer_names import review_names
from paddock.runner.bind.bind import bind_without_inputs
from paddock.runner.bind.bound import BoundStep
from paddock.runner.core.reviews.review_questions import due_reasons
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import faults_of, sentences
from tests.runner.world import World, each_document, reasons, states


def faults(reply: str, after: str = "", uses: str = "chat, with: {prompt: x}") -> list[str]:
    text = f"steps:\n  - {{id: a, uses: {uses}, reply: {reply}}}\n{after}"
    return sentences(faults_of(text))


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        *((f"{{check: text, {asked}}}", f"in 'reply': `{asked.partition(':')[0]}` needs `schema`: "
           "it is known for each field of an answer.")
          for asked in ("evidence: inputs", "confidence: true")),
        ("{schema: {a: str}, evidence: steps.gone}", "there is no step 'gone'."),
        ("{schema: {a: str}, evidence: [steps.gone]}", "there is no step 'gone'."),
        ("{schema: {a: str}, evidence: steps.a.text}", "step 'a' reads its own outputs. Remove one "
         "of the references or `needs`."),
        ("{schema: {a: str}, evidence: texts}", "'texts' is not known here. Known: 'inputs', "
         "'now', 'steps', 'today'."),
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
        ("{schema: {a: str}, evidence: inputs, readings: {a: net}}", "`readings` of an e-invoice "
         "are only used where a person is asked about other fields"),
        ("{schema: {a: str}, confidence: 0.8}", "'confidence' must be true or false; '0.8' is a "
         "number."),
    ],
)  # fmt: skip
def test_what_cannot_be_evidence_is_a_fault_before_anything_runs(reply: str, fault: str) -> None:
    (found,) = faults(reply)
    assert fault in found


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        ("steps.a.confidence.n.p",
         "`steps.a.confidence` is null. Add `confidence` under the `reply` of step 'a'."),
        ("steps.a.evidence.m",
         "the answer of step 'a' has no field 'm'. Known: 'n', 'missing', 'partial'."),
        ("steps.a.evidence.n.quote", ""),
    ],
)  # fmt: skip
def test_what_is_not_asked_for_cannot_be_read(read: str, fault: str) -> None:
    after = f"  - {{id: b, uses: prompt, with: {{template: '{{{{ {read} }}}}'}}}}\n"
    found = faults("{schema: {n: int}, evidence: inputs}", after)
    assert found == ([fault] if fault else [])


def test_a_step_without_a_text_is_no_source() -> None:
    after = "  - {id: docs, uses: files.scan, with: {root: in}}\n"
    assert faults("{schema: {n: int}, evidence: steps.docs}", after) == [
        "`evidence`: step 'docs' has no text. Name a step that reads a document, such as "
        "'files.read', or one of its texts."
    ]


def test_a_step_that_quotes_a_document_is_tainted() -> None:
    """Though its prompt has nothing of it."""
    text = """\
steps:
  - {id: text, uses: files.read, with: {path: a.txt}}
  - {id: a, uses: chat, with: {prompt: x}, reply: {schema: {n: int}, evidence: steps.text}}
  - {id: b, uses: chat, with: {prompt: "{{ steps.a.evidence.n.quote }}"}}
"""
    bound = bind_without_inputs(read_plan(Path("p.yaml"), text))
    [last] = [node for node in bound.nodes if node.id == "b"]
    assert isinstance(last, BoundStep)
    assert last.untrusted == ("steps.a.evidence.n.quote",)


def test_a_step_waits_for_the_sources_of_its_evidence() -> None:
    later = "  - {id: b, uses: prompt, with: {template: 'Total: 3'}}\n"
    plan = read_plan(
        Path("p.yaml"),
        "steps:\n  - {id: a, uses: chat, with: {prompt: x}, reply: {schema: {n: int}, "
        f"evidence: steps.b.text}}}}\n{later}",
    )
    assert [node.id for node in plan.nodes] == ["b", "a"]
    around = "  - {id: b, uses: prompt, with: {template: '{{ steps.a.text }}'}}\n"
    [fault] = faults("{schema: {n: int}, evidence: steps.b.text}", around)
    assert fault.startswith("these steps depend on each other: a → b → a.")


READS = each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply:
          schema: {number: str, total: float, kind: "enum[bill, note]"}
          evidence: steps.text
    returns: {evidence: steps.bill.evidence}
returns: steps.each.results
""")


def answering(**fields: Any) -> FakePool:
    return FakePool(answer=lambda _: json.dumps(fields))


def test_each_field_of_an_answer_shows_where_it_stands(tmp_path: Path) -> None:
    here = World(tmp_path, READS, {"inbox/a.txt": "Invoice No. R-7\n\nTotal due: EUR 1.250,00\n"})
    report = here.run(pool=answering(number="R-7", total=1250.0, kind="bill"))
    [found] = [result["evidence"] for result in report.returns]
    assert found == {
        "number": {
            "quote": "R-7", "source": "inbox/a.txt", "page": None, "start": 12, "end": 15,
            "line": 1, "column": 13, "box": None, "match": "exact", "reason": None,
            "ratio": None, "others": 0,
        },
        "total": {
            "quote": "1.250,00", "source": "inbox/a.txt", "page": None, "start": 32, "end": 40,
            "line": 3, "column": 16, "box": None, "match": "normalised", "reason": None,
            "ratio": None, "others": 0,
        },
        "kind": None,
    }  # fmt: skip
    here.edit("{evidence: steps.bill.evidence}", "{evidence: steps.bill.evidence, new: true}")
    again = here.run(pool=FakePool())
    assert (again.calls, again.cached_calls) == (0, 1)
    assert again.returns == [{"evidence": found, "new": True}]


def test_evidence_of_earlier_rules_is_made_again_once_and_asks_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = World(tmp_path, READS, {"inbox/a.txt": "Invoice No. R-7\n\nTotal due: EUR 1.250,00\n"})
    with monkeypatch.context() as earlier:
        earlier.setattr("paddock.runner.bind.specs.EVIDENCE_RULES", 1)
        here.run(pool=answering(number="R-7", total=1250.0, kind="bill"))
        assert states(here.plan()) == {}
    assert [*reasons(here.plan()).values()] == [
        "the rules by which evidence is found changed (step 'bill')"
    ]
    again = here.run(pool=FakePool())
    assert (again.calls, again.cached_calls) == (0, 1)
    assert states(here.plan()) == {}


def test_a_date_without_its_year_is_partial_and_waits_for_a_person(tmp_path: Path) -> None:
    text = READS.replace("number: str, total: float", "number: str, total: float, day: date")
    assert "day: date" in text
    here = World(tmp_path, text, {"inbox/a.txt": "R-7, 1.250,00, payable by 3 May\n"})
    report = here.run(pool=answering(number="R-7", total=1250.0, day="2024-05-03", kind="bill"))
    [found] = [result["evidence"] for result in report.returns]
    assert (found["day"]["match"], found["day"]["reason"]) == ("partial", "year")
    outputs = {"evidence": found, "output": {"day": "2024-05-03"}}
    names = review_names(outputs)
    assert (names["evidence"]["missing"], names["evidence"]["partial"]) == ([], ["day"])
    when = Expression.of("evidence.missing or evidence.partial")
    assert due_reasons(when, names, outputs) == ["The day stands without its year"]


def test_reasons_are_in_the_words_of_people() -> None:
    schema = {
        "properties": {
            "due": {"type": "string", "format": "date"}, "total": {"type": "number"},
            "invoice_number": {"type": "string"},
        }
    }  # fmt: skip
    gone = {"match": "none", "quote": None}
    sure = {"p": 0.62, "raw": 0.62, "second": 95, "second_p": 0.3}
    outputs = {
        "output": {"due": "2024-05-03", "total": 144.0, "invoice_number": ""},
        "evidence": {"due": gone, "total": None, "invoice_number": gone},
        "confidence": {"total": sure, "due": {**sure, "second": None}},
    }
    scope = {"doc": {"doubts": ["two suppliers"], "copy_of": "a.txt"}} | review_names(outputs)

    found: dict[str, Any] = {"due": None, "total": {"match": "exact"}, "invoice_number": None}

    def reasons_of(when: str) -> list[str]:
        return due_reasons(Expression.of(when), scope, outputs, schema, found)

    assert reasons_of("evidence.missing") == [
        "The invoice number is empty", "The due date is not on the page"
    ]  # fmt: skip
    assert reasons_of("confidence.low < 0.9 and doc.doubts or doc.copy_of") == [
        "Two values for the total: 144.0 and 95",
        "The model is not sure of the due date (62%)",
        "Two suppliers",
        "Copy of: a.txt",
    ]
    found["total"]["match"] = "none"  # a second choice that the document has not
    doubt = "The total: the model wavered between 144.0 and 95"
    assert reasons_of("confidence.min < 0.9")[0] == doubt


@pytest.mark.parametrize(
    "step",
    [
        "summarise, with: {text: '{{ steps.text.text }}'}",
        "reduce, with: {over: ['{{ steps.text.text }}', 'Rope'], prompt: Combine.}",
        "reduce, with: {over: [{a: x}, {a: y}], by: a, fold: groups, prompt: Combine.}",
        "agent, with: {prompt: '{{ steps.text.text }}', tools: [calculator]}",
        "chat, with: {prompt: x, tools: [calculator], tool_choice: none}",
    ],
)
def test_every_step_that_asks_a_model_has_evidence(tmp_path: Path, step: str) -> None:
    text = (
        "steps:\n  - {id: text, uses: files.read, with: {path: a.txt}}\n"
        f"  - {{id: a, uses: {step}, reply: {{schema: {{total: float}}, evidence: steps.text}}}}\n"
        "returns: steps.a.evidence\n"
    )
    here = World(tmp_path, text, {"a.txt": "Total due: EUR 84.00"})
    report = here.run(pool=answering(total=84.0))
    assert report.status == "completed"
    found = report.returns["x"] if "fold" in step else report.returns
    assert (found["total"]["quote"], found["total"]["source"]) == ("84.00", "a.txt")
