"""A deployed run: before it has begun, when it is asked to stop, and with several calls."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.report import Report, Status
from paddock.runner.workers import queued_run
from paddock.runner.workers.flow_order import FlowOrder
from paddock.runner.workers.pipeline_flow import stays_open
from paddock.runner.workers.queued_run import PrefectUnreachable, RunControl, _ControlObserver

ORDER = FlowOrder(path="/srv/letters/pipeline.yaml")
TEXT = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"
FLOW_RUN = {"id": str(uuid4()), "flow_id": str(uuid4()), "name": "calm-owl"}


def test_what_a_run_waits_for_is_told_until_it_begins() -> None:
    reasons: list[str] = []
    named = _ControlObserver(RunControl(waits=reasons.append))
    named.note("other machines know this folder")
    named.waits("waiting for run 'calm-vole', which is of the same group")
    assert reasons == ["waiting for run 'calm-vole', which is of the same group"]
    named.began("warm-trout", "letters", ())
    named.note("waiting for run 'calm-vole' on gpu-2, which works on the rest")
    assert reasons[1:] == [""]


def test_a_run_that_reaches_no_server_has_begun_nothing() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(PrefectUnreachable, match="All connection attempts failed"),
    ):
        asyncio.run(queued_run.run_queued_flow(FLOW_RUN, ORDER, RunControl(text=TEXT)))


@pytest.mark.parametrize(
    ("status", "has_begun", "is_tried_again"),
    [(500, False, True), (500, True, False), (422, False, False)],
)
def test_a_server_that_fails_itself_as_on_a_full_disk_ends_no_run_that_has_not_begun(
    monkeypatch: pytest.MonkeyPatch, status: int, has_begun: bool, is_tried_again: bool
) -> None:
    async def refused(*_: object) -> None:
        request = httpx.Request("POST", "http://localhost/set_state")
        httpx.Response(status, request=request).raise_for_status()

    monkeypatch.setattr(queued_run, "run_ordered", refused)
    kind = PrefectUnreachable if is_tried_again else httpx.HTTPStatusError
    with pytest.raises(kind):
        asyncio.run(queued_run.run_queued_flow(FLOW_RUN, ORDER, RunControl(has_begun=has_begun)))


@pytest.mark.parametrize(
    ("status", "is_continued", "is_cancelled", "is_left"),
    [
        ("interrupted", True, False, True), ("budget", True, False, True),
        ("completed", True, False, False), ("interrupted", False, False, False),
        ("interrupted", True, True, False),
    ],
)  # fmt: skip
def test_a_run_that_another_one_continues_does_not_end_its_flow_run_itself(
    status: Status, is_continued: bool, is_cancelled: bool, is_left: bool
) -> None:
    gate = StopGate()
    if is_cancelled:
        gate.close("it was cancelled in Prefect", "interrupted")
    report = Report("a", "p", status, {})
    assert stays_open(report, gate, is_continued=is_continued) is is_left


def test_calls_that_are_over_are_not_run_again_and_those_left_are_told() -> None:
    control, run = RunControl(), list[str]()

    async def once(inputs: Mapping[str, Any], gate: StopGate, call: str) -> Report:
        run.append(call)
        control.stop_gate.close("`paddock up` was stopped")  # too late for this one
        return Report(call, "p", "completed", {"new": 1})

    calls = [{"id": call_id, "inputs": {}} for call_id in "abcd"]
    over = {"a": Report("first", "p", "completed", {})}
    report = asyncio.run(queued_run._run_calls(control, calls, over, once))
    assert (run, report.status) == (["b"], "budget")
    assert report.message == "completed 2 calls are left."
