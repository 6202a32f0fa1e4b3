"""What spares a person a question: agreement, probability, a larger model, examples in prompts.

uv run python tests/benchmarks/agreement.py POST KEEP [--weeks 4] [--model smollm2:135m]
    [--larger MODEL]

POST is a folder with documents in w1, w2 … and their gold in truth.jsonl: a row has file, week,
kind, sender, number, date, total, currency. They come one after the other, each with the answers
of one call of a model; KEEP has the runs, so that they need not be made again. What is asked is
decided as the gold says, and teaches the rules that the next documents are read by.

Probability: a field is sure from a bound on, one for each field, of all bounds the one that asks
least with nothing wrong unasked. No calibration does better that keeps the order of probabilities.
Agreement: a rule reads it. With probability: a rule reads it, or the bound of what no rule reads
holds. Escalated: as before, with the larger model's answers below that threshold of all that asks
least. Examples: the prompt has the two documents that were asked before with most words in common,
each with its answer. The area under the curve: how often a right answer of the model has more than
a wrong one, of probability, and of whether a rule reads the same (1), nothing (0) or something else
(-1).

Where nobody reviews: how many fields are right, if the first week's gold makes the rules (or none),
and models answer the rest of the later weeks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.pipelines.expressions import Expression
from paddock.pipelines.model import EvidenceSpec
from paddock.runner.answers.evidence import read_sources
from paddock.runner.rules import Rules, TaughtAnswer
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
QUESTION = (
    "Which kind of document is this? Who sent it, and what are its own number, its date, its total "
    "with tax, and the currency?"
)
Row = Mapping[str, Any]
Field = tuple[str, str]
"""A document's file, and the name of a field."""


def read_texts(post: Path, keep: Path, gold: Sequence[Row]) -> list[Any]:
    """Return what `files.read` makes of each document."""
    (keep / "inbox").mkdir(parents=True, exist_ok=True)
    for row in gold:
        shutil.copy2(post / f"w{row['week']}" / row["file"], keep / "inbox" / row["file"])
    docs = {"id": "docs", "uses": "files.scan", "with": {"root": "./inbox"}}
    read = {"id": "text", "uses": "files.read", "with": {"path": "{{ doc.path }}"}}
    rows = {"file": "doc.name", "of": "steps.text"}
    each = {"id": "each", "for_each": "doc in steps.docs.files", "returns": rows, "do": [read]}
    by_file = run(keep, {"name": "texts", "steps": [docs, each]})
    return [by_file[row["file"]] for row in gold]


