"""`review`: when an answer waits for a person; every fault is found before anything runs."""

import pytest

from tests.runner.bind.pipeline_faults import faults_of, sentences

PIPELINE = """\
models: {{clerk: "smollm2:135m"}}
steps:
  - {{id: docs, uses: files.scan, with: {{root: .}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - id: bill
        uses: chat
        with: {{model: clerk, prompt: hello}}
        reply: {reply}
        review: {review}
  - {{uses: prompt, with: {{template: "{{{{ steps.each.waiting }}}}"}}}}
"""
ALL = "{schema: {number: str, total: float}, evidence: steps.text, confidence: true}"
SCHEMA = "{schema: {number: str, total: float}}"


def faults(review: str, reply: str = ALL) -> list[str]:
    return sentences(faults_of(PIPELINE.format(review=review, reply=reply)))


@pytest.mark.parametrize(
    "review",
    [
        "{}", '{when: "confidence.min < 0.8 or evidence.missing", by: [ann], ttl: 14d}',
        '{when: "confidence.total.p < 0.9 and doc.size > 10 or steps.text.title", by: ann}',
        "{when: \"output.total > 10 or 'x' in text\", on_expiry: skip}", "{when: false}",
    ],
)  # fmt: skip
def test_a_review_reads_answer_confidence_evidence_and_all_that_the_step_sees(review: str) -> None:
    assert faults(review) == []


@pytest.mark.parametrize(
    ("review", "reply", "fault"),
    [
        ('{when: "output.totl > 1"}', ALL,
         "`review.when`: `output` has no field 'totl'. "
         "Known: 'number', 'total'. Did you mean 'total'?"),
        ('{when: "confidence.mim < 1"}', ALL,
         "`review.when`: `confidence` has no field 'mim'. "
         "Known: 'min', 'mean', 'low', 'fields', 'number', 'total'. Did you mean 'min'?"),
        ('{when: "confidence.min < 1"}', SCHEMA,
         "`review.when` reads `confidence`, which this step does not have. "
         "Add `confidence: true` under `reply`."),
        ('{when: "evidence.missing"}', SCHEMA,
         "`review.when` reads `evidence`, which this step does not have. "
         "Add `evidence: …` under `reply`."),
        ('{when: "limit > 1"}', ALL,
         "'limit' is not known here. Known: 'confidence', 'doc', 'evidence', 'inputs', 'loop', "
         "'now', 'output', 'steps', 'text', 'today', 'unsure'."),
        ('{when: "steps.txt.text"}', ALL,
         "there is no step 'txt'. Known: 'text', 'bill', 'docs', 'each'. Did you mean 'text'?"),
        ("{ttl: 14 days}", ALL,
         "'ttl' must be a duration such as 300ms, 30s, 5m, 2h or 1d; it is '14 days'."),
        ("{ttl: 0s}", ALL, "'ttl' must be more than 0; it is '0s'."),
        ("{on_expiry: accpt}", ALL,
         "'on_expiry' cannot be 'accpt'. "
         "Known: 'quarantine', 'accept', 'skip'. Did you mean 'accept'?"),
        ("always", ALL, "'review' must be a mapping; 'always' is text."
                        " Write `key: value` below it."),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_with_its_remedy(review: str, reply: str, fault: str) -> None:
    assert faults(review, reply) == [fault]


def test_only_a_step_that_asks_a_model_can_be_reviewed() -> None:
    text = PIPELINE.format(review="{}", reply=ALL)
    (fault,) = faults_of(text.replace('doc.path }}"}}', 'doc.path }}"}, review: {}}'))
    assert fault.message == (
        "step 'files.read' gives no answer of a model, so `review` has nothing to show."
    )
    (fault,) = faults_of(text.replace("    do:\n", "    review: {}\n    do:\n"))
    assert fault.message == "`review` cannot be combined with `for_each`."
    assert fault.remedy == "It belongs to the step in `do` that asks a model."
