"""Failures that may pass are tried again, with pauses, and not for ever."""

import errno
import os
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.errors import Busy, DeadlineExceeded, TrialTimeout, WorkerLost
from paddock.engine.request import ChatRequest
from paddock.engine.system import no_links
from paddock.engine.system.records import replace
from paddock.pipelines.keys import RetryKeys
from paddock.runner.core.failures import (
    MAX_RETRY_PAUSE_S,
    Cause,
    SkippedByReview,
    StepFailed,
    failure_state,
    retry_pause_s,
)
from paddock.runner.core.item_attempt import failed_end
from paddock.runner.core.traces.block_work import ItemWork
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.settings import UnattendedSettings
from tests.fakes.pool import FakePool, echo
from tests.runner.core.test_blocks import NESTED
from tests.runner.world import ALL, World, each_document, outputs, settings, states

Answer = Callable[[ChatRequest], str]


def failing(error: Exception, times: int, words: str = "Sum up: Document 1,") -> FakePool:
    """Answer, except that requests with these words fail so often."""
    left = [times]

    def answer(request: ChatRequest) -> str:
        if request.messages[-1].content.startswith(words) and left[0]:
            left[0] -= 1
            raise error
        return echo(request)

    return FakePool(answer=answer)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, n_documents=2)


def error_of(report: Report, key: str = "1.txt") -> str | None:
    return next(item.error for item in report.items if item.key == key)


@given(st.sampled_from(Cause), st.integers(0, 100), st.floats(0, 100), st.floats(0, 1))
def test_a_pause_is_never_longer_than_a_minute_and_never_below_zero(
    cause: Cause, turn: int, backoff_s: float, chance: float
) -> None:
    retry = RetryKeys.model_construct(backoff=backoff_s)
    pause_s = retry_pause_s(retry, cause, turn, chance)
    assert 0 <= retry_pause_s(retry, cause, turn, 0.0) <= pause_s <= MAX_RETRY_PAUSE_S


@given(st.integers(1, 10), st.integers(0, 20))
def test_an_item_is_given_up_after_exactly_so_many_failures(most: int, n_more: int) -> None:
    n_before, kept = 0, []
    for _ in range(most + n_more):
        state, n_before = failure_state(n_before, most, Cause.IO)
        kept.append(state)
    assert kept == ["failed"] * (most - 1) + ["quarantined"] * (n_more + 1)


@pytest.mark.parametrize(
    ("error", "on_error", "entry", "reported", "stops_run"),
    [
        (StepFailed("sum", "no"), "quarantine", "quarantined", "quarantined", False),
        (StepFailed("sum", "no", cause=Cause.IO), "quarantine", "failed", "quarantined", False),
        (StepFailed("sum", "no"), "skip", "skipped", "skipped", False),
        (StepFailed("sum", "no", cause=Cause.IO), "skip", "failed", "skipped", False),
        (StepFailed("sum", "no"), "fail", "failed", "failed", True),
        (SkippedByReview("sum", "late"), "fail", "skipped", "skipped", False),
    ],
)
def test_what_a_failure_means_is_what_on_error_says(
    error: StepFailed, on_error: str, entry: str, reported: str, *, stops_run: bool
) -> None:
    item = ItemWork(key="1.txt", name="1.txt", value={})
    report = ItemReport("each", item.key, ItemState.QUARANTINED)
    end = failed_end(item, error, report, on_error, 3)
    assert (end.state, end.report.state, end.report.error) == (entry, reported, str(error))
    assert end.stops_run is (error if stops_run else None)


def test_each_cause_is_tried_again_only_where_the_author_says_so(world: World) -> None:
    lost, late = WorkerLost("m", "signal 9"), DeadlineExceeded("idle", 5)
    report = world.run(pool=failing(lost, 1))
    assert states(report)["1.txt"] == "quarantined"
    assert error_of(report) == "step 'sum': the worker of model 'm' died: signal 9"
    world.edit("{id: sum,", "{id: sum, retry: {times: 2, on: [worker], backoff: 1ms},")
    assert states(world.run(pool=failing(lost, 3), retry_failed=True))["1.txt"] == "quarantined"
    assert world.run(pool=failing(lost, 2), retry_failed=True).status == "completed"
    world.write("inbox/1.txt", "Document 1, changed.")
    assert states(world.run(pool=failing(late, 1)))["1.txt"] == "quarantined"


def test_a_full_queue_is_tried_again_in_the_run_and_by_the_next_one(world: World) -> None:
    busy = Busy.of("clerk", 9)
    world.edit("{id: sum,", "{id: sum, retry: {times: 2, on: [busy], backoff: 1ms},")
    assert world.run(pool=failing(busy, 2)).status == "completed"
    world.write("inbox/1.txt", "Document 1, changed.")
    assert error_of(world.run(pool=failing(busy, 3))) == f"step 'sum': {busy}"
    assert world.run(pool=failing(busy, 0)).status == "completed"


def test_what_costs_too_much_on_a_busy_machine_is_told_at_once_and_tried_by_the_next_run(
    world: World,
) -> None:
    late = TrialTimeout("the JSON Schema", 3.5, processor_s=2.0)
    report = world.run(pool=failing(late, 1))
    assert error_of(report) == f"step 'sum': {late}"
    assert "2.txt" not in {item.key for item in report.items if item.error}
    assert world.run(pool=failing(late, 0)).status == "completed"


def test_what_costs_little_is_tried_again_in_the_run_on_a_busy_machine(world: World) -> None:
    world.edit("{id: sum,", "{id: sum, retry: {times: 2, on: [busy], backoff: 1ms},")
    assert world.run(pool=failing(TrialTimeout("the JSON Schema", 3.5), 2)).status == "completed"


