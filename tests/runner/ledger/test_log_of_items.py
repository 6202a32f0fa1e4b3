"""The log of items: its fold is the state that runs see, and can be made again."""

import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.event_log import verify_again
from paddock.runner.ledger.filed_store import FiledStore, MoveRow
from paddock.runner.ledger.item_events import EventKind, changes, fold, superseded
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.rebuild import rebuild
from paddock.runner.ledger.run_history import LedgerFolder
from paddock.runner.ledger.run_store import RunStore
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import World, states

STATES = ("done", "failed", "waiting")


def event(n: int, kind: EventKind, chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"n": n, "scope": "s", "key": "k", "kind": kind, "run": f"r{n}"}
    made |= {"at": float(chance.randrange(9))}  # clocks go back
    if kind is EventKind.ENDED:
        made["state"] = chance.choice(STATES)
    if kind is EventKind.LEFT:
        made |= {"name": "k", "path": f"p{n}", "target": chance.choice((None, "", "t"))}
    if kind is EventKind.VERIFIED:
        made |= chance.choice(({"hash": f"h{n}", "parts": f"{n}"}, {"made_by": f"m{n}"}))
    return made


def history(seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        event(n, chance.choice([*EventKind]), chance) for n in range(1, chance.randrange(2, 12))
    ]


@pytest.mark.parametrize("seed", range(200))
def test_what_retention_removes_of_a_log_changes_no_state(seed: int) -> None:
    events = history(seed)
    gone = {*superseded(events)}
    kept = [each for each in events if each["n"] not in gone]
    assert fold(kept) == fold(events)
    assert {*superseded(kept)} == set(), "once is enough"
    unsaid = [each for each in events if not changes(each) and changes(each) is not None]
    acted = [each for each in unsaid if each["kind"] != EventKind.ACTED]
    assert all(each in kept for each in acted), "moves and what is in flight stay"


def test_an_item_ends_where_it_ended_last_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment, state in ((100.0, "failed"), (100.0, "waiting"), (7.0, "done")):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        with Ledger(tmp_path) as ledger:
            ledger.record("s", Entry("k", "h", "{}", state), "run")
    with Ledger(tmp_path, is_readonly=True) as ledger:
        assert [entry.state for entry in ledger.entries("s").values()] == ["done"]


def place_of(world: World) -> LedgerFolder:
    return LedgerFolder(world.folder / ".paddock")


@pytest.mark.parametrize("loss", ["delete from items", "update items set state = 'failed'"])
def test_states_are_made_again_from_the_log(tmp_path: Path, loss: str) -> None:
    world = World(tmp_path, n_documents=3)
    world.run()
    (world.folder / "inbox/0.txt").unlink()
    world.write("inbox/1.txt", "another text")
    world.run()
    before = states(world.plan())
    assert (whole := rebuild(place_of(world))) is not None and not whole.different
    with closing(sqlite3.connect(world.folder / ".paddock/ledger.sqlite")) as database, database:
        assert database.execute(loss).rowcount
    said = invoke("doctor", "--rebuild", str(world.folder)).output
    assert f"{len(before) or whole.n_items}" in said and "were not so" in said
    assert states(world.plan()) == before
    assert (again := rebuild(place_of(world))) is not None and not again.different


def test_a_log_of_items_in_flight_alone_goes_on_above_zero(tmp_path: Path) -> None:
    """The first run of a folder was killed while it worked on its first documents."""
    with Ledger(tmp_path) as ledger:
        assert ledger.append(EventKind.BEGAN, "s", "k", "dead", hash="h") < 0
    with Ledger(tmp_path) as ledger:
        ledger.record("s", Entry("k", "h", "{}", "done"), "run")
        assert [row.run for row in ledger.in_flight()] == ["dead"]
    with Ledger(tmp_path, is_readonly=True) as ledger:
        assert [entry.run for entry in ledger.entries("s").values()] == ["run"]


def test_each_place_to_which_a_document_was_moved_tells_where_it_came_from(tmp_path: Path) -> None:
    """It came again as it was; the ledger before knew the last of its places alone."""
    with Ledger(tmp_path) as ledger:
        for target in ("filed/a.txt", "filed/a-1.txt"):
            FiledStore(ledger).record_move(MoveRow("inbox/a.txt", "5f", target))
    with Ledger(tmp_path, is_readonly=True) as ledger:
        filed = FiledStore(ledger)
        origins = [filed.came_from(target) for target in ("filed/a.txt", "filed/a-1.txt")]
        assert origins == [["inbox/a.txt"], ["inbox/a.txt"]]
        moves = filed.moves_from(["inbox/a.txt"])
        assert [move.target for move in moves.values()] == ["filed/a-1.txt"]


def test_a_step_without_a_state_keeps_no_run_and_counts_as_no_item(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for run in ("old", "new"):
            row = {"run": run, "pipeline": "p", "file": "p.yaml", "started": 1.0, "status": "done"}
            RunStore(ledger).record_run(row)
        ledger.append(EventKind.ACTED, "s", "note", "old", made="{}")
        ledger.record("s", Entry("k", "h", "{}", "done"), "new")
    with Ledger(tmp_path, is_readonly=True) as ledger:
        assert [run for run, *_ in ledger.rows(queries.RUNS_WITHOUT_ITEMS)] == ["old"]
        kinds = {kind: n for kind, n in ledger.rows(queries.CONTENTS) if kind and "items" in kind}
        assert kinds == {"items, done": 1}
        assert [*ledger.entries("s")] == ["k"]
        assert LineageStore(ledger).of_item("s", "note") is not None


async def test_a_decision_beside_a_run_is_before_what_the_run_appends_later(tmp_path: Path) -> None:
    """Each process has numbers of its own; the run's began with its first event."""
    filed: dict[str, Any] = {
        "name": "k",
        "path": "k",
        "sha256": "1",
        "target": "t",
        "outdated_by": "",
    }
    with Ledger(tmp_path) as run, Ledger(tmp_path) as page:
        run.record("s", Entry("k", "h", "{}", "done", reads='{"the review": []}'), "run")
        run.append(EventKind.LEFT, "s", "k", "run", **filed, made_by="rule 1")
        await run.durable()
        for _ in range(50):  # of other items
            page.append(EventKind.BEGAN, "s", "other", "another")
        for n in range(2):
            page.in_transaction(lambda do: verify_again(do, page.listed_keys, ["the review"]))
            run.append(EventKind.LEFT, "s", "k", "run", **filed, made_by=f"rule {n}")
            await run.durable()
    found = rebuild(LedgerFolder(tmp_path))
    assert found is not None and not found.different


def test_a_ledger_that_was_not_made_here_is_named_and_not_made_again(
    tmp_path: Path, own_home: Path
) -> None:
    world = World(tmp_path, n_documents=1)
    world.run()
    shutil.rmtree(own_home)
    before = (world.folder / ".paddock/ledger.sqlite").read_bytes()
    said = invoke("doctor", "--rebuild", str(world.folder)).output
    assert "is not used: it was not made here" in said and "no ledger to look at" in said
    assert (world.folder / ".paddock/ledger.sqlite").read_bytes() == before
