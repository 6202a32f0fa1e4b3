"""First run: what `examples/first-run` makes of thirty documents, and of others that mislead.

uv run python tests/benchmarks/first_run.py

A document is right if its kind, and of an invoice its number, total and day, are as a person would
read them; what waits for review is neither right nor wrong. Prints a row for each document, and the
processor time of this process and its children.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.runner.api import run
from paddock.runner.core.run_options import RunOptions
from tests.benchmarks.first_run_documents import HELD_BACK, LOOK_ALIKES, HeldBack
from tests.fakes.papers import pages

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "first-run"

RETURNS = "returns: {documents: steps.each.results, bills: steps.bills.results}\n"


def main() -> None:
    for documents in (HELD_BACK, LOOK_ALIKES):
        _try(documents)


def _try(documents: Sequence[HeldBack]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "first-run"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".paddock", "out", "inbox"))
        (folder / "inbox").mkdir()
        for one in documents:
            is_pdf = one.name.endswith(".pdf")
            content = pages(one.text) if is_pdf else one.text.encode()
            (folder / "inbox" / one.name).write_bytes(content)
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