def answers(keep: Path, gold: Sequence[Row], prompts: Iterable[Any], model: str) -> list[Any]:
    """Return a model's answer to each prompt with its confidence; None: it failed its checks."""
    keep.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"file": row["file"], "messages": prompt})
        for row, prompt in zip(gold, prompts, strict=True)
    ]
    (keep / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    params = {"max_tokens": 100, "temperature": 0}
    rows = {"id": "rows", "uses": "files.rows", "with": {"path": "./prompts.jsonl"}}
    bill = {
        "id": "bill",
        "uses": "chat",
        "with": {"model": "clerk", "messages": "{{ row.messages }}"},
        "reply": {"schema": SCHEMA, "confidence": True},
    }
    results = {"file": "row.file", "of": "steps.bill"}
    each = {"id": "each", "for_each": "row in steps.rows.rows", "key": "row.file"}
    by_file = run(keep, {
        "name": "answers",
        "models": {"clerk": {"ref": model, "ctx": "4k", "params": params}},
        "steps": [rows, {**each, "do": [bill], "returns": results}],
    })  # fmt: skip
    return [by_file.get(row["file"]) for row in gold]


def run(folder: Path, pipeline: Row) -> dict[str, Any]:
    whole = {**pipeline, "returns": {"rows": "steps.each.results"}}
    (folder / "pipeline.yaml").write_text(json.dumps(whole), "utf-8")
    paddock = Path(sys.executable).with_name("paddock")
    command = [str(paddock), "run", str(folder), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=3_600)
    rows = json.loads(done.stdout)["returns"]["rows"]
    return {row["file"]: row["of"] for row in rows if row is not None}


def question(text: Any) -> dict[str, str]:
    return {"role": "user", "content": f"{text['text']}\n\n{QUESTION}"}


def with_examples(gold: Sequence[Row], texts: Sequence[Any], asked: Set[str]) -> Iterator[Any]:
    """Yield each document's messages: two that were asked before it stand before its own."""
    words = [set(text["text"].split()) for text in texts]
    for at, text in enumerate(texts):
        before = [n for n in range(at) if gold[n]["file"] in asked]
        near = sorted(before, key=lambda n: len(words[n] & words[at]) / len(words[n] | words[at]))
        turns = []
        for n in near[-2:]:
            answer = json.dumps({name: gold[n][name] for name in FIELDS}, ensure_ascii=False)
            turns += [question(texts[n]), {"role": "assistant", "content": answer}]
        yield [*turns, question(text)]


def read_by_rules(
    gold: Sequence[Row], texts: Sequence[Any], n_weeks: int | None = None
) -> dict[Field, Any]:
    """Return what rules read of each field; None: nothing, it is asked.

    `n_weeks`: only these are decided, and whole.
    """
    decisions, found = list[TaughtAnswer](), dict[Field, Any]()
    spec = EvidenceSpec((Expression.of("steps.text"),))
    for true, text in zip(gold, texts, strict=True):
        scope: Any = {"steps": {"text": text}}
        offers = offers_of(read_sources(spec, scope), None, SCHEMA)
        read = {name: how.value for name, how in Rules(decisions).read(offers).sure.items()}
        found |= {(true["file"], name): read.get(name) for name in FIELDS}
        asked = frozenset(FIELDS) - read.keys()
        if n_weeks is not None:
            asked = frozenset(FIELDS if true["week"] <= n_weeks else ())
        if asked:
            answer = {name: read.get(name, true[name]) for name in FIELDS}
            taught = (true["file"], answer, asked, frozenset(CHOICES), offers.pack())
            decisions.append(TaughtAnswer(*taught))
    return found


def area(scores: Sequence[float], is_right: Sequence[bool]) -> float:
    right = [score for score, is_so in zip(scores, is_right, strict=True) if is_so]
    wrong = [score for score, is_so in zip(scores, is_right, strict=True) if not is_so]
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    return sum(pairs) / len(pairs) if pairs else float("nan")


class Answers(NamedTuple):
    """By field."""

    p: dict[Field, float]
    is_right: dict[Field, bool]

    @classmethod
    def of(cls, gold: Sequence[Row], found: Sequence[Any]) -> Answers:
        p, is_right = dict[Field, float](), dict[Field, bool]()
        for true, answer in zip(gold, found, strict=True):
            for name in FIELDS:
                field = (true["file"], name)
                p[field] = -1.0 if answer is None else answer["confidence"][name]["p"]
                is_right[field] = answer is not None and answer["output"][name] == true[name]
        return cls(p, is_right)

    def escalated(self, larger: Answers, threshold: float) -> Answers:
        """Return those of the larger model where the least probability is below the threshold."""
        least = defaultdict[str, float](lambda: 2.0)
        for (file, _), p in self.p.items():
            least[file] = min(least[file], p)
        which = {field: larger if least[field[0]] < threshold else self for field in self.p}
        return Answers(
            {field: of.p[field] for field, of in which.items()},
            {field: of.is_right[field] for field, of in which.items()},
        )

    def pairs(self, larger: Answers) -> list[Answers]:
        """Return the pair with each threshold that makes a difference."""
        return [self.escalated(larger, t) for t in sorted({*self.p.values(), 2.0})]

    def unsure(self, fields: Set[Field]) -> set[Field]:
        """Return what is asked by the least bound for each field with which nothing is wrong."""
        most_wrong = defaultdict[str, float](lambda: -1.0)
        for field in fields:
            if not self.is_right[field]:
                most_wrong[field[1]] = max(most_wrong[field[1]], self.p[field])
        return {field for field in fields if self.p[field] <= most_wrong[field[1]]}


def documents(fields: Iterable[Field]) -> set[str]:
    return {file for file, _ in fields}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("post", type=Path)
    parser.add_argument("keep", type=Path)
    parser.add_argument("--weeks", type=int, default=4)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--larger")
    options = parser.parse_args()
    lines = (options.post / "truth.jsonl").read_text("utf-8").splitlines()
    gold = [row for row in map(json.loads, lines) if row["week"] <= options.weeks]
    texts = read_texts(options.post, options.keep, gold)
    true = {(row["file"], name): row[name] for row in gold for name in FIELDS}
    read = read_by_rules(gold, texts)
    no_rule = {field for field, value in read.items() if value is None}
    plain = [[question(text)] for text in texts]
    taught = [*with_examples(gold, texts, documents(no_rule))]
    by_run = dict[str, Answers]()
    own_answers = list[Any]()
    for name, prompts, model in (
        ("own", plain, options.model),
        ("own, examples", taught, options.model),
        ("larger", plain, options.larger),
        ("larger, examples", taught, options.larger),
    ):
        if model is not None:
            found = answers(options.keep / name.replace(", ", "-"), gold, prompts, model)
            by_run[name] = Answers.of(gold, found)
            own_answers = own_answers or found
    own = by_run["own"]
    agrees = dict[Field, float]()
    for row, answer in zip(gold, own_answers, strict=True):
        for name in FIELDS:
            value = read[row["file"], name]
            is_same = answer is not None and answer["output"][name] == value
            agrees[row["file"], name] = 0 if value is None else 1 if is_same else -1
    both = {field: 2 * agrees[field] + own.p[field] for field in own.p}
    scores = {"probability": own.p, "agreement": agrees, "agreement, probability": both}
    asked: dict[str, set[Field]] = {
        "probability": own.unsure(own.p.keys()),
        "agreement": no_rule,
        "agreement, probability": own.unsure(no_rule),
        "agreement, probability, examples": by_run["own, examples"].unsure(no_rule),
    }

    def least(pairs: Iterable[Answers]) -> set[Field]:
        each = (pair.unsure(no_rule) for pair in pairs)
        return min(each, key=lambda fields: (len(documents(fields)), len(fields)))

    if options.larger:
        asked["agreement, escalated"] = least(own.pairs(by_run["larger"]))
        taught_pairs = by_run["own, examples"].pairs(by_run["larger, examples"])
        asked["agreement, escalated, examples"] = least(taught_pairs)
    cells = []
    for name, fields in asked.items():
        score = scores.get(name)
        areas = [
            area([score[f] for f in some], [own.is_right[f] for f in some])
            for some in ([*own.p], *([f for f in own.p if f[1] == n] for n in FIELDS))
            if score is not None
        ]
        n_documents = len(documents(fields))
        cells.append([
            name, f"{n_documents} of {len(gold)}", f"{len(fields)} of {len(own.p)}",
            *([f"{found:.2f}" for found in areas] or [""] * (1 + len(FIELDS))),
        ])  # fmt: skip
    wrong = sum(value not in (None, true[field]) for field, value in read.items())
    print(f"{len(gold)} documents of {options.post}, {options.model}, {options.larger}; "
          f"rules wrong: {wrong}; right answers:")  # fmt: skip
    for name, of in by_run.items():
        n_right = [sum(of.is_right[f] for f in of.p if f[1] == n) for n in FIELDS]
        each = ", ".join(f"{n} {right}" for n, right in zip(FIELDS, n_right, strict=True))
        print(f"  {name}: {sum(n_right)}; {each}")
    print(table(["", "documents asked", "fields asked", "area", *FIELDS], cells))
    of_first = read_by_rules(gold, texts, 1)
    later = [(row["file"], name) for row in gold if row["week"] > 1 for name in FIELDS]
    if later:
        print(f"Where nobody reviews, of {len(later)} fields of later weeks are right:")
        for name, of in by_run.items():
            n_alone = sum(of.is_right[f] for f in later)
            n_both = sum(
                of.is_right[f] if of_first[f] is None else of_first[f] == true[f] for f in later
            )
            print(f"  {name}: {n_alone} alone, {n_both} with rules of the first week's gold")
        if options.larger:
            pairs = own.pairs(by_run["larger"])
            n_best = max(sum(pair.is_right[f] for f in later) for pair in pairs)
            print(f"  escalated, at best: {n_best}")
        by_rule = [f for f in later if of_first[f] is not None]
        n_sure = sum(of_first[f] == true[f] for f in by_rule)
        print(f"  rules read {len(by_rule)} of them, {n_sure} rightly")


if __name__ == "__main__":
    main()
