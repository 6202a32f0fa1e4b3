"""The ledger in PostgreSQL: as in a file, for several machines; and its errors."""

import asyncio
import os
import shutil
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paddock.engine.system.distribution import own_version
from paddock.runner.ledger.database.postgres import (
    PostgresDatabase,
    PostgresServer,
    database_name,
    postgres_server,
)
from paddock.runner.ledger.database.sqlite_file import SqliteDatabase
from paddock.runner.ledger.entries import CallRow, Entry, LedgerError, OutputRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import ForeignState, folder_identity
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.drain import stop_on_signals
from tests.postgres import Postgres, pgbouncer, postgres
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import SUMMARIES, ReviewedWorld


def entry(key: str, **fields: object) -> Entry:
    return Entry(key=key, hash="h", parts="{}", state="done", **fields)  # type: ignore[arg-type]


def call(hash_: str, reply: bytes) -> CallRow:
    return CallRow(
        hash_, "chat", "m", "d", "d", "{}", reply, "stop", {"n": 1}, "scope", "step", "key"
    )


async def test_awaited_rows_are_read_on_another_machine(url: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, url=url) as here, Ledger(tmp_path, url=url) as there:
        here.record("scope", entry("a", seconds=1.5, has_inner_failures=True), "run")
        output = OutputRow("scope", "out/a", "a", None, ("x",), 2**40, 2**62)
        here.record_output(output, "run")
        here.record_call(call("h", b"a NUL: \0"), "run")
        row = {"run": "r", "pipeline": "p", "file": "f", "started": 1.0, "status": "s"}
        RunStore(here).record_run(row)
        here.record_watched("w", "r", {"a": (1, 2**62), "b": (2, 2)})
        await here.durable()
        here.record_watched("w", "r", {}, gone=["b"])
        await here.durable()
        found = there.entries("scope")
        assert found == {"a": entry("a", seconds=1.5, has_inner_failures=True)}
        assert found["a"].run == "run" and found["a"].at > 0
        assert list(there.outputs()) == [output]
        recorded = there.call("h")
        assert (
            recorded is not None and recorded.reply == b"a NUL: \0" and recorded.usage == {"n": 1}
        )
        assert [run.run for run in RunStore(there).runs()] == ["r"]
        assert there.watched("w") == {"a": (1, 2**62)}
    with Ledger(tmp_path, url=url, is_readonly=True) as reading:
        assert RunStore(reading).run_names() == {"r"}
    assert not (tmp_path / "ledger.sqlite").exists()


async def test_machines_that_write_the_same_rows_in_any_order_do_not_deadlock(
    url: str, tmp_path: Path
) -> None:
    async def write(ledger: Ledger, number: int) -> None:
        keys = [f"{n}" for n in range(40)]
        for _ in range(10):
            for key in keys if number % 2 else reversed(keys):
                ledger.record("scope", entry(key, calls=number), "run")
                ledger.record_scope(key, "f", "s", "{}")
            await ledger.durable()

    with Ledger(tmp_path, url=url) as a, Ledger(tmp_path, url=url) as b:
        await asyncio.gather(write(a, 1), write(b, 2))
        assert len(a.entries("scope")) == 40


def test_many_machines_that_begin_at_once_make_one_ledger(url: str, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def begin() -> None:
        try:
            with Ledger(tmp_path, url=url) as ledger:
                ledger.record("scope", entry(threading.current_thread().name), "run")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Ledger(tmp_path, url=url, is_readonly=True) as ledger:
        assert len(ledger.entries("scope")) == 6


def test_no_ledger_begins_with_a_file_that_was_not_made_here(
    url: str, tmp_path: Path, own_home: Path
) -> None:
    with Ledger(tmp_path / "theirs") as ledger:
        ledger.record("scope", entry("a"), "run")
    mine = Path(shutil.copytree(tmp_path / "theirs", tmp_path / "mine"))
    with pytest.raises(ForeignState, match="it was not made here"), Ledger(mine, url=url):
        pass
    (mine / "ledger.sqlite").unlink()
    with Ledger(mine, url=url) as ledger:
        assert ledger.entries("scope") == {}


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/work?connect_timeout=2"
    reading = postgres_server(url, folder_identity(tmp_path))
    with pytest.raises(LedgerError) as caught:
        PostgresDatabase(reading, retry_s=0.1).find_tables()
    text = str(caught.value)
    assert text.startswith(
        "PostgreSQL's database 'work' at 127.0.0.1:1 cannot be reached (connection failed: "
    )
    assert text.endswith(
        "Start it, or correct the setting 'ledger' (PADDOCK_LEDGER). Finished items are kept."
    )
    assert "secret" not in text


def test_the_ledger_of_another_version_is_refused(url: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, url=url):
        pass
    schema = PostgresServer(url, f"paddock_{folder_identity(tmp_path)}").schema
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"update {schema}.meta set value = '9' where name = 'version'".encode())
    for is_readonly in (False, True):
        with (
            pytest.raises(LedgerError) as caught,
            Ledger(tmp_path, url=url, is_readonly=is_readonly),
        ):
            pass
        text = str(caught.value)
        own = own_version()
        which = f"version 9, which the newer Paddock {own} reads; this is Paddock {own}, for"
        assert text.startswith(f"{database_name(url)}: this ledger has {which} version 7. Use the")


