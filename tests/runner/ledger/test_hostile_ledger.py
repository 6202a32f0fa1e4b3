"""A ledger that others made or changed: it is refused or ended, and the others go on."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from paddock.runner.ledger.database import sqlite_file
from paddock.runner.ledger.database.sqlite_file import SqliteDatabase
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import World

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
RUNS = (
    "'a' run, 'a' pipeline, 'pipeline.yaml' file, 1.0 started, 2.0 ended, 'completed' status, "
    "null summary, 'hand' trigger, null host, 0 pid, 1 attempt, null message, null parent, "
    "null given"
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "pipes/here", n_documents=1)
    world.run()
    World(tmp_path / "pipes/other", n_documents=1).run()
    monkeypatch.chdir(tmp_path / "pipes")
    return world


def execute(world: World, *statements: str) -> None:
    file = world.folder / ".paddock/ledger.sqlite"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ("alter table runs rename to old", f"create view runs as select {RUNS} from ({ENDLESS})"),
        ("create trigger t after insert on runs begin delete from calls; end",),
        ("alter table runs rename to old", "create virtual table runs using fts5(run, file, pid)"),
        ("alter table runs add column more text as (zeroblob(1000000000))",),
        ("create table other (x check (abs(x) > 1))",),
        ("create index i on runs (zeroblob(pid))",),
        ("create index i on runs (pid) where abs(pid) > 1",),
        (f"create view unused as {ENDLESS}",),
    ],
)
def test_a_ledger_with_more_than_plain_tables_is_refused_and_the_others_go_on(
    world: World, statements: tuple[str, ...]
) -> None:
    execute(world, *statements)
    state = world.folder / ".paddock"
    for is_readonly in (True, False):
        with pytest.raises(LedgerError, match="in it is no plain table"):
            Ledger(state, is_readonly=is_readonly).__enter__()
    for command in ("runs", "clean", "logs"):
        done = invoke(command)
        assert f"{state / 'ledger.sqlite'}: this is no ledger" in done.stderr
    assert len(invoke("runs").stdout.splitlines()) == 2


def test_a_statement_that_takes_too_long_is_ended_and_its_ledger_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "READ_S", 0.2)
    monkeypatch.setattr(sqlite_file, "WORK_S", 0.2)
    file = world.folder / ".paddock/ledger.sqlite"
    many = "select count(*) from items a, items b, items c, items d, items e"
    execute(world, *["insert into meta select hex(randomblob(16)), '' from meta"] * 13)
    for is_readonly in (True, False):
        with contextlib.closing(SqliteDatabase(file, is_readonly=is_readonly)) as database:
            with pytest.raises(LedgerError) as caught:
                database.rows(many.replace("items", "meta"), {})
            assert str(caught.value) == (
                f"{file}: the ledger did not answer within 0.2 s. "
                "Look whether the disk is slow, or move the file away."
            )
            assert database.rows("select count(*) from runs", {}) == [(1,)]


def test_readers_cannot_write_and_no_other_file_is_reached(world: World, tmp_path: Path) -> None:
    file = world.folder / ".paddock/ledger.sqlite"
    with contextlib.closing(SqliteDatabase(file, is_readonly=True)) as database:
        for statement in (
            "delete from runs", f"attach '{tmp_path / 'made'}' as made", ENDLESS,
            "create temp view v as select 1",
        ):  # fmt: skip
            with pytest.raises(LedgerError):
                database.rows(statement, {})
    assert not (tmp_path / "made").exists()
