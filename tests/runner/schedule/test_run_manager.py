"""What becomes of runs that an earlier `paddock up` began, in a real Prefect server."""

import asyncio
import subprocess
from collections.abc import Collection
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Cancelling, Completed, Failed, Running, Scheduled

from paddock.engine.settings import PoolSettings
from paddock.engine.system.process_marks import process_mark
from paddock.runner.core.other_runs.concurrency_groups import GROUP_FOLDER, group_holders
from paddock.runner.ledger.run_locks import GroupTurn, LockHolder
from paddock.runner.progress.report import Report
from paddock.runner.schedule.prefect_queue import PrefectQueue, QueuedRun, QueueError, open_queue
from paddock.runner.schedule.run_manager import Deployment, ManagedRun, RunManager, is_due
from paddock.runner.schedule.run_processes import ProcessEnd, RunProcess, RunTask
from paddock.runner.schedule.schedule_planner import SchedulePlanner
from paddock.runner.schedule.signed_orders import unsigned_order
from paddock.runner.schedule.triggered_pipeline import read_triggered_pipeline
from paddock.runner.settings import Settings
from paddock.runner.workers.flow_order import as_parameters
from tests.runner.schedule.test_reconciler import SIGNER, STEPS, manager_of, put, triggered
from tests.waiting import soon

BUDGET: State[Any] = Completed(name="Budget", message="A stop was requested.")


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
        async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
            manager, ends = manager_of(queue), list[str]()
            deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))

            async def ended(job: ManagedRun | None, status: str, report: object) -> None:
                ends.append(status)

            first = await manager.submit(deployment, "watch inbox", f"{tmp_path}", ended=ended)
            manager._records.note(first.id, mark=process_mark(pid))
            await client.set_flow_run_state(UUID(first.id), Running(), force=True)
            await manager.round()
            assert manager.jobs[first.id].is_adopted

            await client.set_flow_run_state(UUID(first.id), state, force=True)
            await manager.stop(20.0)
            assert manager.jobs == {}
            there = await queue.open_runs([deployment.id])
            if not is_again:
                assert (there, ends) == ([], [state.name.lower() if state.name else ""])
                return
            (again,) = there
            assert ends == []
            assert (again.id, again.phase) == (first.id, "waiting")

    asyncio.run(main())


class Ended(PrefectQueue):
    """A queue that takes no writes: `paddock up` has ended."""

    async def hold(self, *given: Any) -> None:
        raise QueueError("`paddock up` has ended")


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("why", ["shutdown", "window", "crash"])
async def test_wherever_up_ends_a_run_that_did_not_finish_is_continued_once(
    tmp_path: Path, prefect_api: str, why: str, is_written: bool
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager = manager_of(queue)
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        calls = [{"id": f"{tmp_path}:{n}", "inputs": {}} for n in range(2)]
        first = await manager.submit(deployment, "webhook /x", f"{tmp_path}", calls=calls)
        await client.set_flow_run_state(UUID(first.id), Running(), force=True)
        records = manager._records
        records.note(first.id, is_stopped=why == "shutdown")
        manager._prefect_queue = ended = copy(queue)
        ended.__class__ = PrefectQueue if is_written else Ended
        job = ManagedRun(first, deployment, "", RunProcess(0))
        if why != "crash":
            job.stopped = why  # type: ignore[assignment]
        job.running.ended.set_result(ProcessEnd())
        manager._take(job)
        await asyncio.gather(*manager._following)

        for _ in range(2):  # and it is killed again, and started again
            manager = manager_of(queue, max_runs=0, folder=manager.folder)
            await put(queue, manager, deployment.triggered)
            await manager.round()
            await asyncio.gather(*manager._following)
        (again,) = await queue.open_runs([deployment.id])
        assert (again.id, again.phase, again.order["calls"]) == (first.id, "waiting", calls)
        record = manager._records.get(first.id)
        assert record is not None
        is_crash = why == "crash" or (why == "window" and not is_written)
        assert record.attempt == (2 if is_crash else 1)


async def test_a_run_that_failed_because_its_ledger_was_away_waits_until_that_is_back(
    tmp_path: Path, prefect_api: str
) -> None:
    faults: dict[Path, str] = {}

    async def fault_of(folder: Path, deployments: object) -> str:
        return faults.setdefault(folder, "the database does not answer.")

    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager, ends = manager_of(queue, faults=faults, fault_of=fault_of), list[str]()
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))

        async def ended(job: ManagedRun | None, status: str, report: object) -> None:
            ends.append(status)

        run = await manager.submit(deployment, "webhook /x", f"{tmp_path}", ended=ended)
        await client.set_flow_run_state(UUID(run.id), Failed(), force=True)
        job = ManagedRun(run, deployment, "", RunProcess(0))
        job.running.ended.set_result(ProcessEnd(words="no connection", has_spoken=True))
        manager._take(job)
        await asyncio.gather(*manager._following)
        await client.set_flow_run_state(UUID(run.id), Scheduled(), force=True)  # its pause is over
        await manager.round()
        assert [left.words for left in manager.queue] == ["waits: the database does not answer."]
        assert (ends, manager.jobs) == ([], {})