def test_an_identity_that_was_edited_is_named(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("my folder\n")
    with pytest.raises(LedgerError) as caught:
        folder_identity(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'id'}: this is not the identity of a folder. Restore the file, which names "
        f"the ledger in PostgreSQL, or remove it to start with a new ledger."
    )


@pytest.mark.parametrize("password", ["p%zz", "p@ss", "pa/ss", "p ss", "pa%", "a:b@c/d"])
def test_a_password_that_cuts_the_address_at_the_wrong_place_is_shown_nowhere(
    tmp_path: Path, password: str
) -> None:
    url = f"postgresql://me:{password}@127.0.0.1:1/work"
    with pytest.raises(LedgerError) as caught, Ledger(tmp_path, url=url):
        pass
    assert str(caught.value) == (
        "The setting 'ledger' (PADDOCK_LEDGER) cannot be read as an address. In a name or a "
        "password write %25 for %, %40 for @, %2F for /, %3A for : and %20 for a space."
    )
    assert database_name(url) == "PostgreSQL"


@pytest.mark.parametrize(
    "statement",
    [
        "alter table {0}.runs rename to old; create view {0}.runs as select * from {0}.old",
        "create function pg_temp.f() returns trigger language plpgsql as 'begin return new; end';"
        "create trigger t before insert on {0}.runs for each row "
        "execute function suppress_redundant_updates_trigger()",
        "create rule r as on delete to {0}.calls do instead nothing",
        "alter table {0}.calls enable row level security",
        "alter table {0}.calls owner to stranger",
        "create materialized view {0}.more as select 1",
    ],
)
def test_a_schema_with_more_than_plain_tables_of_its_owner_is_refused(
    server: Postgres, tmp_path: Path, statement: str
) -> None:
    server.say("do 'begin create role stranger; exception when others then end'")
    url = server.make(f"hostile{abs(hash(statement))}")
    with Ledger(tmp_path, url=url):
        pass
    schema = f"paddock_{folder_identity(tmp_path)}"
    server.say(statement.format(schema), url.rpartition("/")[2])
    for is_readonly in (True, False):
        with pytest.raises(LedgerError, match="is no plain table of the schema's owner"):
            Ledger(tmp_path, url=url, is_readonly=is_readonly).__enter__()


def test_a_reader_waits_for_no_statement_for_ever_and_finds_no_other_tables(
    url: str, tmp_path: Path
) -> None:
    with Ledger(tmp_path, url=url):
        pass
    server = PostgresServer(url, f"paddock_{folder_identity(tmp_path)}", limit_s=0.2)
    connection = PostgresDatabase(server)
    connection.rows("create temp table runs (run text)", {})
    connection.rows("insert into pg_temp.runs values ('planted')", {})
    assert connection.rows("select run from runs", {}) == []
    with pytest.raises(LedgerError, match="statement timeout"):
        connection.rows("select pg_sleep(60)", {})
    connection.close()


def rows_of(database: Any) -> dict[str, dict[Any, Any]]:
    """Return all rows, but those that say which ledger it is."""
    found: dict[str, dict[Any, Any]] = {}
    for pending in database.lasting_rows():
        for table, rows in pending.items():
            found.setdefault(table, {}).update(rows)
    found.pop("meta")
    return found


