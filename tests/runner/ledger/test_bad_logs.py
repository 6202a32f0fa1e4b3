"""A ledger that was cut, that is older or newer than its folder, or whose clock went back.

Whatever befell it, a run ends with the outputs that a run from scratch makes, or says in a sentence
what is wrong and changes nothing; what a person decided or edited stays, and what is known is not
asked again.
"""

import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from paddock.runner.ledger.entries import LedgerError
from tests.runner.core.random_histories import in_a_process
from tests.runner.core.test_waiting import Bills
from tests.runner.world import each_document, states

LEDGER = ".paddock/ledger.sqlite"
PIPELINE = """\
name: bills
""" + each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}}
        review: {when: "output.total > 50"}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.bill.output | tojson }}"}
    returns: {n: steps.bill.output.number, total: steps.bill.output.total}
  - {id: all, uses: files.write, with: {path: out/ALL, text: "{{ steps.each.results | tojson }}"}}
""")


@pytest.fixture
def bills(tmp_path: Path) -> Bills:
    world = Bills(tmp_path / "here", PIPELINE)
    world.bills(a=10, b=20, c=70)
    return world


def scratch(world: Bills, folder: Path) -> dict[str, str]:
    """Return what a run from scratch makes of the documents; `c` is decided as here."""
    fresh = Bills(folder, PIPELINE)
    shutil.copytree(world.folder / "inbox", folder / "inbox")
    fresh.work()
    if "c.txt" in fresh.waiting():
        fresh.decide("c.txt", "edit", {"number": "c", "total": 7.0})
        fresh.work()
    return files_of(fresh)


def files_of(world: Bills) -> dict[str, str]:
    found = sorted((world.folder / "out").rglob("*"))
    return {path.name: path.read_text("utf-8") for path in found if path.is_file()}


def decide(world: Bills) -> None:
    world.decide("c.txt", "edit", {"number": "c", "total": 7.0})


def whole(world: Bills) -> None:
    world.work()
    decide(world)
    world.work()


def backup_of(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target)


def restore_into(source: Path, target: Path) -> None:
    """Write files as a backup does: into the same names, with their times; later ones go."""
    kept = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for path in [path for path in target.rglob("*") if path.is_file()]:
        if path.relative_to(target) not in kept:
            path.unlink()
    for name in kept:
        (target / name).write_bytes((source / name).read_bytes())
        facts = (source / name).stat()
        os.utime(target / name, ns=(facts.st_atime_ns, facts.st_mtime_ns))


# --- a log that was cut


def die_with_its_log(world: Bills) -> None:
    """Run, and end with an open reader: what was committed stands in the log."""
    reader = sqlite3.connect(world.folder / LEDGER)
    reader.execute("begin")
    reader.execute("select count(*) from meta").fetchall()
    world.work()
    os._exit(9)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5, 0.8, 0.99])
def test_a_log_that_was_cut_in_the_middle_of_a_write_loses_nothing(
    bills: Bills, tmp_path: Path, share: float
) -> None:
    whole(bills)
    bills.bills(a=11, d=30)
    assert in_a_process(bills.folder, partial(die_with_its_log, bills), kill=10**6) is None
    log = bills.folder / f"{LEDGER}-wal"
    assert log.stat().st_size > 0
    os.truncate(log, int(log.stat().st_size * share))
    report = bills.work()
    assert report.status == "completed", report.message
    assert files_of(bills) == scratch(bills, tmp_path / "fresh")
    assert bills.work().calls == 0


def texts_in(file: Path) -> Iterator[tuple[str, str]]:
    """Yield table and column of each text that is written as JSON."""
    with closing(sqlite3.connect(file)) as ledger:
        for (table,) in ledger.execute("select name from sqlite_master where type = 'table'"):
            for _, column, *_ in ledger.execute(f"pragma table_info({table})").fetchall():
                query = f"select count(*) from {table} where substr({column}, 1, 1) in ('{{', '[')"
                if ledger.execute(query).fetchone()[0]:
                    yield table, column


def test_a_value_that_was_cut_is_refused_in_a_sentence_or_made_again(
    bills: Bills, tmp_path: Path
) -> None:
    whole(bills)
    expected = scratch(bills, tmp_path / "fresh")
    backup_of(bills.folder, tmp_path / "backup")
    cut = [*texts_in(bills.folder / LEDGER)]
    assert len(cut) > 3
    for table, column in cut:
        restore_into(tmp_path / "backup", bills.folder)
        with closing(sqlite3.connect(bills.folder / LEDGER)) as ledger, ledger:
            ledger.execute(
                f"update {table} set {column} = substr({column}, 1, length({column}) / 2) "
                f"where substr({column}, 1, 1) in ('{{', '[')"
            )
        for act in (bills.plan, bills.work, partial(bills.work, retry_failed=True)):
            try:
                act()
            except LedgerError as error:
                assert "\n" not in str(error).partition(".")[0], (table, column)
        assert files_of(bills) == expected, (table, column)


# --- clocks


class Clock:
    """What `time.time` tells in place of the time."""

    def __init__(self, times: Iterator[float]) -> None:
        self._times = times

    def __call__(self) -> float:
        return next(self._times)


STILL, BACK = itertools.repeat(1.8e9), (1.8e9 - n for n in itertools.count())


@pytest.mark.parametrize("times", [STILL, BACK], ids=["of one moment", "each before the last"])
def test_the_order_of_what_happened_is_not_that_of_its_times(
    bills: Bills, tmp_path: Path, times: Iterator[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", Clock(times))
    whole(bills)
    bills.bills(a=12)
    bills.work()
    bills.bills(a=13)
    assert states(bills.work()) == {"a.txt": "changed"}
    assert '"total": 13.0' in bills.output("a.txt")
    bills.undo("c.txt")
    bills.work()
    assert "c.txt" in bills.waiting()
    decide(bills)
    bills.work()
    assert files_of(bills) == scratch(bills, tmp_path / "fresh")
    report = bills.work()
    assert (report.calls, set(states(report))) == (0, set())
    (bills.folder / "inbox/b.txt").unlink()
    bills.work(is_confirmed=True, prune=True)
    assert not (bills.folder / "out/b.txt").exists()


def test_after_a_day_back_what_is_new_is_done_and_what_is_known_is_not(
    bills: Bills, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(bills)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86400)
    assert bills.work().calls == 0
    bills.bills(a=14, e=15)
    report = bills.work()
    assert (states(report), report.calls) == ({"a.txt": "changed", "e.txt": "new"}, 2)
    monkeypatch.undo()
    assert bills.work().calls == 0
    assert files_of(bills) == scratch(bills, tmp_path / "fresh")


# --- backups


def test_a_folder_of_an_older_backup_is_done_from_what_the_ledger_knows(
    bills: Bills, tmp_path: Path
) -> None:
    whole(bills)
    for name in ("inbox", "out"):
        backup_of(bills.folder / name, tmp_path / "backup" / name)
    bills.bills(a=16, d=17)
    bills.work()
    for name in ("inbox", "out"):
        restore_into(tmp_path / "backup" / name, bills.folder / name)
    report = bills.work()
    assert (report.status, report.calls) == ("completed", 0), "each reply is known"
    assert states(report)["a.txt"] == "changed"
    assert files_of(bills) == scratch(bills, tmp_path / "fresh")
    assert bills.work().calls == 0


def test_a_ledger_of_an_older_backup_learns_what_the_folder_has(
    bills: Bills, tmp_path: Path
) -> None:
    whole(bills)
    backup_of(bills.folder / ".paddock", tmp_path / "backup")
    bills.bills(a=18, d=19)
    (bills.folder / "inbox/b.txt").unlink()
    bills.work(is_confirmed=True, prune=True)
    restore_into(tmp_path / "backup", bills.folder / ".paddock")
    report = bills.work(is_confirmed=True, prune=True)
    assert report.status == "completed"
    assert report.calls == 2, "what no entry knows is asked again, and nothing else"
    report = bills.work(is_confirmed=True, prune=True)
    assert (report.status, report.calls) == ("completed", 0)
    assert files_of(bills) == scratch(bills, tmp_path / "fresh")


def test_what_a_person_wrote_since_an_older_ledger_is_kept(bills: Bills, tmp_path: Path) -> None:
    whole(bills)
    backup_of(bills.folder / ".paddock", tmp_path / "backup")
    bills.bills(d=21)
    bills.work()
    bills.write("out/d.txt", "mine")
    bills.write("out/a.txt", "mine as well")
    restore_into(tmp_path / "backup", bills.folder / ".paddock")
    report = bills.work()
    found = files_of(bills)
    assert (found["d.txt"], found["a.txt"]) == ("mine", "mine as well")
    assert states(report)["a.txt"] == "held"
    assert report.exit_status() == 0
    assert bills.work().calls == 0


def test_a_decision_since_an_older_ledger_is_asked_again_and_its_page_stays(
    bills: Bills, tmp_path: Path
) -> None:
    bills.work()
    backup_of(bills.folder / ".paddock", tmp_path / "backup")
    decide(bills)
    bills.work()
    page = bills.output("c.txt")
    restore_into(tmp_path / "backup", bills.folder / ".paddock")
    report = bills.work()
    assert states(report)["c.txt"] == "waiting"
    assert bills.output("c.txt") == page
    decide(bills)
    assert bills.work().calls == 0
    assert files_of(bills) == scratch(bills, tmp_path / "fresh")