async def test_a_run_of_calls_that_crashes_too_often_leaves_each_call_a_run_of_its_own(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager = manager_of(queue)
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        calls = [{"id": f"{tmp_path}:{n}", "inputs": {}} for n in range(3)]
        first = await manager.submit(deployment, "webhook /x", f"{tmp_path}", calls=calls)
        manager._records.note(first.id, attempt=2)
        await client.set_flow_run_state(UUID(first.id), Running(), force=True)
        await manager.round()
        await asyncio.gather(*manager._following)
        there = await queue.open_runs([deployment.id])
        assert [run.order["calls"] for run in there] == [[call] for call in calls]
        assert {run.order["root"] for run in there} == {first.id}
        assert [manager._records.get(run.id) for run in (first, *there)] == [None] * 4
        shown = await queue.read(first.id)
        assert shown is not None and shown.end == "crashed"


async def test_a_run_that_waits_for_its_group_costs_prefect_one_state_however_often_that_changes(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager = manager_of(queue)
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        group, waiting = deployment.triggered.group({}), list[QueuedRun]()
        for number in range(12):
            waiting.append(await manager.submit(deployment, "webhook /x", f"{tmp_path}{number}"))
        at_work = ManagedRun(waiting[0], deployment, group, RunProcess(0))
        manager.jobs[waiting[0].id] = at_work
        for name in ("calm-owl", "warm-trout", "bold-crow"):
            at_work.running.run = name
            await manager.round()
            shown = [run.words for run in manager.queue]
            assert shown[0] == f"waits for run '{name}'"
            assert set(shown[1:]) == {"waits for the runs of its group before it"}
        n_states = [len(await client.read_flow_run_states(UUID(run.id))) for run in waiting]
        assert sorted(n_states) == [1, *[2] * 11]


async def test_a_run_whose_group_a_run_by_hand_holds_gets_no_process_until_that_ends(
    tmp_path: Path, prefect_api: str
) -> None:
    own = Settings(PoolSettings(), tmp_path)
    text = f"name: a\non: {{schedule: [{{cron: 0 6 * * *}}]}}\nconcurrency: {{group: b}}\n{STEPS}"
    made = read_triggered_pipeline(tmp_path / "p.yaml", text, own)
    assert made is not None
    name = made.group({})
    by_hand = GroupTurn(own.state_dir / GROUP_FOLDER, name, "calm-owl")
    looked, started = list[str](), list[str]()

    def holders(names: Collection[str], unwanted: Collection[str] = ()) -> dict[str, LockHolder]:
        looked.extend(names)
        return group_holders(own, names, unwanted)

    async def refused(task: RunTask) -> RunProcess:
        started.append(str(task.flow_run["id"]))
        raise OSError("no more processes")

    async with open_queue(prefect_api, SIGNER) as queue:
        manager = manager_of(queue, max_runs=2, group_holders=holders)
        deployment = await put(queue, manager, made)
        assert by_hand.take() is None
        run = await manager.submit(deployment, "webhook /x", f"{tmp_path}")
        for _ in range(2):
            await manager.round()
            assert [waiting.words for waiting in manager.queue] == ["waits for run 'calm-owl'"]
            assert manager.jobs == {} and manager._records.get(run.id) is None
        manager._records.note(
            run.id, mark="den:17:3.25"
        )  # it had a process, whose turn this may be
        looked.clear()
        manager.executor.start = refused  # type: ignore[method-assign]
        await manager.round()
        assert (looked, started) == ([], [run.id])
        manager._records.forget([run.id])
        by_hand.leave()
        await manager.round()
        assert (looked, started) == ([name], [run.id] * 2)


async def test_a_run_that_was_cancelled_while_up_was_away_is_not_continued(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager = manager_of(queue)
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        first = await manager.submit(deployment, "webhook /x", f"{tmp_path}")
        manager._records.note(first.id, mark="den:17:3.25")
        await client.set_flow_run_state(UUID(first.id), Cancelling(), force=True)
        await manager.round()
        await asyncio.gather(*manager._following)
        assert await queue.open_runs([deployment.id]) == []


def test_a_run_that_ended_while_no_one_could_be_told_is_not_run_again(
    tmp_path: Path, prefect_api: str
) -> None:
    async def main() -> None:
        async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
            manager, ends = manager_of(queue, known_end=known), list[str]()
            deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))

            async def ended(job: ManagedRun | None, status: str, report: object) -> None:
                ends.append(status)

            first = await manager.submit(deployment, "webhook /x", f"{tmp_path}", ended=ended)
            with subprocess.Popen(["sleep", "600"]) as run:  # noqa: ASYNC220
                manager._records.note(first.id, mark=process_mark(run.pid), run="calm-owl")
                await client.set_flow_run_state(UUID(first.id), Running(), force=True)
                run.kill()
            await manager.round()
            await soon(lambda: not manager.jobs)
            assert (await queue.open_runs([deployment.id]), ends) == ([], ["completed"])
            shown = await queue.read(first.id)
            assert shown is not None
            assert shown.end == "completed"

    def known(deployment: Deployment, run: str) -> Report | None:
        assert run == "calm-owl"
        return Report(run, deployment.triggered.pipeline.name, "completed", {})

    asyncio.run(main())


@pytest.mark.parametrize(
    ("extra", "n_missed", "n_again"),
    [("", 1, 0), (", catch_up: all", 6, 1), (", catch_up: none", 0, 1)],
)
async def test_of_what_was_missed_the_latest_runs_once_also_where_one_was_under_way_before(
    tmp_path: Path, prefect_api: str, extra: str, n_missed: int, n_again: int
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager = manager_of(queue, max_runs=0)
        every = f'{{cron: "0 * * * *", timezone: UTC{extra}}}'
        deployment = await put(queue, manager, triggered(tmp_path, every))
        now = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
        (timed,) = deployment.triggered.schedules
        at = now.replace(minute=0) - timedelta(hours=6)
        await SchedulePlanner(queue, manager).plan(at - timedelta(minutes=30))
        first = await manager.submit(
            deployment, timed.key, f"{deployment.id}:{timed.key}:{at.isoformat()}", at=at
        )
        with subprocess.Popen(["sleep", "600"]) as run:  # noqa: ASYNC220
            records = manager._records
            records.note(first.id, mark=process_mark(run.pid))
            await client.set_flow_run_state(UUID(first.id), Running(), force=True)
            run.kill()  # with the whole machine, which comes back six hours later
        for _ in range(3):  # `paddock up` is started again and again meanwhile
            manager = manager_of(queue, max_runs=0, folder=manager.folder)
            await put(queue, manager, deployment.triggered)
            await SchedulePlanner(queue, manager).plan(now)
            await manager.round()
            await soon(lambda: not manager.jobs)  # noqa: B023 - it is waited for here
            await manager.round()
        there = await queue.open_runs([deployment.id])
        assert sum(run.id == first.id for run in there) == n_again
        assert sum(run.at <= now and run.id != first.id for run in there) == n_missed


def test_a_run_that_ends_while_the_queue_is_read_is_not_taken_for_a_crashed_one(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with subprocess.Popen(["sleep", "600"]) as run:  # noqa: ASYNC220 - killed below
            try:
                await end_while_read(run)
            finally:
                run.kill()

    async def end_while_read(run: subprocess.Popen[bytes]) -> None:
        async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
            manager = manager_of(queue)
            deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
            first = await manager.submit(deployment, "watch inbox", f"{tmp_path}")
            manager._records.note(first.id, mark=process_mark(run.pid))
            await client.set_flow_run_state(UUID(first.id), Running(), force=True)
            await manager.round()
            read = queue.open_runs

            async def slowly(deployments: Collection[str]) -> list[QueuedRun]:
                runs = await read(deployments)
                await client.set_flow_run_state(UUID(first.id), Completed(), force=True)
                run.kill()
                await soon(lambda: not manager.jobs)
                return runs

            monkeypatch.setattr(queue, "open_runs", slowly)
            await manager.round()
            monkeypatch.undo()
            await asyncio.sleep(0.5)
            assert manager.jobs == {}
            assert await queue.open_runs([deployment.id]) == []

    asyncio.run(main())


async def test_who_submitted_a_run_hears_that_someone_cancelled_or_deleted_it(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager, ends = manager_of(queue), dict[str, str]()
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        ids: dict[str, UUID] = {}

        async def submitted(name: str) -> None:
            async def ended(job: ManagedRun | None, status: str, report: object) -> None:
                ends[name] = status

            made = await manager.submit(
                deployment, "watch inbox", f"{tmp_path}{name}", at=tomorrow, ended=ended
            )
            ids[name] = UUID(made.id)

        for name in ("cancelled", "deleted", "left"):
            await submitted(name)
        await manager.round()
        assert ends == {}
        await client.set_flow_run_state(ids["cancelled"], Cancelled(), force=True)
        await client.delete_flow_run(ids["deleted"])
        await manager.round()
        assert ends == {"cancelled": "interrupted", "deleted": "interrupted"}

        await client.delete_deployment(UUID(deployment.id))
        await put(queue, manager, deployment.triggered)
        await manager.round()
        assert ends.keys() == {"cancelled", "deleted", "left"}


async def deployed(
    queue: PrefectQueue, folder: Path, **options: Any
) -> tuple[RunManager, Deployment]:
    made = manager_of(queue, **options)
    return made, await put(queue, made, triggered(folder, '{cron: "0 6 * * *"}'))


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize(
    "theirs",
    [
        {"Paddock": {"path": "/tmp/mine/p.yaml"}}, {"root": "/etc"},
        {"Paddock": {"retry_failed": True}},
        {"Paddock": {"trigger": "watch inbox", "signature": "0" * 64}},
    ],
)  # fmt: skip
async def test_a_run_of_a_strangers_making_is_refused_and_says_why(
    tmp_path: Path, prefect_api: str, caplog: pytest.LogCaptureFixture, theirs: dict[str, Any]
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager, deployment = await deployed(queue, tmp_path)
        made = await client.create_flow_run_from_deployment(
            UUID(deployment.id), parameters=theirs, name="mine\nall well"
        )
        await manager.round()
        assert (manager.queue, manager.jobs) == ([], {})
        state = (await client.read_flow_run(made.id)).state
        assert state is not None
        assert state.is_failed()
        assert str(state.message).startswith("Refused: ")
        assert "run 'mineall well' of Prefect is refused: " in caplog.text


async def test_a_run_that_a_stranger_changed_or_copied_is_refused(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager, deployment = await deployed(queue, tmp_path)
        first = await manager.submit(deployment, "watch inbox", f"{tmp_path}1", at=tomorrow())
        second = await manager.submit(deployment, "watch inbox", f"{tmp_path}2", at=tomorrow())
        await manager.round()
        assert {run.id for run in manager.queue} == {first.id, second.id}
        changed = as_parameters({**first.order, "inputs": {"root": "/etc"}})
        await client._client.patch(f"/flow_runs/{first.id}", json={"parameters": changed})
        copied = await client.create_flow_run_from_deployment(
            UUID(deployment.id), parameters=as_parameters(second.order)
        )
        await manager.round()
        assert {run.id for run in manager.queue} == {second.id}
        for refused in (UUID(first.id), copied.id):
            state = (await client.read_flow_run(refused)).state
            assert state is not None
            assert state.is_failed()


async def test_a_run_that_prefect_itself_starts_has_the_deployments_parameters_and_waits_its_turn(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager, deployment = await deployed(queue, tmp_path)
        made = await client.create_flow_run_from_deployment(
            UUID(deployment.id), state=Scheduled(scheduled_time=tomorrow())
        )
        await manager.round()
        assert [run.id for run in manager.queue] == [str(made.id)]
        assert dict(manager.queue[0].order) == unsigned_order(deployment.triggered.key)


async def test_what_a_person_sets_at_a_deployment_refuses_no_run_and_lasts_until_it_is_made_again(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager, deployment = await deployed(queue, tmp_path)
        at = f"/deployments/{deployment.id}"
        await client._client.patch(at, json={"parameters": {"root": "/etc", "path": "p.yaml"}})
        calls = [{"id": "a", "inputs": {}}]
        made = await manager.submit(deployment, "webhook /p", "a", at=tomorrow(), calls=calls)
        assert {"root", "path"} <= (await client.read_flow_run(UUID(made.id))).parameters.keys()
        await manager.round()
        (run,) = manager.queue
        order = unsigned_order(deployment.triggered.key) | {"trigger": "webhook /p", "calls": calls}
        assert dict(run.order) == order
        timed = {"schedule": {"cron": "0 6 * * 1-5"}, "active": False, "parameters": {"n": 2}}
        answer = await client._client.post(f"{at}/schedules", json=[timed])
        assert answer.status_code == 201
        await deployed(queue, tmp_path)
        again = await client.read_deployment(UUID(deployment.id))
        assert again.parameters == {}
        (kept,) = again.schedules
        assert (kept.active, kept.parameters) == (False, {"n": 2}), "a schedule lasts"


@pytest.mark.parametrize("auth_string", ["", "paddock:ours"])
def test_no_process_is_ended_that_a_stranger_names(
    tmp_path: Path, prefect_api: str, auth_string: str
) -> None:
    async def main() -> None:
        with subprocess.Popen(["sleep", "600"]) as victim:  # noqa: ASYNC220 - must live on
            try:
                await named(victim)
                assert victim.poll() is None
            finally:
                victim.kill()

    async def named(victim: subprocess.Popen[bytes]) -> None:
        async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
            manager, deployment = await deployed(queue, tmp_path, auth_string=auth_string)
            ours = await manager.submit(deployment, "watch inbox", f"{tmp_path}{auth_string}")
            theirs = await client.create_flow_run_from_deployment(UUID(deployment.id))
            for run in (UUID(ours.id), theirs.id):
                mark = process_mark(victim.pid)
                await client.update_flow_run(run, infrastructure_pid=mark)
                await client.set_flow_run_state(run, Cancelling(), force=True)
            await manager.round()
            assert not any(job.is_adopted for job in manager.jobs.values())
            await manager.stop(20.0)
            manager.abandon()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("trigger", "extra", "is_in_a_year"),
    [("webhook /x", {}, True), ("watch inbox", {}, True), ("schedule 0 6 * * *", {}, False),
     ("schedule 0 6 * * *", {"state": "AwaitingRetry"}, True), ("Prefect", {}, False)],
)  # fmt: skip
def test_what_was_queued_while_the_clock_was_wrong_does_not_wait_for_years(
    tmp_path: Path, trigger: str, extra: dict[str, Any], is_in_a_year: bool
) -> None:
    pipeline, now = triggered(tmp_path, '{cron: "0 6 * * *"}'), datetime.now(UTC)

    def is_due_in(wait: timedelta) -> bool:
        run = QueuedRun("r", "r", "d", "waiting", now + wait, now + wait,
                        order={"trigger": trigger}, **extra)  # fmt: skip
        return is_due(run, pipeline, now)

    assert is_due_in(timedelta()) and not is_due_in(timedelta(minutes=5))
    assert is_due_in(timedelta(days=365)) == is_in_a_year
