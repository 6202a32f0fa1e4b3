"""A run as a Prefect flow, against a real server: what it shows, and that the ledger decides."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests.fakes.wires import cutting_wire
from tests.forked import ForkServer
from tests.prefect_server import prefect_client
from tests.runner.world import World
from tests.waiting import until

N_TASKS = 7 + 4 + 3 + 1  # of the four runs
ROOT = Path(__file__).resolve().parents[3]

RUN = """
import json, sys
from pathlib import Path
from tests.fakes.pool import FakePool
from tests.runner.world import World
world = World(Path(sys.argv[1]), Path(sys.argv[1], "pipeline.yaml").read_text())
report = world.run(local=None)
print(json.dumps({**report.as_json(), "chats": len(world.pool.chats)}))
"""

# Says which items it begins, and then takes its time.
SLOW = """
import sys
from pathlib import Path
from paddock.runner.progress.events import Observer
from tests.fakes.pool import FakePool
from tests.runner.world import World

class Loud(Observer):
    def item(self, step, key, state, detail):
        print(step, key, state, detail, flush=True)

world = World(Path(sys.argv[1]), Path(sys.argv[1], "pipeline.yaml").read_text())
report = world.run(local=None, pool=FakePool(delay_s=600), observer=Loud())
sys.exit(report.exit_status())
"""


def python(forks: ForkServer, code: str, *arguments: str, environ: Mapping[str, str]) -> Any:
    """Run Python in a process of its own and give the JSON that it prints."""
    process = forks.python(code, *arguments, environ={**os.environ, **environ})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")  # Prefect's own log lines stay out of the terminal
    return json.loads(out)


def test_a_run_appears_in_prefect_with_its_tasks_and_artefacts(
    tmp_path: Path, prefect_api: str, fork_server: ForkServer
) -> None:
    home, folder = tmp_path / "prefect", tmp_path / "pipeline"
    home.mkdir()
    folder.mkdir()
    world = World(folder, n_documents=6)
    name = f"summaries-{uuid4().hex[:8]}"
    world.edit("name: summaries", f"name: {name}")
    world.write("inbox/{odd} name.txt", "A name with braces.")
    world.write("inbox/below/deep.txt", "A document in a folder of its own.")
    world.write("inbox/empty.txt", "")
    environ = {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(home), "CI": ""}
    first = python(fork_server, RUN, str(folder), environ=environ)
    second = python(fork_server, RUN, str(folder), environ=environ)
    world.edit("Sum up", "Summarise")
    assert _ended_by(fork_server, signal.SIGTERM, folder, environ) == 130
    world.edit("root: ./inbox", "root: ./nowhere")
    third = python(fork_server, RUN, str(folder), environ=environ)
    runs, task_runs, artefacts = _shown_when_complete(prefect_api, name)
    assert (first["status"], first["chats"]) == ("quarantined", 9)
    assert (second["counts"]["fresh"], second["chats"]) == (9, 0)
    assert third["status"] == "failed"

    def state_of(shown: Any) -> tuple[str, str]:
        return shown["state_name"], shown["state"]["message"]

    by_name = {run["name"]: run for run in runs}
    assert {first["run"], second["run"], third["run"]} < set(by_name)
    assert sorted(run["state_name"] for run in runs) == [
        "Cancelled", "Completed", "Failed", "Quarantined",
    ]  # fmt: skip
    run = by_name[first["run"]]
    assert state_of(run) == ("Quarantined", "9 done, 1 quarantined")
    assert run["state_type"] == "FAILED"  # the page takes the colour from it
    known = by_name[second["run"]]  # nothing is newly quarantined, so its exit status is 0
    assert state_of(known) == ("Completed", "9 fresh, 1 quarantined")
    assert state_of(by_name[third["run"]]) == ("Failed", third["message"])

    def tasks(name: str) -> dict[str, tuple[str, str]]:
        own = [task for task in task_runs if task["flow_run_id"] == by_name[name]["id"]]
        return {task["name"]: state_of(task) for task in own}

    assert tasks(first["run"]) == {
        "docs": ("Completed", "done"),
        "each": ("Quarantined", "8 done, 1 quarantined"),
        "each: below/deep.txt and 3 more": ("Completed", "4 done"),  # the longest begin first
        "each: 3.txt and 3 more": ("Completed", "4 done"),
        "each: empty.txt": ("Quarantined", "0 done, 1 quarantined"),
        "digest": ("Completed", "done"),
        "report": ("Completed", "done"),
    }
    assert tasks(second["run"])["each"] == ("Completed", "8 fresh, 1 quarantined")

    shown = {a["key"]: a for a in artefacts if a["flow_run_id"] == run["id"]}
    assert shown[f"{name}-progress"]["data"] == 100
    rows = json.loads(shown[f"{name}-results"]["data"])
    assert rows[0]["key"] == "empty.txt" and rows[0]["error"]
    assert len(rows) == 10


def test_the_last_progress_is_there_though_the_server_takes_it_late(
    tmp_path: Path, prefect_api: str, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=3)
    name = f"late-{uuid4().hex[:8]}"
    world.edit("name: summaries", f"name: {name}")
    slowly = RUN.replace("local=None", "local=None, pool=FakePool(delay_s=0.7)")
    with cutting_wire(urlsplit(prefect_api).port or 0) as wire:
        wire.held = b"PATCH /api/artifacts/"
        environ = {
            "PREFECT_API_URL": f"http://127.0.0.1:{wire.port}/api",
            "PREFECT_HOME": str(tmp_path / "prefect"), "CI": "",
        }  # fmt: skip
        python(fork_server, slowly, str(tmp_path), environ=environ)
    _, _, artefacts = _shown(prefect_api, name)
    assert [a["data"] for a in artefacts if a["key"] == f"{name}-progress"] == [100]


def _ended_by(
    forks: ForkServer, number: signal.Signals, folder: Path, environ: Mapping[str, str]
) -> int:
    """Send a run that is waiting for its model a signal, and give its exit status."""
    process = forks.python(SLOW, folder, environ={**os.environ, **environ})
    until(lambda: "each" in process.said() or process.poll() is not None)
    process.send_signal(number)
    return process.wait()


def _shown(url: str, name: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Return what the server has of a pipeline's runs: flow runs, task runs and artifacts."""
    with prefect_client(url) as api:

        def found(kind: str, **which: Any) -> list[Any]:
            return list(api.post(f"/{kind}/filter", json=which).raise_for_status().json())

        runs = found("flow_runs", flows={"name": {"any_": [name]}})
        own = {"flow_runs": {"id": {"any_": [run["id"] for run in runs]}}}
        return runs, found("task_runs", **own), found("artifacts", **own)


def _shown_when_complete(url: str, name: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Read the server until it has recorded every task: it does so a second or two later."""

    def complete() -> tuple[list[Any], list[Any], list[Any]] | None:
        runs, tasks, artefacts = _shown(url, name)
        is_complete = len([task for task in tasks if task["end_time"]]) >= N_TASKS
        return (runs, tasks, artefacts) if is_complete else None

    return until(complete)


def test_an_api_that_cannot_be_reached_is_an_error_that_names_local(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=1)
    environ = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    process = fork_server.paddock("run", str(world.file), environ=environ)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Prefect's API at http://127.0.0.1:9/api cannot be reached" in err
    assert "use `--local` to run without it" in err
    assert not (tmp_path / "out").exists()
