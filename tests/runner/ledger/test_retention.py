"""What retention removes and what it keeps: finished work is never repeated."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.ledger import retention
from paddock.runner.ledger.database import queries, sqlite_file
from paddock.runner.ledger.database.sqlite_file import compact_file
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import RetentionLimits, SweepResult, sweep_ledger
from paddock.runner.review.decisions import LedgerReviews
from tests.fakes.pool import FakePool
from tests.runner.world import World, each_document, states

NOW = time.time()
EVERYTHING = RetentionLimits(runs_before=NOW + 1e6, calls_before=NOW + 1e6)
NOTHING = RetentionLimits(runs_before=0, calls_before=0)


def state(world: World) -> Path:
    return world.folder / ".paddock"


def made(folder: Path, n: int = 4) -> World:
    world = World(folder, n_documents=n)
    world.run()
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return made(tmp_path)


def rows(world: World, query: str) -> list[tuple[object, ...]]:
    """Execute a statement on the ledger's file; return its rows."""
    with contextlib.closing(sqlite3.connect(state(world) / "ledger.sqlite")) as ledger, ledger:
        return ledger.execute(query).fetchall()


def age(world: World, seconds: float) -> None:
    """Make all that there is so much older."""
    for table in ("calls", "items", "events"):
        rows(world, f"update {table} set at = at - {seconds}")
    for table, column in (("runs", "started"), ("runs", "ended")):
        rows(world, f"update {table} set {column} = {column} - {seconds}")
    for file in state(world).rglob("*"):
        if file.is_file():
            os.utime(file, (NOW - seconds, NOW - seconds))


def test_replies_that_items_were_made_from_stay_at_any_age(world: World) -> None:
    age(world, 1e7)
    assert sweep_ledger(state(world), "", EVERYTHING).calls == 0
    assert world.run().counts == {"fresh": 5}
    assert world.run(force=["sum"]).counts == {"stale": 4, "fresh": 1}


def test_replies_of_earlier_versions_are_removed_once_they_are_old(world: World) -> None:
    world.edit("Sum up:", "Summarise:")
    world.run()
    before = RetentionLimits(runs_before=0, calls_before=NOW - 1)
    assert sweep_ledger(state(world), "", before).calls == 0
    assert sweep_ledger(state(world), "", EVERYTHING).calls == 5
    assert rows(world, "select count(*) from calls") == [(5,)]
    assert world.run().counts == {"fresh": 5}


def test_a_document_that_is_long_gone_leaves_the_ledger_but_its_output_is_still_known(
    tmp_path: Path,
) -> None:
    world = made(tmp_path, 3)
    for name in ("0.txt", "1.txt"):
        (world.folder / "inbox" / name).unlink()
    (world.folder / "out/0.txt").unlink()
    world.run()
    assert sweep_ledger(state(world), "", NOTHING).items == 0
    swept = sweep_ledger(state(world), "", EVERYTHING)
    assert (swept.items, swept.calls) == (2, 3)  # and the first digest's
    known = {str(path) for (path,) in rows(world, "select path from outputs")}
    assert known == {"out/1.txt", "out/2.txt", "out/DIGEST.md"}
    keys = {key for (key,) in rows(world, "select key from events")}
    assert "1.txt" in keys  # the step that made the output is known as well
    assert "0.txt" not in keys
    assert states(world.run()) == {}


def test_unreferenced_objects_are_removed_and_the_others_stay(tmp_path: Path) -> None:
    world = World(tmp_path, beside={"inbox/long.txt": "word " * 10_000})
    world.run(pool=long_answers())
    folder = state(world) / "objects"
    named = {file.name for file in folder.iterdir()}
    assert named
    (folder / ("ab" * 32)).write_bytes(b"nobody's")
    (folder / f".{'cd' * 32}.0123abcd.paddock-tmp").write_bytes(b"x")
    assert sweep_ledger(state(world), "", EVERYTHING).objects == 0  # both are young
    age(world, 1e6)
    swept = sweep_ledger(state(world), "", EVERYTHING)
    assert (swept.objects, swept.leftovers) == (1, 1)
    assert {file.name for file in folder.iterdir()} == named
    assert world.run(pool=long_answers()).counts == {"fresh": 2}


def long_answers() -> FakePool:
    """Return a pool whose answers are too long for a row."""
    return FakePool(answer=lambda _: "long" * 5_000, n_ctx_tokens=1_000_000)


