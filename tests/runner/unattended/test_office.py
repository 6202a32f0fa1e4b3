"""What becomes of runs that an earlier `paddock up` began, in a real Prefect server."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed, Running

from paddock.runner.unattended.executor import mark_of
from paddock.runner.unattended.jobs import Job
from paddock.runner.unattended.tracked import Tracked, board
from tests.runner.unattended.test_planner import SIGNER, office_of, put, standing

BUDGET: State[Any] = Completed(name="Budget", message="It was asked to stop at an item's border.")


@pytest.mark.parametrize(
    ("state", "is_again"), [(BUDGET, True), (Completed(), False), (Failed(), False)]
)
def test_a_run_taken_over_goes_on_where_it_had_stopped_at_a_border(
    tmp_path: Path, prefect_api: str, state: State[Any], is_again: bool
) -> None:
    async def main() -> None:
        with subprocess.Popen(["sleep", "600"]) as run:  # noqa: ASYNC220 - dies of SIGUSR1
            try:
                await taken_over(run.pid)
            finally:
                run.kill()

    async def taken_over(pid: int) -> None:
        async with board(prefect_api, SIGNER) as asked, PrefectClient(prefect_api) as client:
            office, ends = office_of(asked), list[str]()
            post = await put(asked, office, standing(tmp_path, '{cron: "0 6 * * *"}'))

            async def ended(job: Job | None, status: str, report: object) -> None:
                ends.append(status)

            first = await office.submit(post, "watch inbox", f"{tmp_path}", ended=ended)
            await asked.started(first.id, mark_of(pid))
            await client.set_flow_run_state(UUID(first.id), Running(), force=True)
            await office.round()
            assert office.jobs[first.id].is_adopted

            await client.set_flow_run_state(UUID(first.id), state, force=True)
            await office.stop(20.0)
            assert office.jobs == {}
            there = await asked.open_runs([post.deployment])
            if not is_again:
                assert (there, ends) == ([], [state.name.lower() if state.name else ""])
                return
            (second,) = there
            assert ends == []
            assert second.parameters["parent"] == second.parameters["root"] == first.id

            # Who submitted it and asks again, as a watch at the next start, hears of the later one.
            again = await office_of(asked).submit(post, "watch inbox", f"{tmp_path}")
            assert again.id == second.id

    asyncio.run(main())


def test_a_run_that_ends_while_the_queue_is_read_is_not_taken_for_a_crashed_one(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with subprocess.Popen(["sleep", "600"]) as run:  # noqa: ASYNC220 - killed below
            try:
                await told_late(run)
            finally:
                run.kill()

    async def told_late(run: subprocess.Popen[bytes]) -> None:
        async with board(prefect_api, SIGNER) as asked, PrefectClient(prefect_api) as client:
            office = office_of(asked)
            post = await put(asked, office, standing(tmp_path, '{cron: "0 6 * * *"}'))
            first = await office.submit(post, "watch inbox", f"{tmp_path}")
            await asked.started(first.id, mark_of(run.pid))
            await client.set_flow_run_state(UUID(first.id), Running(), force=True)
            await office.round()
            read = asked.open_runs

            async def slowly(deployments: Collection[str]) -> list[Tracked]:
                runs = await read(deployments)
                await client.set_flow_run_state(UUID(first.id), Completed(), force=True)
                run.kill()
                while office.jobs:  # noqa: ASYNC110 - its end is seen to meanwhile
                    await asyncio.sleep(0.05)
                return runs

            monkeypatch.setattr(asked, "open_runs", slowly)
            await office.round()
            monkeypatch.undo()
            await asyncio.sleep(0.5)
            assert office.jobs == {}
            assert await asked.open_runs([post.deployment]) == []

    asyncio.run(main())


def test_who_submitted_a_run_hears_that_somebody_cancelled_or_deleted_it(
    tmp_path: Path, prefect_api: str
) -> None:
    async def main() -> None:
        async with board(prefect_api, SIGNER) as asked, PrefectClient(prefect_api) as client:
            office, ends = office_of(asked), dict[str, str]()
            post = await put(asked, office, standing(tmp_path, '{cron: "0 6 * * *"}'))
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            ids: dict[str, UUID] = {}

            async def submitted(name: str) -> None:
                async def ended(job: Job | None, status: str, report: object) -> None:
                    ends[name] = status

                made = await office.submit(
                    post, "watch inbox", f"{tmp_path}{name}", at=tomorrow, ended=ended
                )
                ids[name] = UUID(made.id)

            for name in ("cancelled", "deleted", "left"):
                await submitted(name)
            await office.round()
            assert ends == {}
            await client.set_flow_run_state(ids["cancelled"], Cancelled(), force=True)
            await client.delete_flow_run(ids["deleted"])
            await office.round()
            assert ends == {"cancelled": "interrupted", "deleted": "interrupted"}

            await client.delete_deployment(UUID(post.deployment))
            await put(asked, office, post.standing)
            await office.round()
            assert ends.keys() == {"cancelled", "deleted", "left"}

    asyncio.run(main())
