"""A ledger of an earlier version is carried over: nothing is computed again, decisions stand.

The fixtures are folders of earlier commits (`upgrades/make_fixtures.py`); what has to be told of
them is what the last commit with that version of the tables told.
"""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paddock.engine.system import file_locks
from paddock.runner.ledger import carry_over
from paddock.runner.ledger.database.ledger_tables import VERSION
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.own_state import ForeignState, folder_identity
from tests.runner.core.against import differences
from tests.runner.core.random_histories import in_a_process
from tests.runner.ledger.upgrades.make_fixtures import (
    HERE,
    LEDGER,
    NAMES,
    PIPELINES,
    go,
    restore,
    told,
)

OLD = 6
"""The version of the fixtures' tables."""
is_next = pytest.mark.skipif(VERSION == OLD, reason="the ledgers are of today's version")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    folder.mkdir()
    restore(name, folder)
    return folder


def rows_of(file: Path) -> dict[str, list[Any]]:
    """Return all rows of a ledger of the earlier version, by table."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        tables = ledger.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {
            table: ledger.execute(f"select * from {table} order by 1, 2").fetchall()
            for (table,) in tables
        }


def earlier_ledgers(folder: Path) -> list[Path]:
    """Return the files of the state folder that are ledgers of the earlier version."""
    found = list[Path]()
    for path in sorted((folder / ".paddock").iterdir()):
        if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
                facts = dict(ledger.execute("select name, value from meta").fetchall())
            found += [path] * (facts.get("version") == str(OLD))
    return found


def test_plans_runs_reasons_decisions_and_outputs_are_told_as_before(
    name: str, folder: Path
) -> None:
    expected = json.loads((HERE / f"{name}.expected.json").read_text("utf-8"))
    now = json.loads(json.dumps(told(folder), default=str))
    assert [*differences(expected, now)] == []


def run(folder: Path) -> str:
    return str(go(folder, PIPELINES[0]).status)


@is_next
def test_the_ledger_before_is_kept_beside_with_all_its_rows(folder: Path) -> None:
    before = rows_of(folder / LEDGER)
    go(folder, PIPELINES[0])
    (kept,) = earlier_ledgers(folder)
    assert rows_of(kept) == before


@is_next
def test_a_carry_over_that_is_killed_begins_again_with_the_kept_ledger(folder: Path) -> None:
    """What a killed carry-over leaves is no ledger: the next start has the earlier one still."""
    before = rows_of(folder / LEDGER)
    for n in range(1, 6):
        in_a_process(folder, partial(run, folder), n)
        (kept,) = earlier_ledgers(folder)
        assert rows_of(kept) == before, n
    assert run(folder) == "quarantined"


def test_a_ledger_of_a_newer_version_is_refused_in_one_sentence_and_stays(folder: Path) -> None:
    newer = VERSION + 1
    with closing(sqlite3.connect(folder / LEDGER)) as ledger, ledger:
        ledger.execute("update meta set value = ? where name = 'version'", [str(newer)])
        ledger.execute("update meta set value = '9.9.9' where name = 'paddock'")
    before = (folder / LEDGER).read_bytes()
    for pipeline in PIPELINES:
        with pytest.raises(LedgerError) as refused:
            go(folder, pipeline, prune=True, is_confirmed=True)
        first = str(refused.value).partition(". ")[0].partition("\n")[0]
        assert f"version {newer}" in first and "9.9.9" in first, first
    assert (folder / LEDGER).read_bytes() == before


def into_postgres(folder: Path, url: str) -> str:
    """Write the ledger of a fixture into a server as the earlier version did; return its schema."""
    schema = f"paddock_{folder_identity(folder / '.paddock')}"
    with (
        closing(sqlite3.connect(folder / LEDGER)) as ledger,
        psycopg.connect(url, autocommit=True) as server,
    ):
        server.execute(f'create schema "{schema}"'.encode())
        server.execute(f'set search_path to "{schema}"'.encode())
        for (text,) in ledger.execute("select sql from sqlite_master order by type desc"):
            server.execute((text or "select 1").replace("without rowid", "").encode())
        for table, rows in rows_of(folder / LEDGER).items():
            names = [name for _, name, *_ in ledger.execute(f"pragma table_info({table})")]
            flags = {names.index(name) for name in names if name == "has_inner_failures"}
            marks = ", ".join(["%s"] * len(names))
            for row in rows:
                values = [bool(v) if n in flags else v for n, v in enumerate(row)]
                server.execute(f"insert into {table} values ({marks})".encode(), values)
    for file in (folder / ".paddock").glob("ledger.sqlite*"):
        file.unlink()
    return schema


def rows_in(url: str, schema: str) -> dict[str, int]:
    with psycopg.connect(url) as server:
        query = "select table_name from information_schema.tables where table_schema = %s"
        tables = server.execute(query, [schema]).fetchall()
        counts = dict[str, int]()
        for (table,) in tables:
            found = server.execute(f'select count(*) from "{schema}"."{table}"'.encode()).fetchone()
            assert found is not None
            counts[table] = int(found[0])
        return counts


@is_next
def test_in_postgresql_the_tables_before_stay_and_nothing_is_computed_again(
    name: str, folder: Path, url: str
) -> None:
    schema = into_postgres(folder, url)
    before = rows_in(url, schema)
    expected = json.loads((HERE / f"{name}.expected.json").read_text("utf-8"))
    for pipeline in PIPELINES:
        report = go(folder, pipeline, ledger_url=url)
        was = expected[f"run {pipeline}"]
        assert report.status == was["status"]
        assert {s: n for s, n in report.counts.items() if n} == {
            s: n for s, n in was["counts"].items() if n
        }
        assert (report.calls, report.cached_calls) == (was["calls"], was["cached_calls"])
    with psycopg.connect(url) as server:
        query = "select nspname from pg_namespace where nspname like 'paddock%' order by 1"
        schemas = [name for (name,) in server.execute(query).fetchall()]
    kept = [name for name in schemas if rows_in(url, name).keys() == before.keys()]
    assert [rows_in(url, name) for name in kept] == [before]


@is_next
def test_what_is_carried_over_a_row_at_a_time_is_the_same(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry_over, "_PAGE", 1)
    test_plans_runs_reasons_decisions_and_outputs_are_told_as_before(name, folder)


@is_next
@pytest.mark.usefixtures("own_home")
def test_an_earlier_ledger_that_was_not_made_here_is_left_as_it_is(folder: Path) -> None:
    before = (folder / LEDGER).read_bytes()
    for _ in range(2):
        with pytest.raises(ForeignState):
            go(folder, PIPELINES[0])
    assert (folder / LEDGER).read_bytes() == before
    assert [path.name for path in earlier_ledgers(folder)] == [Path(LEDGER).name]


@is_next
def test_a_run_of_the_older_version_is_waited_for(folder: Path) -> None:
    before = (folder / LEDGER).read_bytes()
    lock = folder / ".paddock/locks/older.lock"
    lock.parent.mkdir(exist_ok=True)
    with file_locks.lock_now(lock), pytest.raises(LedgerError) as refused:
        go(folder, PIPELINES[0])
    assert "a run of an older Paddock works on this folder. Wait" in str(refused.value)
    assert (folder / LEDGER).read_bytes() == before
    assert run(folder) == "quarantined"


@is_next
def test_another_program_that_has_the_earlier_ledger_open_is_named(folder: Path) -> None:
    with closing(sqlite3.connect(folder / LEDGER)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from items").fetchall()
        with pytest.raises(LedgerError, match="another program holds the ledger"):
            go(folder, PIPELINES[0])
    assert run(folder) == "quarantined"
