"""An order in its run's process: as a flow run where a server answers, and without it elsewhere."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.report import Report, Status
from paddock.runner.workers import flow_names, ordered_run
from paddock.runner.workers.order import Order, OrderOutcome
from paddock.runner.workers.ordered_run import RunControl, run_order
from paddock.runner.workers.pipeline_flow import stays_open
from paddock.runner.workers.run_in_flow import send_what_is_shown
from tests.prefect_server import prefect_client
from tests.waiting import PATIENCE_S

# Prefect's own threads leave a connection open when their loop ends; here the process goes on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TEXT = """\
name: notes
inputs: {n: {type: int, default: 0}}
steps: [{uses: files.write, with: {path: "out/{{ inputs.n }}.txt", text: "x"}}]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CI", "1")
    file = tmp_path / "notes/pipeline.yaml"
    file.parent.mkdir()
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def api(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


def deployed(api: str, file: Path) -> str:
    with prefect_client(api) as client:
        flow = client.post("/flows/", json={"name": "notes"}).raise_for_status().json()["id"]
        about = {"flow_id": flow, "name": flow_names.deployment_name(str(file)),
                 "entrypoint": flow_names.entrypoint(str(file))}  # fmt: skip
        made = client.post("/deployments/", json=about).raise_for_status().json()
    return str(made["id"])


def carried_out(order: Order, deployment: str, **facts: Any) -> tuple[OrderOutcome, list[str]]:
    shown = list[str]()
    control = RunControl(shown_as=shown.append, **facts)
    outcome = asyncio.run(run_order(order, deployment, control))
    send_what_is_shown()
    return outcome, shown


def test_where_no_server_is_it_runs_all_the_same_and_the_ledger_names_the_order(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    order = Order("order1", "k", str(file), "webhook /x", {"n": 7})
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        for deployment in ("", "00000000-0000-0000-0000-000000000000"):
            outcome, shown = carried_out(order, deployment)
            assert outcome.report is not None and outcome.report.status == "completed"
            assert (outcome.is_shown, shown) == (False, [])
    assert (file.parent / "out/7.txt").exists()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"
    with Ledger(file.parent / ".paddock", is_readonly=True) as ledger:
        runs = RunStore(ledger).runs_that_continue(["order1"])
    assert [(run.trigger, run.status) for run in runs] == [("webhook /x", "completed")] * 2


BESIDE_MODELS = """
import asyncio, json, os, pathlib, socket, sys
os.setsid()
from paddock.engine.system.records import asdict
from paddock.runner.daemon import daemon_files
from paddock.runner.settings import read_settings
from paddock.runner.workers.ordered_run import Order, RunControl, run_order
before, file, has_service = os.nice(0), sys.argv[1], sys.argv[2] == "True"
paths = daemon_files.paths_of(read_settings(pathlib.Path(file).parent))
daemon_files.make_daemon_folders(paths)
with socket.socket(socket.AF_UNIX) as service:
    if has_service:
        service.bind(str(paths.socket))
        service.listen()
        own = daemon_files.DaemonInfo(paths.folder.parent, paths.socket, "1", os.getpid())
        paths.record.write_text(json.dumps(asdict(own)))
    for id_ in ("order1", "order2"):
        asyncio.run(run_order(Order(id_, "k", file, "webhook /x", {"n": 7}), "", RunControl()))
print(os.nice(0) - before)
"""


@pytest.mark.parametrize(("has_service", "lower_by"), [(False, "0"), (True, "10")])
def test_a_run_of_up_leaves_the_processor_to_the_models_that_are_there(
    file: Path, *, has_service: bool, lower_by: str
) -> None:
    """The first that needs them starts their service, which has its starter's priority."""
    command = [sys.executable, "-c", BESIDE_MODELS, str(file), str(has_service)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stdout == f"{lower_by}\n", done.stderr


def test_where_a_server_answers_it_is_a_flow_run_of_its_deployment(file: Path, api: str) -> None:
    order = Order(f"order {file}", "k", str(file), "watch in", {"n": 1}, "a \udcff.txt")
    outcome, (id_,) = carried_out(order, deployment := deployed(api, file))
    assert (outcome.is_shown, outcome.report and outcome.report.status) == (True, "completed")
    with prefect_client(api) as client:
        row = client.get(f"/flow_runs/{id_}").json()
    assert (row["state_name"], row["deployment_id"]) == ("Completed", deployment)
    assert (row["parameters"], row["name"]) == ({"n": 1}, outcome.report and outcome.report.run)
    assert {"paddock", "watch in"} <= set(row["tags"])


@pytest.mark.parametrize("what", ["cancelled", "deleted"])
def test_what_a_person_ended_before_it_began_is_not_run(file: Path, api: str, what: str) -> None:
    deployment = deployed(api, file)
    with prefect_client(api) as client:
        made = client.post(f"/deployments/{deployment}/create_flow_run", json={}).json()["id"]
        if what == "deleted":
            client.delete(f"/flow_runs/{made}").raise_for_status()
        else:
            state = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
            client.post(f"/flow_runs/{made}/set_state", json=state).raise_for_status()
    outcome, _ = carried_out(Order("1", "k", str(file), "Prefect", flow_run=made), deployment)
    assert outcome.report is not None and outcome.is_shown and outcome.is_cancelled
    assert (outcome.report.status, what in str(outcome.report.message).lower()) == (
        "interrupted", True
    )  # fmt: skip
    assert not (file.parent / "out").exists()


def test_a_start_goes_on_in_the_flow_run_that_the_failed_start_before_has_ended(
    file: Path, api: str
) -> None:
    deployment, state = deployed(api, file), {"type": "FAILED", "name": "Failed"}
    with prefect_client(api) as client:
        made = client.post(f"/deployments/{deployment}/create_flow_run", json={}).json()["id"]
        body = {"state": state, "force": True}
        client.post(f"/flow_runs/{made}/set_state", json=body).raise_for_status()
        order = Order(f"order {file}", "k", str(file), "Prefect", flow_run=made, mark="1 2 3")
        outcome, _ = carried_out(order, deployment)
        assert outcome.report is not None and outcome.report.status == "completed"
        assert client.get(f"/flow_runs/{made}").json()["state_name"] == "Completed"


def test_a_server_that_goes_away_takes_no_run_with_it(
    file: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is told later."""
    monkeypatch.setattr(ordered_run, "SHOW_S", 600.0)  # it is asked whether it is there
    elsewhere = "http://127.0.0.1:9/api"

    def leaves(run: str) -> None:
        os.environ["PREFECT_API_URL"] = elsewhere

    order, deployment = Order(f"away {file}", "k", str(file), "watch in"), deployed(api, file)
    with temporary_settings({PREFECT_API_URL: api}):
        real: Any = run_flow
        n_asked = 0

        async def hangs(*args: Any, **options: Any) -> Any:
            nonlocal n_asked
            n_asked += 1
            await real(*args, **options)
            await asyncio.sleep(600)  # the state of its end is never taken

        monkeypatch.setattr(ordered_run, "run_flow", hangs)
        outcome, shown = carried_out(order, deployment, began=leaves)
    assert (n_asked, len(shown), outcome.is_shown) == (1, 1, False)
    assert outcome.report is not None and outcome.report.status == "completed"


def test_a_wrong_input_is_a_sentence(file: Path) -> None:
    outcome, _ = carried_out(Order("1", "k", str(file), "webhook /x", {"n": "many"}), "")
    assert (outcome.report, outcome.message) == (
        None, "input 'n' must be a whole number, not 'many'."
    )  # fmt: skip


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
