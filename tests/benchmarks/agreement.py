"""What tells which fields need no person: a model's probabilities, agreement with decisions, both.

uv run python tests/benchmarks/agreement.py POST KEEP [--weeks 4] [--model smollm2:135m]

POST is a folder with documents in w1, w2 … and their gold in truth.jsonl: a row has file, week,
kind, sender, number, date, total, currency. They come one after the other, each with the answer of
one model call; KEEP has the run, so that it need not be made again. What is asked is decided as the
gold says, and teaches the rules that the next documents are read by.

Probability: a field is sure from a bound on, one for each field, of all bounds the one that asks
least with nothing wrong unasked. No calibration does better that keeps the order of probabilities.
Agreement: a rule reads it. Both: a rule reads it, or the bound of what no rule reads holds. The
area under the curve: how often a right answer of the model has more than a wrong one, of
probability, and of whether a rule reads the same (1), nothing (0) or something else (-1).
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.pipelines.expressions import Expression
from paddock.pipelines.model import EvidenceSpec
from paddock.runner.answers.evidence import read_sources
from paddock.runner.rules.decision_rules import Rules, TaughtAnswer
from paddock.runner.rules.document_offers import offers_of
from tests.benchmarks.harness import table

FIELDS = ("kind", "sender", "number", "date", "total", "currency")
CHOICES = {"kind": ["invoice", "credit note", "reminder"], "currency": ["EUR", "GBP", "USD", "CHF"]}
TYPES = {
    **{name: {"enum": some} for name, some in CHOICES.items()},
    "sender": {"type": "string", "maxLength": 40},
    "number": {"type": "string", "maxLength": 16},
    "date": {"type": "string", "format": "date"},
    "total": {"type": "number"},
}
SCHEMA = {
    "type": "object",
    "required": [*FIELDS],
    "additionalProperties": False,
    "properties": {name: TYPES[name] for name in FIELDS},
}
PROMPT = (
    "{{ steps.text.text }}\n\nWhich kind of document is this? Who sent it, and what are its own "
    "number, its date, its total with tax, and the currency?"
)
Field = tuple[str, str]
"""A document's file, and the name of a field."""


def pipeline(model: str) -> str:
    params = {"max_tokens": 100, "temperature": 0}
    reply = {"schema": SCHEMA, "evidence": "steps.text", "confidence": True}
    answer = {"id": "bill", "uses": "chat", "with": {"model": "clerk", "prompt": PROMPT}}
    read = {"id": "text", "uses": "files.read", "with": {"path": "{{ doc.path }}"}}
    rows = {"file": "doc.name", "text": "steps.text", "bill": "steps.bill"}
    each = {"id": "each", "for_each": "doc in steps.docs.files", "returns": rows}
    docs = {"id": "docs", "uses": "files.scan", "with": {"root": "./inbox"}}
    return json.dumps({
        "name": "post",
        "models": {"clerk": {"ref": model, "ctx": "4k", "params": params}},
        "steps": [docs, {**each, "do": [read, {**answer, "reply": reply}]}],
        "returns": {"rows": "steps.each.results"},
    })  # fmt: skip


def answered(post: Path, keep: Path, gold: Sequence[Mapping[str, Any]], model: str) -> list[Any]:
    """Return what a run made of each document, in their order."""
    (keep / "inbox").mkdir(parents=True, exist_ok=True)
    for row in gold:
        shutil.copy2(post / f"w{row['week']}" / row["file"], keep / "inbox" / row["file"])
    (keep / "pipeline.yaml").write_text(pipeline(model), "utf-8")
    paddock = Path(sys.executable).with_name("paddock")
    command = [str(paddock), "run", str(keep), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=3_600)
    rows = {row["file"]: row for row in json.loads(done.stdout)["returns"]["rows"]}
    return [rows.get(row["file"]) for row in gold]


