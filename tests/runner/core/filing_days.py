"""Thirty days of filing: after each, the table has exactly what was filed.

    python -m tests.runner.core.filing_days --days 30 --way hot

Letters and mails come in, the same name again with other content and with the same, some are
deleted or renamed before a run, a clerk moves what was filed to a folder of the year, a run is
killed, a disk is full, a prompt changes, the pipeline's file is renamed. `hand`: `files.move` takes
the documents away; `hot`: the watch of a hot folder does, as under `paddock up` (which
`tests/soak/soak.py` has in processes that are really killed).
"""

import argparse
import csv
import errno
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from paddock.engine.system.files import TemporaryFile
from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.hot_folder import finish_files, make_hot_folders
from tests.runner.core.random_histories import in_a_process
from tests.runner.world import World

PIPELINE = """\
name: letters
ON
steps:
  - {id: docs, uses: files.scan, with: {root: ROOT}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: kind, uses: KIND}
MOVE    returns: {file: doc.relpath, words: "steps.text.text | split | last", kind: steps.kind.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
  - id: digest
    uses: files.write
    with: {path: out/today.md, text: "new: {{ steps.each.results | length }}"}
"""
MOVE = '      - {uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}}\n'
MAIL = "From: a@example.com\nSubject: Mail\nContent-Type: text/plain\n\n"
KILL_DAYS, FULL_DAYS, PROMPT_DAY, YEAR_DAYS = (5, 12, 19, 26), (8, 15), 20, (10, 23)
RENAME_DAYS = (6, 12, 15, 20)


class FilingDays:
    """One folder, day after day."""

    def __init__(self, folder: Path, way: str, seed: int = 1) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.is_hot = way == "hot"
        self.inbox = folder / "inbox" / ("processing" if self.is_hot else "")
        self.filed: set[tuple[str, str]] = set()
        """Name and last word of each document that was filed."""
        self.prompt = "prompt, with: {template: 'kind 1'}"
        root = "inbox/processing" if self.is_hot else "inbox"
        on = "on: {watch: {path: inbox, claim: move}}" if self.is_hot else ""
        text = PIPELINE.replace("ROOT", root).replace("ON\n", f"{on}\n", 1)
        self.world = World(folder, text.replace("MOVE", "" if self.is_hot else MOVE))
        self.world.edit("KIND", self.prompt)
        self.spec = WatchSpec("pipeline.yaml:inbox", folder / "inbox", is_hot=True)
        self.inbox.mkdir(parents=True, exist_ok=True)
        if self.is_hot:
            make_hot_folders(self.spec)

    def live(self, day: int) -> None:
        """Live through a day, and assert that the table equals what was filed."""
        self.arrive(day)
        if day == PROMPT_DAY:
            self.world.edit("kind 1", "kind 2")
        if day in RENAME_DAYS:
            new = self.folder / f"letters-{day}.yaml"
            self.world.file.rename(new)
            self.world = World(self.folder, self.world.text, name=new.name)
        if day in KILL_DAYS:
            in_a_process(self.folder, partial(self.run_here, {}), kill=self.chance.randint(1, 30))
        if day in FULL_DAYS:
            with full_disk():
                self.run_here({})
        self.run()
        self.take_away(day)
        self.check(day)
        before = (self.folder / "out/t.csv").stat().st_mtime_ns
        self.run()
        assert (self.folder / "out/t.csv").stat().st_mtime_ns == before, "nothing was new"
        if day in YEAR_DAYS:
            place = self.folder / ("inbox/done" if self.is_hot else "filed")
            place.rename(self.folder / f"2026-{day}")
            place.mkdir()
            self.run()
            self.check(day)

    def arrive(self, day: int) -> None:
        names = [f"{day:02}-{n}.txt" for n in range(self.chance.randint(1, 3))]
        words: dict[str, str] = {}
        for name in [*names, "scan.txt", *(["report.eml"] if day % 3 == 0 else [])]:
            words[name] = f"w{self.chance.randint(1, 9)}"
            text = f"Letter {name} {words[name]}"
            (self.inbox / name).write_text(MAIL * name.endswith("eml") + text, "utf-8")
        if day % 7 == 2:
            (self.inbox / names[0]).unlink()
            del words[names[0]]
        elif day % 7 == 4:
            (self.inbox / names[0]).rename(self.inbox / f"renamed-{day}.txt")
            words[f"renamed-{day}.txt"] = words.pop(names[0])
        self.filed |= {*words.items()}

    def run(self) -> None:
        for _ in range(2):  # what was begun when a run was killed is done by the second
            found = self.run_here({})
            assert found["status"] in ("completed", "quarantined"), found

    def run_here(self, _: Mapping[str, Any]) -> dict[str, Any]:
        report = self.world.run(retry_failed=True)
        return {"status": report.status, "message": report.message}

    def take_away(self, day: int) -> None:
        """File what a hot folder's watch does; a clerk edits and removes one."""
        if self.is_hot:
            state = self.folder / ".paddock"
            ledger = WatchLedger(
                self.spec.name, self.spec.root, self.world.file,
                lambda is_readonly: Ledger(state, is_readonly=is_readonly),
            )  # fmt: skip
            names = [path.name for path in self.inbox.iterdir()]
            assert not finish_files(self.spec, names, {}, None, ledger.record_filed).refused
        filed = self.folder / ("inbox/done" if self.is_hot else "filed")
        there = sorted(path for path in filed.iterdir() if path.is_file())
        if day % 5 == 0 and there:
            there[0].unlink()
        if day % 5 == 3 and there:
            there[-1].write_text("edited later", "utf-8")

    def check(self, day: int) -> None:
        assert not [*self.inbox.glob("*.*")], f"day {day}: not filed"
        assert self.rows() == sorted(self.filed), f"day {day}"

    def rows(self) -> list[tuple[str, str]]:
        with (self.folder / "out/t.csv").open(encoding="utf-8", newline="") as file:
            return sorted((row["file"], row["words"]) for row in csv.DictReader(file))


@contextmanager
def full_disk() -> Any:
    """Have no room for any file that is written whole."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch.object(TemporaryFile, "written", refuse):
        yield


def live(folder: Path, way: str, days: int, seed: int = 1) -> None:
    story = FilingDays(folder, way, seed)
    for day in range(1, days + 1):
        story.live(day)


def main() -> int:
    parser = argparse.ArgumentParser(description="Days of filing.")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--way", choices=("hand", "hot"), default="hand")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        live(Path(name), given.way, given.days, given.seed)
    print(f"{given.days} days by {given.way}: the table always was what was filed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