def test_a_document_that_keeps_failing_is_quarantined_after_three_runs(world: World) -> None:
    late = DeadlineExceeded("total", 5)
    tries = [world.run(pool=failing(late, 1)) for _ in range(3)]
    assert [error_of(report) for report in tries] == [
        "step 'sum': no answer within 5 s (timeout.total)",
        "step 'sum': no answer within 5 s (timeout.total)",
        "step 'sum': no answer within 5 s (timeout.total) (failed 3 times in a row)",
    ]
    assert [report.exit_status() for report in tries] == [3, 3, 3]
    known = world.run()
    assert (known.calls, known.exit_status(), states(known)) == (0, 0, {"1.txt": "quarantined"})
    retried = world.run(retry_failed=True, pool=failing(late, 1))
    assert error_of(retried) == (
        "step 'sum': no answer within 5 s (timeout.total) (failed 4 times in a row)"
    )
    assert world.run(retry_failed=True).status == "completed"


def test_a_success_or_another_content_begins_the_count_again(world: World) -> None:
    late = DeadlineExceeded("total", 5)
    for _ in range(2):
        world.run(pool=failing(late, 1))
    world.write("inbox/1.txt", "Document 1, changed.")
    for _ in range(2):
        assert "in a row" not in str(error_of(world.run(pool=failing(late, 1))))
    assert world.run().status == "completed"
    world.write("inbox/1.txt", "Document 1, changed again.")
    assert "in a row" not in str(error_of(world.run(pool=failing(late, 1))))


def test_how_often_is_a_setting(world: World) -> None:
    once = replace(settings(world.folder), unattended=UnattendedSettings(max_attempts=1))
    pool = failing(DeadlineExceeded("total", 5), 1)
    world.run(pool=pool, settings=once)
    assert states(world.run())["1.txt"] == "quarantined"


def test_a_file_that_cannot_be_read_now_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = no_links.open_file

    def broken(path: str | Path, **options: bool) -> BufferedReader:
        if Path(path).name == "1.txt":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, **options)

    with monkeypatch.context() as disk:
        disk.setattr(no_links, "open_file", broken)
        report = world.run()
    assert states(report).get("1.txt") == "quarantined"
    assert states(world.run())["1.txt"] in ("stale", "changed")


def test_what_failed_within_an_item_is_tried_again_and_given_up_as_well(tmp_path: Path) -> None:
    world = World(tmp_path, NESTED, n_documents=2)
    late, words = DeadlineExceeded("total", 5), "red of Document 1"
    first = world.run(pool=failing(late, 1, words))
    assert [result["n"] for result in first.returns] == [2, 1]
    again = world.run(pool=failing(late, 1, words))
    assert (again.calls, [result["n"] for result in again.returns]) == (0, [2, 1])
    assert states(again) == {"1.txt": "stale"}
    mended = world.run()
    assert (mended.calls, [result["n"] for result in mended.returns]) == (1, [2, 2])
    assert world.run().counts == {"fresh": 2}


OWN_CODE = """
import os, signal
from pathlib import Path

def say():
    if Path(__file__).with_name("fails").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "hello"
"""
FUNCTION = "{uses: tool, with: {name: './own.py:say'}}"
COMMAND = "{uses: run, with: {command: [sh, -c, 'test ! -e fails || kill -9 $$']}}"
INNER = (
    "{uses: run, with: {command: [sh, -c, 'sh -c \"test ! -e fails || kill -9 \\$\\$\"; exit $?']}}"
)
SERVER = "{uses: tool, with: {name: shop.add, args: {a: 1, b: 2}}}"


def starting(folder: Path, step: str) -> World:
    """Return a world in which each document starts a program."""
    steps = f"      - {step}\n      - {{uses: files.write, with: {WRITTEN}}}\n"
    server = "mcpServers: {shop: {command: python3, args: [server.py]}}\n"
    return World(folder, server + each_document(steps), {"own.py": OWN_CODE}, n_documents=2)


WRITTEN = '{path: "out/{{ doc.relpath }}", text: done}'


@pytest.mark.parametrize("step", [COMMAND, FUNCTION, SERVER])
@pytest.mark.parametrize(
    ("names", "state"),
    [("EMFILE ENFILE ENOMEM EAGAIN EIO ESTALE", "stale"), ("EACCES ENOEXEC E2BIG", "quarantined")],
)
def test_a_program_that_cannot_be_started_now_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, names: str, state: str
) -> None:
    for name in names.split():
        world = starting(tmp_path / name, step)
        error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

        async def refuse(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as machine:
            machine.setattr(BaseEventLoop, "subprocess_exec", refuse)
            report = world.run(allow=ALL)
        assert states(report) == {"0.txt": "quarantined", "1.txt": "quarantined"}
        assert "cannot be started" in str(report.items[0].error)
        assert states(world.plan(allow=ALL)) == {"0.txt": state, "1.txt": state}, name


@pytest.mark.parametrize("step", [COMMAND, INNER, FUNCTION])
def test_what_the_system_killed_is_tried_again_and_given_up_after_three_runs(
    tmp_path: Path, step: str
) -> None:
    world = starting(tmp_path, step)
    world.write("fails", "")
    for state in ("stale", "stale", "quarantined"):
        report = world.run(allow=ALL)
        assert "memory runs out" in str(report.items[0].error)
        assert states(world.plan(allow=ALL)) == {"0.txt": state, "1.txt": state}
    (tmp_path / "fails").unlink()
    assert world.run(allow=ALL, retry_failed=True).status == "completed"
    assert outputs(world) == ["0.txt", "1.txt"]
