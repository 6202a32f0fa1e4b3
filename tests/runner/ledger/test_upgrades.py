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

import pytest

from paddock.runner.ledger.database.ledger_tables import VERSION
from paddock.runner.ledger.entries import LedgerError
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