def test_an_object_that_a_run_uses_again_at_that_moment_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path / ".paddock") as ledger:
        digest = ledger.objects.put(b"again")
        file = tmp_path / ".paddock/objects" / digest
        os.utime(file, (NOW - 1e6, NOW - 1e6))
        whole = retention.Sweeper._referenced

        def meanwhile(self: object, *given: object) -> object:
            yield from whole(self, *given)  # type: ignore[arg-type]
            ledger.objects.put(b"again")

        monkeypatch.setattr(retention.Sweeper, "_referenced", meanwhile)
        assert sweep_ledger(tmp_path / ".paddock", "", EVERYTHING).objects == 0
        assert ledger.objects.get(digest) == b"again"


def test_old_runs_go_but_the_latest_of_each_file_and_those_that_items_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RUNS_KEPT", 2)
    world = made(tmp_path, 1)
    first = str(rows(world, "select run from runs")[0][0])
    for _ in range(4):
        last = world.run().run
    age(world, 1e6)
    assert sweep_ledger(state(world), "", RetentionLimits(NOW - 2e6, 0)) == SweepResult()
    swept = sweep_ledger(state(world), "", EVERYTHING)
    assert (swept.runs, swept.logs) == (2, 5)
    left = {str(run) for (run,) in rows(world, "select run from runs")}
    assert {first, last} <= left and len(left) == 3


def test_a_ledger_that_is_too_large_loses_the_oldest_replies_that_nothing_needs(
    world: World,
) -> None:
    for number in range(3):
        world.edit("Sum up:" if not number else f"Version {number - 1}:", f"Version {number}:")
        world.run()
    small = RetentionLimits(runs_before=0, calls_before=0, max_bytes=1)
    assert sweep_ledger(state(world), "", small).calls == 0  # what is young may be wanted tomorrow
    age(world, 1e7)
    assert sweep_ledger(state(world), "", small).calls == 15
    assert world.run().counts == {"fresh": 5}


def test_a_sweep_next_to_a_run_disturbs_neither(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=60)
    stop = threading.Event()
    faults: list[BaseException] = []

    def clean() -> None:
        while not stop.is_set():
            try:
                sweep_ledger(state(world), "", EVERYTHING)
            except BaseException as error:
                faults.append(error)

    (tmp_path / ".paddock").mkdir()
    thread = threading.Thread(target=clean)
    thread.start()
    try:
        assert world.run().counts == {"new": 61}
        world.edit("Sum up:", "Summarise:")
        assert world.run().counts == {"stale": 61}
    finally:
        stop.set()
        thread.join()
    assert faults == []
    assert world.run().counts == {"fresh": 61}


def test_a_file_with_much_unused_space_is_compacted_within_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "VACUUM_BYTES", 1)
    file = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("create table t (x text)")
    connection.execute("begin")
    connection.executemany("insert into t values (?)", [("x" * 100,)] * 50_000)
    connection.execute("commit")
    assert compact_file(file) is False  # it is full
    connection.execute("delete from t where rowid > 5000")
    before = file.stat().st_size
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_file, "VACUUM_S", -1.0)
        assert compact_file(file) is False
    assert connection.execute("select count(*) from t").fetchone() == (5_000,)
    assert compact_file(file) is True
    assert file.stat().st_size < before / 5
    connection.close()


REVIEWED = each_document("""\
      - {id: sum, uses: chat, with: {prompt: "{{ doc.name }}"}, review: {}}
""")


def test_what_waits_for_review_stays_whole_at_any_age_and_goes_with_its_document(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, REVIEWED)
    for number in range(2):
        world.write(f"inbox/{number}.txt", f"{number} and so on. " * 2000)
    world.run()
    age(world, 1e7)
    swept = sweep_ledger(state(world), "", EVERYTHING)
    assert (swept.calls, swept.objects) == (0, 0)
    with Ledger(state(world)) as ledger:
        reviews = LedgerReviews(ledger)
        for review in reviews.waiting(is_whole=True):
            assert reviews.source_text(review.subject.sources[0]) is not None
            reviews.decide(review.id, review.question, "accept", by="ann")
    assert (world.run().calls, world.pool.chats) == (0, [])
    (world.folder / "inbox/0.txt").unlink()
    world.run()
    age(world, 1e7)
    assert sweep_ledger(state(world), "", EVERYTHING).items == 1
    assert rows(world, "select key from reviews") == [("1.txt",)]


