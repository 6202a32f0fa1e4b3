"""`kill -9` while people decide and runs continue: no decision is lost, or applied twice."""

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.review.decisions import LedgerReviews
from tests.fakes.pool import FakePool
from tests.forked import Forked, ForkServer
from tests.runner.review.deciding import BILLS, answer, choice, decide, noted, run
from tests.runner.world import World
from tests.waiting import PATIENCE_S

KILLS = 15
DOCUMENTS_A_KILL = 3


class Sides:
    """The processes of both sides; those that are killed are started again."""

    def __init__(self, forks: ForkServer, folder: Path) -> None:
        self._forks, self._folder = forks, folder
        self._running: dict[str, Forked] = {}
        for side in ("decide", "run"):
            self._start(side)

    def _start(self, side: str) -> None:
        work = {"decide": decide, "run": run}[side]
        log = self._folder / "log"
        self._running[side] = self._forks.start(work, self._folder, log=log)

    def kill(self, *sides: str) -> None:
        for process in (self._running[side] for side in sides):
            process.kill()
            process.wait()

    def replace(self, *sides: str) -> None:
        for side in sides:
            self.kill(side)
            self._start(side)


@contextlib.contextmanager
def both_sides(forks: ForkServer, folder: Path) -> Iterator[Sides]:
    sides = Sides(forks, folder)
    try:
        yield sides
    finally:
        sides.kill("decide", "run")


def counted(folder: Path, query: str) -> int:
    with contextlib.closing(
        sqlite3.connect(folder / ".paddock/ledger.sqlite", timeout=30)
    ) as ledger:
        return int(ledger.execute(query).fetchone()[0])


@pytest.mark.parametrize("seed", [15])
def test_no_decision_is_lost_or_applied_twice(
    tmp_path: Path, fork_server: ForkServer, seed: int
) -> None:
    dice = random.Random(seed)
    world = World(tmp_path, BILLS)
    n_documents = 0

    def add_documents(n: int) -> None:
        nonlocal n_documents
        for number in range(n_documents, n_documents + n):
            world.write(f"inbox/{number}.txt", f"bill-{number} of the ferry\n")
        n_documents += n

    add_documents(DOCUMENTS_A_KILL)
    world.run(pool=FakePool(answer=answer))
    with both_sides(fork_server, tmp_path) as sides:
        for _ in range(KILLS):
            add_documents(DOCUMENTS_A_KILL)
            side = dice.choice(("decide", "run"))
            begun = len(noted(tmp_path))
            deadline = time.monotonic() + PATIENCE_S
            while len(noted(tmp_path)) == begun and time.monotonic() < deadline:
                time.sleep(0.005)  # until both are at work
            assert len(noted(tmp_path)) > begun, (tmp_path / "log").read_text()
            time.sleep(dice.uniform(0, 0.1))
            sides.replace(*((side,) if dice.random() < 0.7 else ("decide", "run")))
        deadline = time.monotonic() + PATIENCE_S
        done = "select count(*) from reviews where state <> 'open' and is_applied = 1"
        while counted(tmp_path, done) < n_documents and time.monotonic() < deadline:
            time.sleep(0.1)
    world.run(pool=FakePool(answer=answer))
    with Ledger(tmp_path / ".paddock") as ledger:
        decided = {review.key: review for review in LedgerReviews(ledger).decided(is_whole=True)}
    assert len(decided) == n_documents
    by_id = {review.id: review for review in decided.values()}
    notes = noted(tmp_path)
    assert len({entry["id"] for entry in notes}) == len(notes), "something was decided twice"
    for note in notes:
        review = by_id[note["id"]]
        assert (review.question, review.state) == (note["question"], note["state"])
    for key, review in decided.items():
        verb, value, _ = choice(review)
        assert (review.is_applied, review.earlier, review.by) == (True, (), "ann")
        file = tmp_path / "out" / key.removesuffix(".txt")
        expected = value["number"] if verb == "edit" else f"bill-{key.removesuffix('.txt')}"
        assert file.exists() == (verb != "reject")
        assert verb == "reject" or file.read_text() == expected
    assert counted(tmp_path, "select count(*) from calls") == n_documents
    report = world.run(pool=FakePool(answer=answer))
    assert (report.calls, report.counts) == (
        0, {"fresh": n_documents - n_documents // 3, "quarantined": n_documents // 3},
    )  # fmt: skip
