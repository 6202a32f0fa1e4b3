"""A ledger of each released version: it opens, nothing is done again, a kill is harmless.

`released/<version>` is a folder in which a Paddock of that version worked: two documents, one
that is gone since, one that cannot be read, and an output that somebody edited.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paddock.runner.ledger.entries import VERSION, LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import RetentionLimits, SweepResult, sweep_ledger
from paddock.runner.ledger.run_history import find_ledgers, recent_runs
from tests.runner.world import World

RELEASED = Path(__file__).parent / "released"
VERSIONS = sorted(int(folder.name) for folder in RELEASED.iterdir())

KILLED = """
import os, signal, sys
from pathlib import Path
from paddock.runner.ledger import tables
from paddock.runner.ledger.ledger import Ledger

class Dying:
    def __init__(self, connection): self.connection, self.left = connection, int(sys.argv[2])
    def count(self):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def exec_driver_sql(self, statement):
        self.count()
        return self.connection.exec_driver_sql(statement)
    def _run_ddl_visitor(self, *args, **given):  # what `table.create` calls
        self.count()
        return self.connection._run_ddl_visitor(*args, **given)
    def __getattr__(self, name): return getattr(self.connection, name)

def dying(n, real):
    def migrate(connection):
        real(Dying(connection))
        if n == max(tables.MIGRATIONS):  # at the latest before the commit
            os.kill(os.getpid(), signal.SIGKILL)
    return migrate

tables.MIGRATIONS = {n: dying(n, real) for n, real in tables.MIGRATIONS.items()}
tables.prepare.__defaults__ = (tables.MIGRATIONS,)
with Ledger(Path(sys.argv[1])):
    pass
"""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def worked_in(version: int, folder: Path) -> World:
    """Give a copy of the folder that a released Paddock worked in."""
    shutil.copytree(RELEASED / str(version), folder)
    (folder / "ledger").rename(folder / ".paddock")
    return World(folder, (folder / "pipeline.yaml").read_text("utf-8"))


def version_of(file: Path) -> int:
    connection = sqlite3.connect(file)
    try:
        query = "select value from meta where name = 'version'"
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_a_ledger_of_every_version_before_this_one_is_kept() -> None:
    assert list(range(1, VERSION)) == VERSIONS


def test_nothing_that_an_older_version_did_is_done_again(version: int, tmp_path: Path) -> None:
    world = worked_in(version, tmp_path / "letters")
    before = contents(world.folder / "out")
    assert not world.plan().has_work
    report = world.run()
    assert (report.calls, report.cached_calls, report.written) == (0, 0, ())
    assert report.counts == {"fresh": 3, "held": 1, "quarantined": 1}
    assert all(item.is_known for item in report.items if item.state == "quarantined")
    assert contents(world.folder / "out") == before


def test_what_an_older_version_quarantined_is_tried_again_when_asked(
    version: int, tmp_path: Path
) -> None:
    world = worked_in(version, tmp_path / "letters")
    report = world.run(retry_failed=True)
    assert [item.key for item in report.items if item.state == "quarantined"] == ["broken.pdf"]
    assert report.calls == 0


def test_the_copy_from_before_is_whole_and_can_be_put_back(version: int, tmp_path: Path) -> None:
    world = worked_in(version, tmp_path / "letters")
    world.run()
    file = world.folder / ".paddock/ledger.sqlite"
    copy = file.with_name(f"ledger.sqlite.v{version}")
    assert (version_of(file), version_of(copy)) == (VERSION, version)
    for end in ("", "-wal", "-shm"):
        file.with_name(f"{file.name}{end}").unlink(missing_ok=True)
    copy.rename(file)
    assert world.run().counts == {"fresh": 3, "held": 1, "quarantined": 1}


def test_the_runs_of_an_older_version_are_still_listed(version: int, tmp_path: Path) -> None:
    world = worked_in(version, tmp_path / "letters")
    found = recent_runs(find_ledgers([world.folder]), limit=10)
    assert found.faults == ()
    assert len(found.runs) == 3
    assert {past.status for past in found.runs} == {"quarantined"}
    assert {past.row.trigger for past in found.runs} == {"hand"}


def test_a_ledger_that_no_run_has_brought_up_to_date_is_not_cleaned(
    version: int, tmp_path: Path
) -> None:
    world = worked_in(version, tmp_path / "letters")
    assert sweep_ledger(world.folder / ".paddock", "", RetentionLimits(1e12, 1e12)) == SweepResult()
    assert version_of(world.folder / ".paddock/ledger.sqlite") == version


def test_cleaning_an_upgraded_ledger_makes_nothing_stale(version: int, tmp_path: Path) -> None:
    world = worked_in(version, tmp_path / "letters")
    world.run()
    sweep_ledger(world.folder / ".paddock", "", RetentionLimits(1e12, 1e12))
    report = world.run()
    assert (report.calls, report.counts) == (0, {"fresh": 3, "held": 1, "quarantined": 1})


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_kill_in_the_middle_of_a_migration_is_harmless(
    version: int, after: int, tmp_path: Path
) -> None:
    world = worked_in(version, tmp_path / "letters")
    folder = world.folder / ".paddock"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(after)],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert version_of(folder / "ledger.sqlite") == version
    report = world.run()
    assert (report.calls, report.counts) == (0, {"fresh": 3, "held": 1, "quarantined": 1})


def test_two_that_open_an_older_ledger_at_once_migrate_it_once(
    version: int, tmp_path: Path
) -> None:
    world = worked_in(version, tmp_path / "letters")
    faults: list[BaseException] = []

    def opened() -> None:
        try:
            with Ledger(world.folder / ".paddock") as ledger:
                assert len(ledger.run_names()) == 3
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_newer_ledger_is_refused_by_every_verb_and_left_as_it_is(tmp_path: Path) -> None:
    world = worked_in(VERSIONS[0], tmp_path / "letters")
    file = world.folder / ".paddock/ledger.sqlite"
    connection = sqlite3.connect(file)
    connection.execute(f"update meta set value = '{VERSION + 1}'")
    connection.commit()
    connection.close()
    before = file.read_bytes()
    words = (
        f"{file}: this ledger was written by a newer Paddock (its version is {VERSION + 1}, "
        f"this one reads {VERSION}). Update Paddock, or move that file away to start anew."
    )
    for verb in (
        world.run,
        world.plan,
        lambda: sweep_ledger(file.parent, "", RetentionLimits(0, 0)),
    ):
        with pytest.raises(LedgerError) as caught:
            verb()
        assert str(caught.value) == words
    assert recent_runs(find_ledgers([world.folder]), limit=10).faults == (words,)
    assert file.read_bytes() == before
