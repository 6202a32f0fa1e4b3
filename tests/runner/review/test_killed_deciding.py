"""`kill -9` while people decide and runs continue: no decision is lost, or applied twice."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.review.decisions import ReviewDesk
from tests.fakes.pool import FakePool
from tests.runner.review.deciding import BILLS, answer, choice, noted
from tests.runner.world import World

ROOT = Path(__file__).resolve().parents[3]
KILLS = 30
DOCUMENTS_A_KILL = 3


def start(side: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{side}.err").open("a") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.runner.review.deciding", side, str(folder)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip


def counted(folder: Path, query: str) -> int:
    with contextlib.closing(
        sqlite3.connect(folder / ".paddock/ledger.sqlite", timeout=30)
    ) as ledger:
        return int(ledger.execute(query).fetchone()[0])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [15])
def test_no_decision_is_lost_or_applied_twice(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    world = World(tmp_path, BILLS)
    n_documents = 0

    def more(n: int) -> None:
        nonlocal n_documents
        for number in range(n_documents, n_documents + n):
            world.write(f"inbox/{number}.txt", f"bill-{number} of the ferry\n")
        n_documents += n

    more(DOCUMENTS_A_KILL)
    world.run(pool=FakePool(answer=answer))
    sides = {side: start(side, tmp_path) for side in ("decide", "run")}
    try:
        for _ in range(KILLS):
            more(DOCUMENTS_A_KILL)
            side = dice.choice(("decide", "run"))
            begun = len(noted(tmp_path))
            deadline = time.monotonic() + 60
            while len(noted(tmp_path)) == begun and time.monotonic() < deadline:
                time.sleep(0.005)  # until both are at work
            assert len(noted(tmp_path)) > begun, (tmp_path / f"{side}.err").read_text()
            time.sleep(dice.uniform(0, 0.1))
            for victim in (side,) if dice.random() < 0.7 else tuple(sides):
                sides[victim].kill()
                sides[victim].wait()
                sides[victim] = start(victim, tmp_path)
        deadline = time.monotonic() + 120
        done = "select count(*) from reviews where state <> 'open' and is_applied = 1"
        while counted(tmp_path, done) < n_documents and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for process in sides.values():
            process.kill()
            process.wait()
    world.run(pool=FakePool(answer=answer))
    with Ledger(tmp_path / ".paddock") as ledger:
        decided = {one.key: one for one in ReviewDesk(ledger).decided(is_whole=True)}
    assert len(decided) == n_documents
    by_id = {one.id: one for one in decided.values()}
    told = noted(tmp_path)
    assert len({one["id"] for one in told}) == len(told), "something was decided twice"
    for note in told:
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
