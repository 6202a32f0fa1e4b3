"""The ledger: rows that last once they are awaited, values by digest, the version of the file."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from paddock.engine.system.distribution import own_version
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.entries import CallRow, Entry, LedgerError, OutputRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import RetentionLimits, sweep_ledger
from paddock.runner.ledger.run_history import recent_runs
from paddock.runner.ledger.run_store import RunStore
from tests.runner.world import World


def entry(key: str, **fields: object) -> Entry:
    return Entry(key=key, hash="h", parts="{}", state="done", **fields)  # type: ignore[arg-type]


async def test_awaited_rows_are_read_when_the_ledger_is_opened_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.record("scope", entry("a", seconds=1.5), "run")
        ledger.record_output(OutputRow("scope", "out/a", "a", None, ("x",), None, None), "run")
        await ledger.durable()
    with Ledger(tmp_path) as ledger:
        assert ledger.entries("scope") == {"a": entry("a", seconds=1.5)}
        assert ledger.entries("another") == {}
        assert [row.intended for row in ledger.outputs()] == [("x",)]


async def test_entries_that_are_listed_again_are_those_that_were_written_since(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path) as ledger:
        for key in ("a", "b"):
            ledger.record("scope", entry(key), "run")
        await ledger.durable()
    with Ledger(tmp_path) as ledger:
        first = ledger.listed_entries("scope", [])
        ledger.record("another", entry("c"), "run")
        first.clear()  # it is the caller's
        assert [*ledger.listed_entries("scope", [])] == ["a", "b"]
        ledger.record("scope", entry("c"), "run")
        ledger.listed_entries("scope", [])  # maybe before it is there
        ledger.drop("items", {"scope": "scope", "key": "a"})
        await ledger.durable()
        assert [*ledger.listed_entries("scope", [], with_results=False)] == ["b", "c"]
        ledger.in_transaction(lambda run: run("delete from items where key = 'c'", {}))
        assert [*ledger.listed_entries("scope", [])] == ["b"]


async def test_what_items_await_in_one_turn_of_the_loop_is_one_commit(tmp_path: Path) -> None:
    async def done(key: str) -> None:
        ledger.record("scope", entry(key), "run")
        await ledger.durable()

    with Ledger(tmp_path) as ledger:
        await asyncio.gather(*(done(str(number)) for number in range(20)))
        assert (ledger.n_commits, len(ledger.entries("scope"))) == (1, 20)


def test_a_row_of_a_loop_that_ended_at_once_is_committed(tmp_path: Path) -> None:
    async def queue() -> None:
        ledger.record("scope", entry("a"), "run")

    with Ledger(tmp_path) as ledger:
        asyncio.run(queue())
        asyncio.run(ledger.durable())
        assert [*ledger.entries("scope")] == ["a"]
        loop = asyncio.new_event_loop()
        loop.call_soon(lambda: ledger.record("scope", entry("b"), "run"))
        loop.call_soon(loop.stop)  # the commit that was to follow is never called
        loop.run_forever()
        loop.close()
    with Ledger(tmp_path) as ledger:
        assert [*ledger.entries("scope")] == ["a", "b"]


def test_small_values_are_inline_and_large_ones_objects(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        assert ledger.store_value({"a": 1}) == ('{"a":1}', None)
        text, object_ = ledger.store_value("x" * 20_000)
        assert text is None and object_ is not None
        assert ledger.load_value(text, object_) == "x" * 20_000
        assert [path.name for path in (tmp_path / "objects").iterdir()] == [object_]
        (tmp_path / "objects" / object_).write_text("rotten")
        with pytest.raises(LedgerError, match="this value is missing or damaged"):
            ledger.load_value(None, object_)


def test_paths_below_the_folder_are_where_it_is_then_and_other_texts_as_they_were(
    tmp_path: Path,
) -> None:
    was, now = tmp_path / "office", tmp_path / "moved"
    texts = ["\0", "\0\0/x", "\0/inbox", f"see {was}/a", f"{was}-2/a", '"\\', 'a"\0b', ""]
    with Ledger(was / ".paddock") as ledger:
        stored = ledger.store_value([str(was), {f"{was}/a": [f"{was}/ü/b.pdf", 1, None]}, *texts])
        several = ledger.parse_value(f"[{stored[0]},1]")
    was.rename(now)
    with Ledger(now / ".paddock") as ledger:
        found = ledger.load_value(*stored)
    assert found == [str(now), {f"{now}/a": [f"{now}/ü/b.pdf", 1, None]}, *texts]
    assert several[0][2:] == texts


async def test_a_call_comes_back_with_its_raw_reply(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("version", [0, 1, 3, 4, 5, 8])
def test_a_ledger_of_another_version_is_refused_by_every_verb_and_left_as_it_is(
    tmp_path: Path, version: int
) -> None:
    is_named = version > 3  # ledgers of before say only their own version
    world = World(tmp_path, n_documents=1)
    world.run()
    file = world.folder / ".paddock/ledger.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"update meta set value = '{version}' where name = 'version'")
        connection.execute("update meta set value = '9.9' where name = 'paddock' and ?", [is_named])
        connection.execute("delete from meta where name = 'paddock' and not ?", [is_named])
    before = file.read_bytes()
    writer = f"Paddock {'9.9' if is_named else '0.1.0'}"
    text = (
        f"{file}: this ledger has version {version}, which {writer} reads; this is Paddock "
        f"{own_version()}, for version 7. To keep what people decided: `paddock review FOLDER "
        f"--export decided.jsonl` with {writer}, and here, after a run, `paddock review FOLDER "
        "--import decided.jsonl`. Move the file away to start without it: what pipelines wrote "
        "stays (`run --take` replaces it)."
    )
    if version > 7:
        text = (
            f"{file}: this ledger has version {version}, which the newer {writer} reads; this is "
            f"Paddock {own_version()}, for version 7. Use the newer one here."
        )
    for verb in (
        world.run,
        world.plan,
        lambda: sweep_ledger(file.parent, "", RetentionLimits(0, 0)),
    ):
        with pytest.raises(LedgerError) as caught:
            verb()
        assert str(caught.value) == text
    assert recent_runs(find_ledgers([world.folder]), limit=10).faults == (text,)
    assert file.read_bytes() == before


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("not a database, but long enough to be read as one\n")
    with pytest.raises(LedgerError, match="the ledger cannot be read"), Ledger(tmp_path):
        pass


def test_reading_needs_no_ledger_and_makes_none(tmp_path: Path) -> None:
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        assert ledger.entries("scope") == {}
        assert RunStore(ledger).run_names() == frozenset()
    assert not (tmp_path / ".paddock").exists()


async def test_a_failed_write_raises_where_it_is_awaited(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
            connection.execute("drop table items")
        connection.close()
        ledger.record("scope", entry("a"), "run")
        with pytest.raises(LedgerError, match="the ledger cannot be written"):
            await ledger.durable()
        with pytest.raises(LedgerError):
            ledger.record("scope", entry("b"), "run")
