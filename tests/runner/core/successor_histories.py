"""Histories of filing in which documents of one name, or one stem, would write one path.

    python -m tests.runner.core.successor_histories --histories 100 --seed 1

As `random_histories --filing`, and each item writes a page whose path several documents may have.
In the end each page is of the document that was filed with that path; what is left in the folder
waits for a path that another one has, by name, in the plan and in the run alike.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.runner.core.filing_shapes import FILES_RESULTS, SHAPES
from tests.runner.core.random_histories import FilingHistory, import_all
from tests.runner.world import World

MOVE = "      - {uses: files.move"
STEM = "{{ doc.stem | replace('c', 'b') }}"
ROWS = ("moved_by_second", "office", *FILES_RESULTS)  # whose `doc` is no document
FORMS = [n for n in SHAPES if n not in ROWS]


class SuccessorHistory(FilingHistory):
    def __init__(self, seed: int, folder: Path, *, may_review: bool = False) -> None:
        self.is_sized = seed % 2 == 1
        super().__init__(seed, folder, may_review=may_review)

    def page(self, name: str, text: str) -> str:
        stem = Path(name).stem.replace("c", "b")
        return f"{stem}-{len(text)}" if self.is_sized else stem

    def save(self) -> None:
        if self.form not in FORMS:
            self.form = FORMS[0]
        super().save()
        path = f"pages/{STEM}" + "-{{ doc.size }}" * self.is_sized
        given = f'{{path: "{path}", text: "{{{{ steps.text.text }}}}"}}'
        step = f"      - {{uses: files.write, with: {given}}}\n"
        for file in self.folder.glob("*.yaml"):
            file.write_text(file.read_text("utf-8").replace(MOVE, step + MOVE), "utf-8")

    def faults(self) -> list[str]:
        found = super().faults()
        if "in_block" in self.form and self.arrived:
            found.clear()  # the item around them waits: there is no table of its results
        world = World(self.folder, (self.folder / "pipeline.yaml").read_text("utf-8"))
        pages = {path.name: path.read_text("utf-8") for path in (self.folder / "pages").glob("*")}
        filed = dict[str, str]()
        for name, text in self.filed:
            page = self.page(name, text)
            if page in filed:
                found.append(f"filed twice for pages/{page}: {self.filed}")
            filed[page] = text
        report = world.run()
        extra = {f"pages/{page}" for page in pages.keys() - filed.keys()}
        if any("killed" in event for event in self.events):  # it may have been of what was there
            extra = set()
        if {page: pages.get(page) for page in filed} != filed or extra - report.outdated.keys():
            found.append(f"pages: {pages}, filed {filed}, outdated {[*report.outdated]}")
        left = {name: self.page(name, text) for name, text in self.arrived.items()}
        for name, page in left.items():
            if page not in filed and [*left.values()].count(page) == 1:
                found.append(f"{name} is left, and no other one has pages/{page}")
        planned = {i.key for i in world.plan().items if i.state == "blocked"}
        done = {i.key for i in report.items if i.state == "blocked"}
        names = {key.partition("#")[0].removeprefix("inbox/") for key in done}
        is_nested = "in_block" in self.form  # then the item around them waits, too
        if not is_nested and (planned != done or names != left.keys()):
            found.append(f"blocked: planned {planned}, done {done}, left {left}")
        return found


def wrong(seed: int, *, may_review: bool = False) -> list[str]:
    """Return the events of a history and its faults; nothing where it has none."""
    with tempfile.TemporaryDirectory() as name:
        history = SuccessorHistory(seed, Path(name), may_review=may_review)
        faults = history.go()
        return [*history.events, *(f"  {fault}" for fault in faults)] if faults else []


def main() -> int:
    parser = argparse.ArgumentParser(description="Histories of documents of one name.")
    parser.add_argument("--histories", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    import_all()
    n_bad = 0
    for seed in range(given.seed, given.seed + given.histories):
        if lines := wrong(seed):
            n_bad += 1
            print(f"seed {seed}:", *lines, sep="\n  ", flush=True)
    print(f"{given.histories} histories, {n_bad} of them wrong")
    return min(n_bad, 1)


if __name__ == "__main__":
    sys.exit(main())
