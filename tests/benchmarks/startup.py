"""How long `validate`, `plan` and a `run --local` without a model take to start and end.

uv run python tests/benchmarks/startup.py

Each is a fresh process, against one that only imports pydantic, yaml, jinja2 and typer. The
medians of rounds in which all take turns; what counts is the ratio.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.harness import circumstances, measure, medians, table

PIPELINE = """\
inputs: {folder: {type: dir, default: ./inbox}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
"""
BARE = "import of pydantic, yaml, jinja2, typer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    args = parser.parse_args()
    n_rounds: int = args.rounds or (3 if args.quick else 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inbox").mkdir()
        (folder / "inbox" / "a.txt").write_text("A short document.\n")
        (folder / "pipeline.yaml").write_text(PIPELINE)
        found = medians(contenders(folder), n_rounds)
    rows = [[who, seconds, f"{seconds / found[BARE]:.2f}"] for who, seconds in found.items()]
    print(circumstances(rounds=n_rounds))
    print(table(["process", "median s", "ratio"], rows))


def contenders(folder: Path) -> dict[str, Callable[[int], float]]:
    """Return each process to be measured; the first is what the others are compared with."""
    paddock = str(Path(sys.executable).with_name("paddock"))
    commands = {
        BARE: [sys.executable, "-c", "import pydantic, yaml, jinja2, typer"],
        "paddock validate": [paddock, "validate", "pipeline.yaml"],
        "paddock plan": [paddock, "plan", "pipeline.yaml"],
        "paddock run --local, one document": [paddock, "run", "--local", "pipeline.yaml"],
    }

    def timed(command: list[str]) -> Callable[[int], float]:
        def contend(number: int) -> float:
            # A new text each round, so that the run has something to do.
            (folder / "inbox" / "a.txt").write_text(f"A short document, number {number}.\n")
            return measure(command, cwd=folder).seconds

        return contend

    return {who: timed(command) for who, command in commands.items()}


if __name__ == "__main__":
    main()