def test_a_ledger_is_copied_to_postgresql_and_back_with_what_people_decided(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SUMMARIES.replace('{{ inputs.tone }})"}}', '{{ inputs.tone }})"}, review: {}}')
    world = ReviewedWorld(tmp_path / "letters", text, n_documents=3)
    assert world.run().counts["waiting"] == 3
    world.decide("0.txt", "accept")
    world.run()
    file = world.folder / ".paddock/ledger.sqlite"
    with closing(SqliteDatabase(file)) as database:
        before = rows_of(database)
    assert before["reviews"] and before["calls"] and before["items"]
    command = ("ledger", "copy", str(world.folder), "--to")
    assert "Set PADDOCK_LEDGER=" in invoke(*command, "postgres").stderr
    monkeypatch.setenv("PADDOCK_LEDGER", url)
    assert invoke(*command, "postgres").exit_code == 0
    assert "has a ledger of this folder already" in invoke(*command, "postgres").stderr
    assert "there is a ledger already" in invoke(*command, "file").stderr
    file.rename(file.with_name("earlier"))
    assert invoke(*command, "file").exit_code == 0
    with closing(SqliteDatabase(file)) as database:
        assert rows_of(database) == before
    monkeypatch.delenv("PADDOCK_LEDGER")
    again = world.run()
    assert (again.counts["waiting"], again.calls) == (2, 0)


@pytest.mark.parametrize(
    "settings",
    [
        ("default_pool_size = 1",),
        ("default_pool_size = 5",),
        ("default_pool_size = 5", "server_round_robin = 1"),
        ("default_pool_size = 5", "min_pool_size = 5"),
    ],
)
def test_a_pooler_that_keeps_no_session_is_refused_before_anything_is_read_or_written(
    server: Postgres, url: str, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    name = url.rpartition("/")[2]
    with pgbouncer(server, "pool_mode = transaction", *settings) as pooler:
        for _ in range(5):
            with pytest.raises(LedgerError) as caught, Ledger(tmp_path, url=pooler.url(name)):
                pass
            assert "pool_mode = session" in str(caught.value)
        with psycopg.connect(pooler.url(name)) as connection:  # nor left as it is not
            assert connection.execute("show search_path").fetchone() == ('"$user", public',)
    with psycopg.connect(url) as connection:
        made = "select 1 from pg_namespace where nspname like 'paddock%'"
        assert connection.execute(made).fetchall() == []
        held = "select 1 from pg_locks where locktype = 'advisory' and database = "
        held += "(select oid from pg_database where datname = current_database())"
        assert connection.execute(held).fetchall() == []


def test_a_pooler_that_keeps_sessions_is_as_good_as_the_server(
    server: Postgres, url: str, tmp_path: Path
) -> None:
    with pgbouncer(server, "pool_mode = session") as pooler:
        through = pooler.url(url.rpartition("/")[2])
        with Ledger(tmp_path, url=through) as ledger, Ledger(tmp_path, url=url) as there:
            ledger.record("scope", entry("a"), "run")
            assert ledger.run_lock("run", "first").take() is None
            assert there.run_lock("run", "second").take() is not None
        with Ledger(tmp_path, url=url, is_readonly=True) as reading:
            assert list(reading.entries("scope")) == ["a"]


async def test_a_run_that_is_to_end_waits_for_no_server_that_stands_still(tmp_path: Path) -> None:
    with postgres() as own, Ledger(tmp_path, url=own.url()) as ledger:
        ledger.hurry_after(lambda: True)
        ledger.record("scope", entry("a"), "run")
        await ledger.durable()
        ledger.record("scope", entry("b"), "run")
        await ledger.durable()  # a server that answers is waited for
        with own.standing_still():
            ledger.record("scope", entry("c"), "run")
            with pytest.raises(LedgerError, match="cannot be reached"):
                ledger.entries("scope")
            with pytest.raises(LedgerError, match="cannot be reached"):
                await ledger.durable()


async def test_ctrl_c_ends_a_run_whose_loop_waits_for_a_server(tmp_path: Path) -> None:
    with postgres() as own, Ledger(tmp_path, url=own.url()) as ledger:
        stop = asyncio.Event()
        ledger.hurry_after(stop.is_set)
        with stop_on_signals(stop) as came, own.standing_still():
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(LedgerError, match="cannot be reached"):
                ledger.entries("scope")
        assert came == [signal.SIGINT]
        assert stop.is_set()
