"""First run: what `examples/first-run` makes of thirty documents, and of others that mislead.

uv run python tests/benchmarks/first_run.py

The documents and what they are stand in `first_run_documents/`; all fiction. `held_back` were
written before the example's prompts and rules, and nothing was tuned on them; `look_alikes` later,
by another hand, to be taken for what they are not: none may be wrong and sure. A document is right
if its kind, and of an invoice its number, total and day, are as a person would read them; what
waits for review is neither right nor wrong. Prints a row for each document, and the processor time
of this process and its children.
"""

import csv
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.runner.api import run
from paddock.runner.core.run_options import RunOptions
from tests.fakes.papers import pages

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "first-run"

DOCUMENTS = Path(__file__).resolve().parent / "first_run_documents"

RETURNS = "returns: {documents: steps.each.results, bills: steps.bills.results}\n"


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A document, its kind, and of an invoice what it says."""

    name: str
    kind: str
    """Empty: none of the labels fits, so that only waiting is right."""
    number: str
    total: float
    pay_by: str
    """Empty: no day is named."""
    content: bytes


def _documents(folder: str) -> tuple[HeldBack, ...]:
    with (DOCUMENTS / f"{folder}.csv").open(encoding="utf-8", newline="") as rows:
        return tuple(_document(folder, **row) for row in csv.DictReader(rows))


def _document(folder: str, name: str, kind: str, number: str, total: str, pay_by: str) -> HeldBack:
    """Return a document; a PDF is made of its text."""
    if name.endswith(".pdf"):
        content = pages((DOCUMENTS / folder / f"{name}.txt").read_text("utf-8"))
    else:
        content = (DOCUMENTS / folder / name).read_bytes()
    return HeldBack(name, kind, number, float(total or 0), pay_by, content)


HELD_BACK, LOOK_ALIKES = _documents("held_back"), _documents("look_alikes")


def main() -> None:
    for documents in (HELD_BACK, LOOK_ALIKES):
        _try(documents)


def _try(documents: Sequence[HeldBack]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "first-run"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".paddock", "out", "inbox"))
        (folder / "inbox").mkdir()
        for one in documents:
            (folder / "inbox" / one.name).write_bytes(one.content)
        file = folder / "pipeline.yaml"
        written, _, tests = file.read_text("utf-8").partition("returns: {digest:")
        assert tests
        file.write_text(f"{written}{RETURNS}", "utf-8")
        began = time.monotonic()
        report = run(file, options=RunOptions(local=True))
        seconds = time.monotonic() - began
        assert report.status == "completed", report.status
        results = {one["file"]: one for one in report.returns["documents"]}
        bills = {one["file"]: one for one in report.returns["bills"]}
    verdicts = [_verdict(one, results.get(one.name), bills.get(one.name)) for one in documents]
    print("| document | is | outcome |\n|---|---|---|")
    for one, verdict in zip(documents, verdicts, strict=True):
        print(f"| {one.name} | {one.kind or 'none'} | {verdict} |")
    counts = {
        word: sum(v.startswith(word) for v in verdicts) for word in ("right", "waits", "WRONG")
    }
    used = os.times()
    print(f"\n{counts}; {seconds:.0f} s, of processors {sum(used[:4]):.0f} s")


def _verdict(one: HeldBack, result: dict[str, str] | None, bill: dict[str, str] | None) -> str:
    if result is None or (result["kind"] == "invoice" and bill is None):
        return "waits for review"
    if result["kind"] != one.kind:
        return f"WRONG: {result['kind']}"
    if bill is None:
        return "right"
    is_right = bill["number"] == one.number and bill["pay_by"] == one.pay_by
    is_right = is_right and f"{one.total:,.2f}" in bill["total"]
    return "right" if is_right else f"WRONG: {bill}"


if __name__ == "__main__":
    main()
