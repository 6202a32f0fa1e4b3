"""What people do with a run in Prefect: it is obeyed, or refused at once with a sentence."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.prefect_view import SUSPEND_REFUSED
from paddock.runner.settings import STATE_FOLDER
from paddock.runner.workers.flow_names import deployment_name
from tests.forked import ForkServer
from tests.prefect_server import prefect_client
from tests.runner.prefect.test_flow import SLOW
from tests.runner.schedule.up_process import UpFolder
from tests.runner.world import World
from tests.waiting import until

HOOK = "on: {webhook: [{path: /%s}]}"


def runs_of(api: str, key: str, path: Path) -> list[dict[str, Any]]:
    """Return the flow runs of a file's deployment, sorted by `key`."""
    own = {"deployments": {"name": {"any_": [deployment_name(str(path))]}}}
    found = posted(api, "/flow_runs/filter", own)
    return sorted(found, key=lambda flow_run: str(flow_run[key]))


def posted(api: str, path: str, body: Any = None) -> Any:
    """Send an object to the server and return what it answers, if anything."""
    with prefect_client(api) as client:
        answer = client.post(path, json=body).raise_for_status()
    return answer.json() if answer.content else None


def set_state(api: str, run: str, kind: str, name: str) -> None:
    state = {"state": {"type": kind, "name": name}, "force": True}
    posted(api, f"/flow_runs/{run}/set_state", state)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("CANCELLING", "Cancelling", "It was cancelled in Prefect"),
        ("FAILED", "Rejected", "It was set to 'Rejected' in Prefect"),
    ],
)
def test_a_run_started_by_hand_stops_and_cannot_be_paused(
    tmp_path: Path, prefect_api: str, fork_server: ForkServer, kind: str, name: str, words: str
) -> None:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    world = World(folder, n_documents=3)
    world.edit("name: summaries", f"name: by-hand-{kind.lower()}")
    environ = {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path / "home"), "CI": ""}
    process = fork_server.python(SLOW, folder, environ={**os.environ, **environ})
    own = {"flows": {"name": {"any_": [f"by-hand-{kind.lower()}"]}}}
    (run,) = until(lambda: posted(prefect_api, "/flow_runs/filter", own))

    def state() -> dict[str, Any]:
        with prefect_client(prefect_api) as client:
            found = client.get(f"/flow_runs/{run['id']}").raise_for_status().json()
        return dict(found["state"])

    until(lambda: state()["name"] == "Running")
    until(lambda: "each" in process.said())
    set_state(prefect_api, run["id"], "PAUSED", "Suspended")
    until(lambda: state()["message"] == SUSPEND_REFUSED)
    assert state()["name"] == "Running"
    assert process.poll() is None
    set_state(prefect_api, run["id"], kind, name)
    assert process.wait() == 130
    ended = state()
    assert (ended["type"], ended["name"]) == ("CANCELLED", "Cancelled")
    message = f"{words}; the same command continues."
    assert ended["message"] == message
    with Ledger(folder / STATE_FOLDER, is_readonly=True) as ledger:
        (found,) = RunStore(ledger).runs()
    assert (found.status, found.message) == ("interrupted", message)
    report = world.run()
    assert report.status == "completed"


def test_a_suspended_run_of_up_stops_and_goes_on_when_it_is_resumed(
    up: UpFolder, prefect_api: str
) -> None:
    file = up.waits("alpha", HOOK % "alpha")
    for name in ("a.txt", "b.txt"):
        up.write(f"alpha/inbox/{name}", name)
    up.start()
    up.until(lambda: up.get()["is_prefect_there"])  # a run that begins before is no flow run
    assert up.post("/alpha", b"{}", {})[0] == 202
    up.until(lambda: len(up.marks("alpha")) == 1)
    (run,) = runs_of(prefect_api, "created", file)
    suspended = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    body = {"state": suspended, "force": False}
    answer = posted(prefect_api, f"/flow_runs/{run['id']}/set_state", body)
    assert answer["status"] == "ACCEPT"
    up.until(lambda: "It was suspended in Prefect; it goes on" in up.log_text())
    up.write("alpha/go", "")
    up.until(lambda: "is suspended; it goes on when it is resumed" in up.log_text())
    assert up.output("alpha", "a.txt") == "done"
    assert up.output("alpha", "b.txt") is None
    (same,) = runs_of(prefect_api, "created", file)
    assert (same["id"], same["state"]["name"]) == (run["id"], "Suspended")
    with Ledger(file.parent / STATE_FOLDER, is_readonly=True) as ledger:
        (kept,) = RunStore(ledger).runs()
    words = "It was suspended in Prefect. 1 item is left; the same command goes on."
    assert (kept.status, kept.message) == ("suspended", words)
    time.sleep(3)  # some rounds
    assert len(up.marks("alpha")) == 1
    answer = posted(prefect_api, f"/flow_runs/{run['id']}/resume")
    assert answer["status"] == "ACCEPT"
    up.until(lambda: up.output("alpha", "b.txt"))
    up.until(lambda: runs_of(prefect_api, "created", file)[0]["state"]["name"] == "Completed")
    assert len(runs_of(prefect_api, "created", file)) == 1
    assert "Traceback" not in up.log_text()


def test_runs_of_a_paused_deployment_wait_until_it_is_resumed(
    up: UpFolder, prefect_api: str
) -> None:
    file = up.notes("beta", HOOK % "beta")
    up.write("beta/inbox/a.txt", "A")
    up.start()

    own = {"deployments": {"name": {"any_": [deployment_name(str(file))]}}}
    (found,) = up.until(lambda: posted(prefect_api, "/deployments/filter", own))
    id_ = found["id"]
    posted(prefect_api, f"/deployments/{id_}/pause_deployment")
    up.until(lambda: up.get()["pipelines"][0]["is_paused"])
    assert up.post("/beta", b"{}", {})[0] == 202
    time.sleep(2)  # some rounds
    assert up.output("beta", "a.txt") is None
    posted(prefect_api, f"/deployments/{id_}/resume_deployment")
    up.until(lambda: up.output("beta", "a.txt"))
