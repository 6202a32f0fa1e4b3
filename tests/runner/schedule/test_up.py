"""`paddock up` against a real Prefect server, with real processes and files."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from paddock.runner.cli.console_run_pages import pipeline_address
from paddock.runner.schedule import order_queue
from tests.forked import ForkServer
from tests.runner.cli.commands.terminal import terminal
from tests.runner.schedule.up_process import CLI, HOOK, WATCH, UpFolder, signed
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, fork_server: ForkServer
) -> Iterator[UpFolder]:
    """Yield a `paddock up` for the tests that neither end it nor start it in their own way."""
    root = tmp_path_factory.mktemp("running")
    (root / "pipes").mkdir()
    (root / "config/paddock").mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(root / "config")}
    up = UpFolder(root / "pipes", prefect_api, environ=environ, forks=fork_server)
    up.start()
    yield up
    up.stop()


def test_files_that_come_schedules_and_calls_start_runs_and_changed_files_are_picked_up(
    up: UpFolder,
) -> None:
    up.write("seen/inbox/a.txt", "ferry")
    up.notes("seen", WATCH)
    up.write("timed/inbox/a.txt", "weather")
    up.notes("timed", 'on: {schedule: [{cron: "* * * * *", timezone: Europe/Paris}]}')
    faulty = up.write("faulty/pipeline.yaml", "on: {watch: [{path: ./x}]}\nsteps: [{uses: no}]\n")
    up.write("other.yaml", "on: push\njobs: {}\n")
    up.start()
    assert "there is no step called 'no'." in up.log_text()
    assert "other.yaml" not in up.log_text()

    up.until(lambda: up.output("seen", "a.txt") == "Seen: ferry")
    up.write("seen/inbox/b.txt", "harbour")
    up.until(lambda: up.output("seen", "b.txt") == "Seen: harbour")
    status = up.get()
    timed = next(pipeline for pipeline in status["pipelines"] if pipeline["name"] == "timed")
    (trigger,) = timed["triggers"]
    assert datetime.fromisoformat(trigger["next"]) - datetime.now().astimezone() < timedelta(
        minutes=1
    )
    up.until(lambda: up.output("timed", "a.txt") == "Seen: weather")
    up.until(lambda: {made["status"] for made in up.deployments("timed", "seen")} == {"READY"})
    assert up.get("/readyz") == dict.fromkeys(("ready", "running", "ledgers", "queue"), True)

    # A file that is changed, one that is mended, one that is saved half.
    up.notes("seen", f"{WATCH}\ndescription: Changed.")
    faulty.write_text(up.notes("mended", HOOK % "mended").read_text())
    up.until(lambda: "/mended" in json.dumps(up.get()))
    half = (up.folder / "seen/pipeline.yaml").read_text()
    up.write("seen/pipeline.yaml", half[: len(half) - 60])
    up.until(lambda: "Its last valid version stays in service." in up.log_text())
    up.write("seen/inbox/c.txt", "quay")
    up.until(lambda: up.output("seen", "c.txt") == "Seen: quay")

    # A pipeline that goes away takes its queue along.
    (up.folder / "timed/pipeline.yaml").unlink()
    up.reload()
    up.until(lambda: "timed" not in json.dumps(up.get()["pipelines"]))
    up.until(lambda: {run["state_name"] for run in up.flow_runs("timed")} == {"Completed"})

    # Another one for the same folder says who holds it.
    second = subprocess.run(
        [sys.executable, "-c", CLI, "up", str(up.folder), "--listen", "127.0.0.1:0"],
        env={**os.environ, "PADDOCK_HOME": str(up.folder.parent / "home2")},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert up.process is not None
    assert (
        f"`paddock up` (process {up.process.pid} on {socket.gethostname()}, since " in second.stderr
    )
    assert "serves this folder.\n  End it, or name other folders." in second.stderr
    up.until(lambda: not up.get()["running"])  # the run of c.txt, after its output
    assert up.signal(signal.SIGTERM) == 0
    assert up.log_text().endswith("Stopping; once more stops at once.\nStopped.\n")


def test_what_is_not_allowed_is_told_once_and_done_when_it_is(running: UpFolder) -> None:
    up, config = running, running.folder.parent / "config/paddock/paddock.toml"
    up.write("asks/inbox/a.txt", "ferry")
    up.write("go", "")
    file = up.commands("asks", WATCH)
    up.reload()
    refused = "the pipeline wants to run `sh -c "
    up.until(lambda: up.get()["faults"])
    up.until(lambda: refused in up.log_text())  # the page knows it a moment earlier
    assert refused in up.get()["faults"][str(file)]
    assert not up.marks("asks")
    config.write_text('allow = "run"\n')
    up.until(lambda: up.output("asks", "a.txt") == "done\n")
    assert up.get()["faults"] == {}
    assert up.log_text().count(refused) == 1

    # What is allowed no longer is refused by the next run.
    config.write_text('allow = "network"\n')
    up.write("asks/inbox/b.txt", "harbour")
    up.until(lambda: up.log_text().count(refused) == 2)
    assert up.output("asks", "b.txt") is None
    assert "Flow run encountered" not in up.log_text()


def test_a_server_that_is_not_there_is_told_once_and_runs_go_on_without(tmp_path: Path) -> None:
    closed_port = "http://127.0.0.1:9/api"
    (tmp_path / "pipes").mkdir()
    up = UpFolder(tmp_path / "pipes", closed_port)
    up.write("notes/inbox/a.txt", "ferry")
    up.notes("notes", WATCH)
    up.start()
    up.until(lambda: up.output("notes", "a.txt") == "Seen: ferry")
    words = f"Prefect at {closed_port} cannot be asked; runs go on without it"
    up.until(lambda: words in up.log_text())
    up.write("notes/inbox/b.txt", "harbour")
    up.until(lambda: up.output("notes", "b.txt") == "Seen: harbour")
    assert up.signal(signal.SIGTERM) == 0
    assert up.log_text().count(words) == 1


def test_it_ends_with_the_window_of_its_terminal_and_else_a_hangup_is_a_reload(
    tmp_path: Path,
) -> None:
    closed_port = "http://127.0.0.1:9/api"
    environ = {"PADDOCK_HOME": str(tmp_path / "home"), "PREFECT_API_URL": closed_port, "CI": ""}
    (tmp_path / "pipes").mkdir()
    words = ("up", "pipes", "--listen", "127.0.0.1:0")
    with terminal(*words, environ=environ, cwd=tmp_path) as screen:
        screen.wait_for("It needs the token in")
        screen.process.send_signal(signal.SIGHUP)
        faulty = "on: {watch: [{path: inbox}]}\nsteps: []\n"
        (tmp_path / "pipes/pipeline.yaml").write_text(faulty)
        screen.wait_for("'steps' must not be empty.", 60)
        assert screen.process.poll() is None
        screen.close()
        screen.process.wait(PATIENCE_S)


def test_a_pause_holds_back_the_pipeline_whose_file_is_renamed(running: UpFolder) -> None:
    up = running
    up.write("kept/inbox/a.txt", "ferry")
    file = up.notes("kept", WATCH)
    up.until(lambda: up.output("kept", "a.txt") == "Seen: ferry")
    with closing(order_queue.open_queue_file(up.folder.parent / "home/orders.sqlite")) as db, db:
        assert order_queue.write_pause(db, str(file), "", is_paused=True)
    file.rename(file.with_name("bills.yaml"))
    up.reload()
    up.until(lambda: "bills.yaml now, and paused" in up.log_text())
    up.write("kept/inbox/b.txt", "harbour")
    up.until(lambda: "waits: it is paused" in json.dumps(up.get()["queue"]))
    assert up.output("kept", "b.txt") is None
    with closing(order_queue.open_queue_file(up.folder.parent / "home/orders.sqlite")) as db, db:
        bills = str(file.with_name("bills.yaml"))
        assert order_queue.write_pause(db, bills, "", is_paused=False)
    up.until(lambda: up.output("kept", "b.txt") == "Seen: harbour")


def test_a_pipeline_is_paused_and_resumed_on_the_console(running: UpFolder) -> None:
    up = running
    up.write("held/inbox/a.txt", "ferry")
    file = up.notes("held", HOOK % "held")
    up.serves("held")
    page = pipeline_address(file.resolve())
    token = (up.folder.parent / "home/review.token").read_text().strip()
    with httpx.Client(base_url=up.url, trust_env=False, verify=False, timeout=PATIENCE_S) as client:
        assert client.post(f"{page}/pause").status_code == 401
        client.post("/ui/sign-in", data={"token": token})
        up.until(lambda: client.post(f"{page}/pause").status_code == 303)
        up.until(lambda: "<button>Resume all triggers</button>" in client.get(page).text)
        assert up.post("/held", b"{}", signed(b"{}"))[0] == 202
        why = "waits: it is paused"
        up.until(lambda: why in json.dumps(up.get()["queue"]))
        assert not (up.folder / "held/out").exists()
        go_on = {"resume": "1"}
        up.until(lambda: client.post(f"{page}/pause", data=go_on).status_code == 303)
        up.until(lambda: "<button>Pause all triggers</button>" in client.get(page).text)
        up.until(lambda: up.output("held", "a.txt") == "Seen: ferry")
