"""Ledgers of an older Paddock: read as they are, upgraded by what writes, nothing done again."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from paddock.engine.system import file_locks
from paddock.engine.system.records import replace
from paddock.runner.api import run_until_end
from paddock.runner.ledger.database import sqlite_file
from paddock.runner.ledger.database.ledger_tables import upgrade_statements
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import folder_identity
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.core.filing_shapes import pipeline_files
from tests.runner.core.random_histories import KILLED, in_a_process
from tests.runner.world import World, run_arguments, settings, states

FILED = ("name", "path", "sha256", "target", "is_deleted", "made_by", "outdated_by")
VERSION_2 = (
    "create table filed (scope text not null, key text not null, name text not null, "
    "path text not null, sha256 text not null, target text, is_deleted integer not null, "
    "made_by text not null, outdated_by text not null, returns text, returns_object text, "
    "run text not null, at float8 not null, primary key (scope, key))",
    f"insert into filed select scope, key, {', '.join(FILED)}, returns, returns_object, run, at "
    "from items where name is not null",
    "drop index items_filed",
    *(f"alter table items drop column {name}" for name in FILED),
    "delete from meta where name = 'filed_in_items'",
    "update meta set value = '2' where name = 'version'",
)
"""What makes a ledger of today one of version 2."""


def filing_world(folder: Path) -> World:
    files = pipeline_files("plain")
    world = World(folder, files.pop("pipeline.yaml"))
    for name in "ab":
        world.write(f"inbox/{name}.txt", f"Letter {name}")
    return world


def change(world: World, *statements: str) -> None:
    with closing(sqlite3.connect(world.folder / ".paddock/ledger.sqlite")) as ledger, ledger:
        for statement in statements:
            ledger.execute(statement)


@pytest.fixture
def older(tmp_path: Path) -> World:
    """Return a world whose ledger has two filed items in a table of their own."""
    world = filing_world(tmp_path)
    world.run()
    world.run()
    change(world, *VERSION_2)
    return world


def filed(report: Report) -> tuple[int, int, tuple[str, ...]]:
    return report.calls, report.filed.n, report.written


def test_a_table_of_filed_items_becomes_their_state_and_nothing_is_done_again(older: World) -> None:
    file = older.folder / ".paddock/ledger.sqlite"
    before = file.read_bytes()
    assert (older.plan().has_work, older.plan().filed.n) == (False, 2)
    assert file.read_bytes() == before
    assert filed(older.run()) == (0, 2, ())
    with closing(sqlite3.connect(file.with_name("ledger.version-2.sqlite"))) as copy:
        assert copy.execute("select count(*) from filed").fetchone() == (2,)
    older.write("inbox/a.txt", "other content")
    assert filed(older.run())[:2] == (1, 2)
    assert filed(older.run()) == (0, 3, ())


def test_an_upgrade_that_was_killed_is_made_by_the_next_run(older: World) -> None:
    def dying(*given: Any) -> Iterator[str]:
        yield from upgrade_statements(*given)
        os._exit(KILLED)

    def act() -> dict[str, Any]:
        with patch(f"{sqlite_file.__name__}.upgrade_statements", dying):
            return {"status": older.run().status}

    assert in_a_process(older.folder, act, kill=10_000) is None
    assert not older.plan().has_work
    assert filed(older.run()) == (0, 2, ())


def test_a_ledger_with_which_an_older_run_works_is_not_upgraded(older: World) -> None:
    (lock,) = (older.folder / ".paddock/locks").glob("*.lock")
    with file_locks.file_lock(lock), pytest.raises(LedgerError, match="a run of an older Paddock"):
        older.run()
    assert filed(older.run()) == (0, 2, ())


def test_a_ledger_of_before_documents_were_filed_keeps_its_rows(older: World) -> None:
    change(
        older,
        "drop table moves",
        "drop table filed",
        "delete from meta where name = 'filing'",
        "delete from items where key = 'table'",  # steps that write had no traces
        "update items set gone = 'some-run' where key = 'a.txt'",
        "update items set gone = null where key = 'b.txt'",
    )
    assert not older.plan().has_work
    (older.folder / "filed/b.txt").unlink()
    older.write("inbox/c.txt", "Letter c")
    report = older.run()
    assert (report.calls, report.counts.get("deleted", 0)) == (1, 0)
    assert (report.filed.n, report.filed.no_longer_there) == (2, 1)
    rows = [line.partition(",")[0] for line in older.output("t.csv").splitlines()[1:]]
    assert rows == ["a.txt", "b.txt", "c.txt"]
    older.edit("Kind of", "Which kind:")
    assert sorted(states(older.run())) == ["a.txt", "c.txt"]


def test_a_pipeline_of_before_names_were_kept_is_known_by_its_file(tmp_path: Path) -> None:
    world = filing_world(tmp_path)
    world.run()
    world.run()
    change(world, "drop table pipelines", "delete from meta where name = 'pipelines'")
    assert (world.plan().has_work, world.plan().filed.n) == (False, 2)
    assert filed(world.run()) == (0, 2, ())
    world.file.rename(tmp_path / "renamed.yaml")
    assert filed(World(tmp_path, world.text, name="renamed.yaml").run()) == (0, 2, ())


def test_a_ledger_in_postgresql_is_upgraded_where_no_run_is_at_work(
    url: str, tmp_path: Path
) -> None:
    world = filing_world(tmp_path)
    own = replace(settings(tmp_path), ledger_url=url)

    def run() -> Report:
        return run_until_end(
            world.file, None, *run_arguments(local=True, pool=FakePool(), settings=own)
        )

    run()
    run()
    schema = f"paddock_{folder_identity(tmp_path / '.paddock')}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"set search_path to {schema}".encode())
        for statement in VERSION_2:
            connection.execute(statement.encode())
        connection.execute(b"insert into meta values ('schema lock', '{}')")
        connection.execute(b"select pg_advisory_lock(hashtextextended('schema lock', 0))")
        with pytest.raises(LedgerError, match="a run of an older Paddock"):
            run()
    with Ledger(tmp_path / ".paddock", url=url, is_readonly=True) as ledger:
        assert ledger.rows("select count(*) from filed") == [(2,)]
    assert filed(run()) == (0, 2, ())
    with Ledger(tmp_path / ".paddock", url=url, is_readonly=True) as ledger:
        assert ledger.rows("select count(*) from filed_version_2") == [(2,)]
        assert ledger.rows("select 1 from pg_tables where tablename = 'filed'") == []
