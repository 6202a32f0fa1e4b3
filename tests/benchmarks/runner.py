"""What the runner itself costs: many documents through three steps without a model, twice.

uv run python tests/benchmarks/runner.py

The first run does every document, the second finds all of them fresh. Each is a process of its
own, measured from outside: wall clock and the largest resident size.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.harness import Child, circumstances, measure, table

PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: page, uses: prompt, with: {template: "# {{ doc.name }}\\n\\n{{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.page.text }}"}}
"""
N_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--quick", action="store_true", help="1,000 documents instead of 10,000")
    args = parser.parse_args()
    n_documents: int = args.documents or (1_000 if args.quick else 10_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, n_documents)
        first = run(folder, expect={"new": n_documents})
        second = run(folder, expect={"fresh": n_documents})
    print(circumstances(documents=n_documents, steps=N_STEPS, tracked="--local"))
    rows = [row("first run", first, n_documents), row("second run", second, n_documents)]
    print(table(["run", "seconds", "ms a document and step", "peak MB"], rows))


def make(folder: Path, n_documents: int) -> None:
    """Write the pipeline and its documents, a hundred to a folder, about a kilobyte each."""
    (folder / "pipeline.yaml").write_text(PIPELINE)
    sentence = "The ferry left at nine, and on that day nobody missed it. "
    for number in range(n_documents):
        path = folder / "inbox" / f"{number // 100:03}" / f"{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {number}. {sentence * 16}\n")


def run(folder: Path, *, expect: dict[str, int]) -> Child:
    """Run the pipeline once, and make sure that it did what it should."""
    paddock = str(Path(sys.executable).with_name("paddock"))
    child = measure([paddock, "run", "--local", "--json", "pipeline.yaml"], cwd=folder)
    counts = json.loads(child.stdout)["counts"]
    found = {state: counts[state] for state in expect}
    if found != expect:
        raise RuntimeError(f"the run counted {found}, not {expect}")
    return child


def row(name: str, child: Child, n_documents: int) -> list[object]:
    per_step_ms = child.seconds * 1000 / (n_documents * N_STEPS)
    return [name, child.seconds, per_step_ms, child.peak_bytes / 1e6]


if __name__ == "__main__":
    main()