def test_an_item_whose_document_comes_back_during_a_sweep_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, REVIEWED, n_documents=1)
    world.run(pool=long_answers())
    with Ledger(state(world)) as ledger:
        reviews = LedgerReviews(ledger)
        (review,) = reviews.waiting()
        reviews.decide(review.id, review.question, "accept", by="ann")
    world.run()
    (world.folder / "inbox/0.txt").unlink()
    world.run()
    age(world, 1e7)

    class Database(sqlite_file.SqliteDatabase):
        def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
            found = super().rows(query, values)
            if query == queries.GONE_ITEMS_BEFORE:
                assert len(found) == 1
                rows(world, "update items set gone = null")
            return found

    tables = [f"select * from {name}" for name in ("reviews", "specs", "calls")]
    tables.append("select * from events where n in (select ended from items)")
    before = [rows(world, query) for query in tables]
    assert before[0] and before[1]
    file = state(world) / "ledger.sqlite"
    monkeypatch.setattr(retention, "open_existing", lambda *_: Database(file))
    swept = sweep_ledger(state(world), "", EVERYTHING)
    assert (swept.items, swept.objects) == (0, 0)
    assert [rows(world, query) for query in tables] == before


def test_only_what_the_ledger_wrote_is_removed_by_its_own_names_and_through_no_link(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world.edit("Sum up:", "Summarise:")
    world.run()
    private = tmp_path_factory.mktemp("private")
    kept = {private / f"{'ab' * 32}", private / "diary.log", private / ".profile"}
    kept |= {
        state(world) / "runs" / name
        for name in ("diary.log", "notes.jsonl", ".x.0123abcd.paddock-tmp")
    }
    (run, *_) = (str(run) for (run,) in rows(world, "select run from runs"))
    kept.add(state(world) / f"runs/{run}.txt")
    for file in kept:
        file.write_text("mine")
        os.utime(file, (NOW - 1e7, NOW - 1e7))
    for name in ("objects", "told"):
        (state(world) / name).symlink_to(private)
    age(world, 1e6)
    would = sweep_ledger(state(world), "", EVERYTHING, is_dry=True).files
    before = set(state(world).rglob("*"))
    assert sweep_ledger(state(world), "", EVERYTHING).files == would
    gone = {
        str(file) for file in before - set(state(world).rglob("*")) if "sqlite" not in file.name
    }
    assert gone == set(would) and len(would) == 2
    assert all(file.read_text() == "mine" for file in kept)


NESTED = each_document("""\
      - id: parts
        for_each: part in steps.text.text.split()
        do:
          - {id: sum, uses: chat, with: {prompt: "Sum up: {{ part }}"}}
          - uses: files.write
            with: {path: "out/{{ doc.name }}.{{ part }}", text: "{{ steps.sum.text }}"}
      - id: whole
        uses: pipeline
        with: {file: parts/whole.yaml, inputs: {text: "{{ steps.text.text }}"}}
""")
WHOLE = """\
inputs: {text: str}
steps:
  - {id: sum, uses: chat, with: {prompt: "All of: {{ inputs.text }}"}}
returns: steps.sum.text
"""


def test_what_was_done_within_a_document_leaves_the_ledger_with_it(tmp_path: Path) -> None:
    world = World(tmp_path, NESTED, {"parts/whole.yaml": WHOLE})
    for name in ("gone", "kept"):
        world.write(f"inbox/{name}.txt", f"{name}-1 {name}-2")
    first = world.run()
    assert first.calls == 6
    (world.folder / "inbox/gone.txt").unlink()
    (world.folder / "out/gone.txt.gone-1").unlink()
    world.run()
    age(world, 1e7)
    assert sweep_ledger(state(world), "", NOTHING).items == 0
    assert sweep_ledger(state(world), "", EVERYTHING, is_dry=True).items == 4
    swept = sweep_ledger(state(world), "", EVERYTHING)
    assert (swept.items, swept.calls) == (4, 3)
    assert rows(world, "select count(*) from items where state is not null") == [(4,)]
    ended = "select count(distinct scope || key) from events where kind = 'ended'"
    assert rows(world, ended) == [(5,)], "one has an output still"
    assert states(world.run()) == {} and world.pool.chats == []
