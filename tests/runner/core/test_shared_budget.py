"""A budget is the run's, however many machines do it: what one spends, the others know."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddock.engine.request import ChatRequest, Reply
from paddock.runner.api import run_async
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.sharing.budget import Spent
from paddock.runner.ledger.sharing.coordination import SharedSpending
from paddock.runner.progress.report import Report
from paddock.runner.settings import UnattendedSettings
from tests.fakes.pool import FakePool
from tests.runner.world import World, settings

DEAD_S = 30.0


def budgeted(tmp_path: Path, budget: str, n: int = 40) -> World:
    world = World(tmp_path, n_documents=n)
    world.edit("name: summaries\n", f"name: summaries\nbudget: {budget}\n")
    world.edit("    for_each: doc", "    max_parallel: 2\n    for_each: doc")
    return world


class FirstTogether(FakePool):
    """Answers nothing before each of several pools was asked."""

    def __init__(self, all_: list[FakePool], **options: Any) -> None:
        super().__init__(**options)
        self._all = all_
        all_.append(self)

    async def answer_to(self, request: ChatRequest) -> Reply:
        while not all(pool.chats for pool in self._all):  # noqa: ASYNC110 - as its base does
            await asyncio.sleep(0.005)
        return await super().answer_to(request)


async def together(world: World, url: str, pools: Sequence[FakePool]) -> list[Report]:
    """Do runs of several participants at once, each with its pool."""
    given = replace(
        settings(world.folder), ledger_url=url, unattended=UnattendedSettings(dead_after_s=DEAD_S)
    )
    runs = (
        run_async(
            world.file,
            options=RunOptions(local=True),
            environment=RunEnvironment(pool=pool, settings=given),
        )
        for pool in pools
    )
    return list(await asyncio.gather(*runs))


def tokens(report: Report) -> int:
    return report.tokens.get("prompt", 0) + report.tokens.get("completion", 0)


def test_a_budget_of_tokens_holds_for_all_machines_together(tmp_path: Path, url: str) -> None:
    alone = World(tmp_path / "alone", n_documents=2)
    per_item = tokens(alone.run(only=["0.txt"]))
    world = budgeted(tmp_path / "shared", f"{{tokens: {12 * per_item}}}")
    all_: list[FakePool] = []
    pools = [FirstTogether(all_, delay_s=0.05) for _ in range(3)]
    reports = asyncio.run(together(world, url, pools))
    assert [report.status for report in reports] == ["budget"] * 3
    # Six are in flight at a time, taken for half done when another begins.
    assert 9 <= sum(report.calls for report in reports) <= 15
    assert all((report.message or "").startswith("The budget of ") for report in reports)


def test_a_budget_smaller_than_anything_lets_one_item_begin_on_all_machines_together(
    tmp_path: Path, url: str
) -> None:
    world = budgeted(tmp_path / "shared", "{tokens: 1}", n=6)
    reports = asyncio.run(together(world, url, [FakePool(delay_s=0.2) for _ in range(3)]))
    assert [report.status for report in reports] == ["budget"] * 3
    # Until the first has ended no one has spent anything: two on each may have begun by then.
    assert 1 <= sum(report.calls for report in reports) <= 6


def test_the_next_run_has_a_budget_of_its_own(tmp_path: Path, url: str) -> None:
    world = budgeted(tmp_path / "shared", "{time: 1ms}", n=3)
    ends = []
    for _ in range(4):
        (report,) = asyncio.run(together(world, url, [FakePool(delay_s=0.01)]))
        ends.append((report.status, report.calls))
    assert ends == [("budget", 1)] * 3 + [("completed", 1)]


def test_who_comes_later_goes_on_with_what_is_spent_and_after_a_pause_again(
    tmp_path: Path, url: str
) -> None:
    with Ledger(tmp_path, url=url) as ledger:
        server = ledger.claims("a", DEAD_S).server

        def part(run: str, dead_after_s: float = DEAD_S) -> SharedSpending:
            made = SharedSpending(server, "job", run, dead_after_s)
            made.begin()
            return made

        first = part("a")
        assert first.exchange(Spent(0.0, 500, 3, 2)).tokens == 0
        second = part("b")
        others = second.exchange(Spent(0.0, 20, 1))
        # No one is heard of under the name 'a': what was in flight there is so no more.
        assert (others.tokens, others.n_ended, others.n_in_flight) == (500, 3, 0)
        assert others.seconds > 0
        assert first.exchange(Spent(0.0, 600, 4)).tokens == 20
        first.close()
        second.close()
        late = part("c")
        assert late.exchange(Spent(0.0, 0)).tokens == 620
        late.close()
        after_a_pause = part("d", dead_after_s=0.0)
        assert after_a_pause.exchange(Spent(0.0, 0)).tokens == 0
        after_a_pause.close()