def read_by_rules(
    gold: Sequence[Mapping[str, Any]], rows: Iterable[Any]
) -> dict[Field, tuple[Any, Any]]:
    """Return of each field what a rule reads and the gold; what it reads is None: it is asked."""
    decisions, found = list[TaughtAnswer](), dict[Field, tuple[Any, Any]]()
    spec = EvidenceSpec((Expression.of("steps.text"),))
    for true, row in zip(gold, rows, strict=True):
        scope: Any = {"steps": {"text": row["text"]}}
        offers = offers_of(read_sources(spec, scope), None, SCHEMA)
        read = {name: how.value for name, how in Rules(decisions).read(offers).sure.items()}
        found |= {(true["file"], name): (read.get(name), true[name]) for name in FIELDS}
        if asked := frozenset(FIELDS) - read.keys():
            answer = {name: read.get(name, true[name]) for name in FIELDS}
            taught = (true["file"], answer, asked, frozenset(CHOICES), offers.pack())
            decisions.append(TaughtAnswer(*taught))
    return found


def area(scores: Sequence[float], is_right: Sequence[bool]) -> float:
    right = [score for score, is_so in zip(scores, is_right, strict=True) if is_so]
    wrong = [score for score, is_so in zip(scores, is_right, strict=True) if not is_so]
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    return sum(pairs) / len(pairs) if pairs else float("nan")


def unsure(p: Mapping[Field, float], is_right: Mapping[Field, bool]) -> set[Field]:
    """Return what is asked by the least bound for each field with which nothing is wrong."""
    most_wrong = defaultdict[str, float](lambda: -1.0)
    for field, score in p.items():
        if not is_right[field]:
            most_wrong[field[1]] = max(most_wrong[field[1]], score)
    return {field for field, score in p.items() if score <= most_wrong[field[1]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("post", type=Path)
    parser.add_argument("keep", type=Path)
    parser.add_argument("--weeks", type=int, default=4)
    parser.add_argument("--model", default="smollm2:135m")
    options = parser.parse_args()
    lines = (options.post / "truth.jsonl").read_text("utf-8").splitlines()
    gold = [row for row in map(json.loads, lines) if row["week"] <= options.weeks]
    rows = answered(options.post, options.keep, gold, options.model)
    known = [(true, row) for true, row in zip(gold, rows, strict=True) if row is not None]
    gold, rows = [true for true, _ in known], [row for _, row in known]
    by_rule = read_by_rules(gold, rows)
    p, is_right, agrees = dict[Field, float](), dict[Field, bool](), dict[Field, float]()
    for true, row in known:
        for name in FIELDS:
            field, value = (true["file"], name), row["bill"]["output"][name]
            p[field] = row["bill"]["confidence"][name]["p"]
            is_right[field] = value == true[name]
            read = by_rule[field][0]
            agrees[field] = 0 if read is None else 1 if read == value else -1
    wrong = sum(read not in (None, true) for read, true in by_rule.values())
    no_rule = {field for field, (read, _) in by_rule.items() if read is None}
    rest = unsure({field: p[field] for field in no_rule}, is_right)
    both = {field: 2 * agrees[field] + p[field] for field in p}
    n_fields = len(p)
    cells = []
    for name, asked, score in (
        ("probability", unsure(p, is_right), p),
        ("agreement", no_rule, agrees),
        ("both", rest, both),
    ):
        areas = [
            area([score[f] for f in p if f[1] == n], [is_right[f] for f in p if f[1] == n])
            for n in FIELDS
        ]
        n_documents = len({file for file, _ in asked})
        cells.append([
            name, f"{n_documents} of {len(gold)}", f"{len(asked)} of {n_fields}",
            f"{area([score[f] for f in p], [is_right[f] for f in p]):.2f}",
            *(f"{found:.2f}" for found in areas),
        ])  # fmt: skip
    n_right = [sum(is_right[f] for f in p if f[1] == name) for name in FIELDS]
    print(f"{len(gold)} documents of {options.post}, {options.model}; right answers of the model: "
          + ", ".join(f"{name} {n}" for name, n in zip(FIELDS, n_right, strict=True))
          + f"; rules wrong: {wrong}")  # fmt: skip
    print(table(["", "documents asked", "fields asked", "area", *FIELDS], cells))


if __name__ == "__main__":
    main()
