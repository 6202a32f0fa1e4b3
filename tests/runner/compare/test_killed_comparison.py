"""`kill -9` in the middle of a comparison, again and again: no call is made twice."""

import contextlib
import random
import sqlite3
import time
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from tests.forked import Forked, ForkServer
from tests.runner.compare.bills import N_BILLS, Bills, clerk

N_KILLS = 5
Row = tuple[str, str, float]
"""A call: its hash, the run that made it, when."""


def calls(folder: Path) -> dict[str, Row]:
    file = folder / ".paddock/ledger.sqlite"
    if not file.exists():
        return {}
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as ledger:
        try:
            rows: list[Row] = ledger.execute("select hash, run, at from calls").fetchall()
        except sqlite3.OperationalError:  # its tables are just being made
            return {}
    return {row[0]: row for row in rows}


def compare(folder: Path, most: int) -> None:
    """Compare two models on bills; write down each prompt, and wait to be killed after so many."""
    left = iter(range(most))
    with (folder / "asked.log").open("a", encoding="utf-8") as log:

        def answer(request: ChatRequest) -> str:
            log.write(f"{request.model.ref} {request.messages[-1].content}\n")
            log.flush()
            time.sleep(0.02 if next(left, None) is not None else 600)
            return clerk(request)

        runs = Bills(folder, answer=answer).runs(models=("clerk=small,big",))
    assert all(run.fault is None and len(run.items) == len(runs[0].items) for run in runs)


@pytest.mark.may_take(240, "a comparison is killed five times and begun again")
def test_a_comparison_that_is_killed_again_and_again_makes_no_call_twice(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    def start(folder: Path, most: int = 1000) -> Forked:
        return fork_server.start(compare, folder, most)

    draw, known = random.Random(28), dict[str, Row]()
    n_in_the_middle = 0
    for _ in range(N_KILLS):
        process = start(tmp_path, 12)  # so that it is in the middle, however late the kill is
        goal = len(known) + draw.randint(1, 3)
        while len(found := calls(tmp_path)) < goal and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        found = calls(tmp_path)
        assert {hash_: found.get(hash_) for hash_ in known} == known, "a call was made again"
        n_in_the_middle += 0 < len(found) < 2 * N_BILLS
        known = found
    assert n_in_the_middle >= 2
    assert start(tmp_path).wait() == 0
    found = calls(tmp_path)
    assert len(found) == 2 * N_BILLS
    assert {hash_: found[hash_] for hash_ in known} == known
    again = len((tmp_path / "asked.log").read_text("utf-8").splitlines())
    assert start(tmp_path).wait() == 0
    assert len((tmp_path / "asked.log").read_text("utf-8").splitlines()) == again
