"""The ledger: rows that stand once they are awaited, values by digest, versions of the file."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.runner.ledger.entries import VERSION, CallRow, Entry, LedgerError, OutputRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.writer import KEYS


def entry(key: str, **fields: object) -> Entry:
    return Entry(key=key, hash="h", parts="{}", state="done", **fields)  # type: ignore[arg-type]


def test_what_was_awaited_is_read_by_another_opening(tmp_path: Path) -> None:
    async def write() -> None:
        with Ledger(tmp_path) as ledger:
            ledger.record("scope", entry("a", seconds=1.5), "run")
            ledger.record_output(OutputRow("scope", "out/a", "a", None, ("x",), None, None), "run")
            await ledger.durable()

    asyncio.run(write())
    with Ledger(tmp_path) as ledger:
        assert ledger.entries("scope") == {"a": entry("a", seconds=1.5)}
        assert ledger.entries("another") == {}
        assert [row.intended for row in ledger.outputs()] == [("x",)]


def test_a_row_written_twice_before_a_commit_is_the_last_one(tmp_path: Path) -> None:
    async def write() -> None:
        with Ledger(tmp_path) as ledger:
            for seconds in range(50):
                ledger.record("scope", entry("a", seconds=float(seconds)), "run")
            await ledger.durable()
            assert ledger.entries("scope")["a"].seconds == 49

    asyncio.run(write())


def test_small_values_are_inline_and_large_ones_objects(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        assert ledger.keep({"a": 1}) == ('{"a":1}', None)
        text, object_ = ledger.keep("x" * 20_000)
        assert text is None and object_ is not None
        assert ledger.value(text, object_) == "x" * 20_000
        assert [path.name for path in (tmp_path / "objects").iterdir()] == [object_]
        (tmp_path / "objects" / object_).write_text("rotten")
        with pytest.raises(LedgerError, match="this value is gone"):
            ledger.value(None, object_)


def test_a_call_comes_back_with_its_raw_reply(tmp_path: Path) -> None:
    async def write() -> None:
        with Ledger(tmp_path) as ledger:
            for hash_, reply in (("small", b"yes"), ("large", b"word " * 10_000)):
                row = CallRow(
                    hash_, "chat", "m", "d", "d", "{}", reply, "stop", {"prompt_tokens": 3},
                    "scope", "step", "key",
                )  # fmt: skip
                ledger.record_call(row, "run")
            await ledger.durable()
            found = ledger.call("large")
            assert found is not None and found.reply == b"word " * 10_000
            assert found.usage == {"prompt_tokens": 3}
            assert ledger.call("other") is None

    asyncio.run(write())


def test_the_ledger_of_a_newer_paddock_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("update meta set value = '9' where name = 'version'")
    connection.close()
    with pytest.raises(LedgerError) as caught, Ledger(tmp_path):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'ledger.sqlite'}: this ledger was written by a newer Paddock (its version "
        f"is 9, this one reads 4). Update Paddock, or move that file away to start anew."
    )


def test_an_older_ledger_is_migrated_after_a_copy(tmp_path: Path) -> None:
    from sqlalchemy import Connection

    from paddock.runner.ledger.ledger_tables import prepare_tables, sqlite_engine

    with Ledger(tmp_path):
        pass
    file = tmp_path / "ledger.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("update meta set value = '0' where name = 'version'")
    connection.close()

    def add(connection: Connection) -> None:
        connection.exec_driver_sql("create table added (x integer)")

    def add_no_more(connection: Connection) -> None:
        pass

    engine = sqlite_engine(file)
    prepare_tables(engine, file, dict.fromkeys(range(VERSION), add_no_more) | {0: add})
    prepare_tables(engine, file, {})
    engine.dispose()
    assert (tmp_path / "ledger.sqlite.v0").exists()


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("not a database, but long enough to be read as one\n")
    with pytest.raises(LedgerError, match="the ledger cannot be read"), Ledger(tmp_path):
        pass


def test_reading_needs_no_ledger_and_makes_none(tmp_path: Path) -> None:
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        assert ledger.entries("scope") == {}
        assert ledger.run_names() == frozenset()
    assert not (tmp_path / ".paddock").exists()


def test_a_failed_write_is_told_to_whoever_waits(tmp_path: Path) -> None:
    async def write() -> None:
        with Ledger(tmp_path) as ledger:
            with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
                connection.execute("drop table items")
            connection.close()
            ledger.record("scope", entry("a"), "run")
            with pytest.raises(LedgerError, match="the ledger cannot be written"):
                await ledger.durable()
            with pytest.raises(LedgerError):
                ledger.record("scope", entry("b"), "run")

    asyncio.run(write())


def test_a_ledger_that_is_just_being_made_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / ".paddock"
    with Ledger(folder) as ledger:
        file = ledger.file
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("delete from meta where name = 'version'")
    with Ledger(folder, is_readonly=True) as ledger:
        assert ledger.scopes_of("pipeline.yaml") == set()


def released(version: int, folder: Path) -> Path:
    """Give a copy of the folder that a released Paddock worked in, with its ledger in place."""
    shutil.copytree(Path(__file__).parent / "released" / str(version), folder)
    (folder / "ledger").rename(folder / ".paddock")
    return folder


def test_the_ledger_of_version_1_becomes_this_one_with_all_that_it_knew(tmp_path: Path) -> None:
    folder = released(1, tmp_path / "letters") / ".paddock"
    with Ledger(folder) as ledger:
        runs = ledger.runs()
        assert [(run.status, run.trigger, run.attempt) for run in runs] == [
            ("quarantined", "hand", 1)
        ] * 3
        items = ledger.items_of(runs[-1].run)
        assert {(item.step, item.entry.key, item.entry.attempts) for item in items} >= {
            ("each", "broken.pdf", 0)
        }
        assert ledger.watched("w") == {}
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite.v1")) as copy:
        assert copy.execute("select value from meta").fetchone() == ("1",)
    assert not list(folder.glob(".*.part"))


def test_a_migration_that_is_cut_short_leaves_the_older_ledger(tmp_path: Path) -> None:
    from sqlalchemy import Connection

    from paddock.runner.ledger.ledger_tables import MIGRATIONS, prepare_tables, sqlite_engine

    file = released(1, tmp_path / "letters") / ".paddock" / "ledger.sqlite"

    def cut_short(connection: Connection) -> None:
        MIGRATIONS[1](connection)
        raise KeyboardInterrupt

    engine = sqlite_engine(file)
    with pytest.raises(KeyboardInterrupt):
        prepare_tables(engine, file, {1: cut_short})
    prepare_tables(engine, file)
    engine.dispose()
    with Ledger(file.parent) as ledger:
        assert len(ledger.runs()) == 3


def test_a_run_is_found_by_its_name_and_by_how_it_ended(tmp_path: Path) -> None:
    async def write() -> None:
        with Ledger(tmp_path) as ledger:
            for number, status in enumerate(("completed", "failed", "running")):
                row = {"run": status, "pipeline": "p", "file": "p.yaml", "started": number}
                ledger.record_run({**row, "status": status, "trigger": "watch"})
            await ledger.durable()

    asyncio.run(write())
    with Ledger(tmp_path, is_readonly=True) as ledger:
        assert [run.run for run in ledger.runs()] == ["running", "failed", "completed"]
        assert [run.run for run in ledger.runs(1)] == ["running"]
        assert [run.run for run in ledger.runs(failed_only=True)] == ["failed"]
        run = ledger.run("failed")
        assert run is not None and run.trigger == "watch"
        assert ledger.run("none") is None


def test_what_a_watch_has_seen_through_is_known_until_it_is_gone(tmp_path: Path) -> None:
    async def write() -> None:
        with Ledger(tmp_path) as ledger:
            ledger.record_watched("w", "run", {"a": (1, 10), "b": (2, 20)})
            ledger.record_watched("v", "run", {"a": (9, 90)})
            await ledger.durable()
            ledger.record_watched("w", "run", {"a": (3, 2**62)}, gone=["b"])
            await ledger.durable()

    asyncio.run(write())
    with Ledger(tmp_path, is_readonly=True) as ledger:
        assert ledger.watched("w") == {"a": (3, 2**62)}
        assert ledger.watched("v") == {"a": (9, 90)}


def test_a_row_is_found_by_the_key_that_its_table_has() -> None:
    from paddock.runner.ledger.ledger_tables import TABLES

    made = {name: tuple(c.name for c in table.primary_key) for name, table in TABLES.items()}
    assert {name: made[name] for name in KEYS} == KEYS


def test_a_file_is_read_and_written_without_what_makes_its_tables(tmp_path: Path) -> None:
    with Ledger(tmp_path):
        pass
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from paddock.runner.ledger.ledger import Ledger\n"
        "with Ledger(Path(sys.argv[1])) as ledger:\n"
        "    ledger.record_scope('s', 'f', 'each', '{}')\n"
        "    asyncio.run(ledger.durable())\n"
        "    assert ledger.scopes_of('f') == {'s'}\n"
        "sys.exit('sqlalchemy' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code, tmp_path], check=True)


def test_a_file_that_is_broken_further_on_is_told_when_it_is_read(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for number in range(200):
            ledger.record_scope(f"{number}", "pipeline.yaml", "each", "x" * 500)
    file = ledger.file
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2] + b"\xab" * (len(good) - len(good) // 2))
    for is_readonly in (True, False):
        with (
            Ledger(tmp_path, is_readonly=is_readonly) as ledger,
            pytest.raises(LedgerError) as caught,
        ):
            ledger.scopes_of("pipeline.yaml")
        assert str(caught.value) == (
            f"{file}: the ledger cannot be read (database disk image is malformed). "
            f"Move that file away to start anew; what it wrote stays where it is."
        )
