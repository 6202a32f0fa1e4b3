"""What the runner itself costs: many documents without a model, first, again, and with one edited.

    uv run python tests/benchmarks/runner.py [--cocoindex PYTHON] [--beside CHECKOUT]

Each text is written in capitals. Every run is a process of its own, measured from outside: wall
clock, processor time, the largest resident size, and the ledger's bytes. `--cocoindex` names the
Python of an environment that has CocoIndex (`uv pip install cocoindex`), which does the same work
in turns with us. `--beside` names another checkout of ours with its `.venv`: what this one takes of
its processor time, memory and bytes, each the median of rounds in turns.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
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
      - {id: page, uses: prompt, with: {template: "{{ steps.text.text | upper }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.name }}", text: "{{ steps.page.text }}"}}
"""
COCOINDEX_APP = """\
from pathlib import Path
import cocoindex as coco
from cocoindex.connectors import localfs

@coco.fn(memo=True)
async def capitals(file: localfs.File, out: localfs.DirTarget) -> None:
    text = (await file.read()).decode()
    out.declare_file(filename=file.file_path.path.name, content=text.upper())

@coco.fn
async def main(inbox: Path, out: Path) -> None:
    files = localfs.walk_dir(inbox, recursive=True)
    target = await localfs.mount_dir_target(out)
    await (await coco.mount_each(capitals, files.items(), target)).ready()

coco.App("capitals", main, Path("inbox"), Path("out")).update_blocking()
"""
RUNS = ("first", "again", "one edited")
PLAN = "plan of nothing to do"
PADDOCK = Path(sys.executable).with_name("paddock")
Run = Callable[[Path, dict[str, int]], Child]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1,000 documents instead of 10,000")
    parser.add_argument("--cocoindex", type=Path, help="Python of an environment that has it")
    parser.add_argument("--beside", type=Path, help="another checkout, with its environment")
    args = parser.parse_args()
    n_documents: int = args.documents or (1_000 if args.quick else 10_000)
    contenders: dict[str, Run] = {"Paddock": run}
    if args.cocoindex is not None:
        contenders["CocoIndex"] = lambda folder, _: run_cocoindex(folder, args.cocoindex)
    found: dict[str, list[list[Child]]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(three_runs(Path(folder), contender, n_documents))
    print(circumstances(documents=n_documents, rounds=args.rounds, tracked="--local"))
    heads = [f"{name}, s" for name in RUNS]
    print(table(["", *heads, "peak MB"], [row(name, rounds) for name, rounds in found.items()]))
    if args.beside is not None:
        print("\n" + beside(args.beside / ".venv/bin/paddock", n_documents, args.rounds))


def beside(other: Path, n_documents: int, n_rounds: int) -> str:
    """Return a table of what this checkout takes of what another one does."""
    programs = {"this": PADDOCK, "other": other}
    cost: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in programs}
    for _ in range(n_rounds):
        for name, program in programs.items():
            with tempfile.TemporaryDirectory() as folder:
                runs = three_runs(Path(folder), partial(run, program=program), n_documents)
                plan = measure([str(program), "plan", "pipeline.yaml"], cwd=Path(folder))
                ledger = Path(folder, ".paddock", "ledger.sqlite")
                cost[name]["the ledger, MB"].append(ledger.stat().st_size / 1e6)
            for what, child in zip((*RUNS, PLAN), (*runs, plan), strict=True):
                cost[name][f"{what}, processor s"].append(child.processor_s)
                cost[name][f"{what}, peak MB"].append(child.peak_bytes / 1e6)
    rows = []
    for what in sorted(cost["this"]):
        ours, theirs = (statistics.median(cost[name][what]) for name in programs)
        rows.append([what, ours, theirs, ours / theirs])
    return table(["", *programs, "share"], rows)


def three_runs(folder: Path, contender: Run, n_documents: int) -> list[Child]:
    make(folder, n_documents)
    first = contender(folder, {"new": n_documents})
    again = contender(folder, {"fresh": n_documents})
    edited = folder / "inbox" / "000" / "00000.txt"
    edited.write_text("Edited since.\n")
    one = contender(folder, {"changed": 1, "fresh": n_documents - 1})
    texts = [path.read_text() for path in (folder / "out").iterdir()]
    if len(texts) != n_documents or "EDITED SINCE.\n" not in texts:
        raise RuntimeError(
            f"{len(texts)} of {n_documents} texts were written, or not the edited one"
        )
    return [first, again, one]


def make(folder: Path, n_documents: int) -> None:
    """Write the pipeline and its documents, a hundred to a folder, about a kilobyte each."""
    (folder / "pipeline.yaml").write_text(PIPELINE)
    sentence = "The ferry left at nine, and on that day nobody missed it. "
    for number in range(n_documents):
        path = folder / "inbox" / f"{number // 100:03}" / f"{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {number}. {sentence * 16}\n")


def run(folder: Path, expect: dict[str, int], program: Path = PADDOCK) -> Child:
    """Run the pipeline once, and make sure that it did what it should."""
    child = measure([str(program), "run", "--local", "--json", "pipeline.yaml"], cwd=folder)
    counts = json.loads(child.stdout)["counts"]
    found = {state: counts[state] for state in expect}
    if found != expect:
        raise RuntimeError(f"the run counted {found}, not {expect}")
    return child


def run_cocoindex(folder: Path, python: Path) -> Child:
    (folder / "app.py").write_text(COCOINDEX_APP)
    state = {"COCOINDEX_DB": str(folder / "db"), "COCOINDEX_DISABLE_USAGE_TRACKING": "1"}
    return measure([str(python.absolute()), "app.py"], cwd=folder, env={**os.environ, **state})


def row(name: str, rounds: list[list[Child]]) -> list[object]:
    """Return the medians of each run, and the largest resident size, in megabytes."""
    seconds = [
        statistics.median(child.seconds for child in runs) for runs in zip(*rounds, strict=True)
    ]
    peak = max(child.peak_bytes for runs in rounds for child in runs)
    return [name, *seconds, peak / 1e6]


if __name__ == "__main__":
    main()
