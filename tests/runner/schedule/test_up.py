"""`paddock up` against a real Prefect server, with real processes and files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from paddock.runner.cli.run_pages import pipeline_address
from tests.forked import ForkServer
from tests.prefect_server import seed
from tests.runner.schedule.up_process import CLI, HOOK, ROOT, WATCH, Desk, signed

LEFT_BY_RUNS = shutil.ignore_patterns(".paddock", "out")

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, fork_server: ForkServer
) -> Iterator[Desk]:
    """Yield a `paddock up` for the tests that neither end it nor start it in their own way."""
    root = tmp_path_factory.mktemp("running")
    (root / "pipes").mkdir()
    (root / "config/paddock").mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(root / "config")}
    desk = Desk(root / "pipes", prefect_api, environ=environ, forks=fork_server)
    desk.start()
    yield desk
    desk.stop()


def test_files_that_come_schedules_and_calls_start_runs_and_changed_files_are_picked_up(
    desk: Desk,
) -> None:
    desk.write("seen/inbox/a.txt", "ferry")
    desk.notes("seen", WATCH)
    desk.write("timed/inbox/a.txt", "weather")
    desk.notes("timed", 'on: {schedule: [{cron: "* * * * *", timezone: Europe/Paris}]}')
    faulty = desk.write("faulty/pipeline.yaml", "on: {watch: [{path: ./x}]}\nsteps: [{uses: no}]\n")
    desk.write("other.yaml", "on: push\njobs: {}\n")
    desk.start()
    assert "there is no step called 'no'." in desk.said()
    assert "other.yaml" not in desk.said()

    desk.until(lambda: desk.output("seen", "a.txt") == "Seen: ferry")
    desk.write("seen/inbox/b.txt", "harbour")
    desk.until(lambda: desk.output("seen", "b.txt") == "Seen: harbour")
    status = desk.get()
    timed = next(one for one in status["pipelines"] if one["name"] == "timed")
    assert datetime.fromisoformat(timed["next"][0]) - datetime.now().astimezone() < timedelta(
        minutes=1
    )
    # At a minute's beginning one of the three is begun, and the next one is planned a moment later.
    planned = ["Scheduled: planned by its schedule"] * 3
    desk.until(lambda: [one["state"] for one in desk.get()["queue"] if one["pipeline"] == "timed"]
               == planned)  # fmt: skip
    parts = ("ready", "prefect", "running", "ledgers", "webhooks")
    assert desk.get("/readyz") == dict.fromkeys(parts, True)

    # A file that is changed, one that is mended, one that is saved half.
    desk.notes("seen", f"{WATCH}\ndescription: Changed.")
    faulty.write_text(desk.notes("mended", HOOK % "mended").read_text())
    desk.until(lambda: "/mended" in json.dumps(desk.get()))
    half = (desk.folder / "seen/pipeline.yaml").read_text()
    desk.write("seen/pipeline.yaml", half[: len(half) - 60])
    desk.until(lambda: "Its last valid version stays in service." in desk.said())
    desk.write("seen/inbox/c.txt", "quay")
    desk.until(lambda: desk.output("seen", "c.txt") == "Seen: quay")

    # A pipeline that goes away takes its queue along.
    (desk.folder / "timed/pipeline.yaml").unlink()
    desk.reload()
    desk.until(lambda: "timed" not in json.dumps(desk.get()["pipelines"]))
    ends = {"Skipped", "Completed"}
    desk.until(lambda: {run["state_name"] for run in desk.flow_runs("timed")} <= ends)

    # Another one for the same folder says who holds it.
    second = subprocess.run(
        [sys.executable, "-c", CLI, "up", str(desk.folder), "--listen", "127.0.0.1:0"],
        env={**os.environ, "PADDOCK_HOME": str(desk.folder.parent / "home2")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert desk.process is not None
    assert f"`paddock up` (process {desk.process.pid}, since " in second.stderr
    assert "serves this folder.\n  End it, or name other folders." in second.stderr
    desk.until(lambda: not desk.get()["running"])  # the run of c.txt, after its output
    assert desk.signal(signal.SIGTERM) == 0
    assert desk.said().endswith("Stopping; once more stops at once.\nStopped.\n")


def test_what_is_not_allowed_is_told_once_and_done_when_it_is(running: Desk) -> None:
    desk, config = running, running.folder.parent / "config/paddock/paddock.toml"
    desk.write("asks/inbox/a.txt", "ferry")
    desk.write("asks/go", "")
    file = desk.commands("asks", WATCH)
    desk.reload()
    refused = "the pipeline wants to run `sh -c "
    desk.until(lambda: desk.get()["faults"])
    desk.until(lambda: refused in desk.said())  # the page knows it a moment earlier
    assert refused in desk.get()["faults"][str(file)]
    assert not desk.marks("asks")
    config.write_text('allow = "run"\n')
    desk.until(lambda: desk.output("asks", "a.txt") == "done\n")
    assert desk.get()["faults"] == {}
    assert desk.said().count(refused) == 1

    # What is allowed no longer is refused by the next run.
    config.write_text('allow = "network"\n')
    desk.write("asks/inbox/b.txt", "harbour")
    desk.until(lambda: desk.said().count(refused) == 2)
    assert desk.output("asks", "b.txt") is None
    assert "Flow run encountered" not in desk.said()


def test_a_server_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    nobody = "http://127.0.0.1:9/api"
    environ |= {"PADDOCK_HOME": str(tmp_path / "home"), "PREFECT_API_URL": nobody}
    desk = Desk(tmp_path)
    desk.notes("notes", WATCH)
    with desk.log.open("ab") as log:
        desk.process = subprocess.Popen(
            [sys.executable, "-c", CLI, "up", str(tmp_path), "--listen", "127.0.0.1:0"],
            env=environ, stdout=log, stderr=log,
        )  # fmt: skip
    words = f"({nobody}). Running runs continue; no run starts until it is back."
    desk.until(lambda: words in desk.said(), within_s=120)
    assert desk.signal(signal.SIGTERM) == 0
    assert desk.said().count(words) == 1


def test_runs_reach_its_own_server_where_another_program_has_the_port_it_had(
    tmp_path: Path,
) -> None:
    folder, services = tmp_path / "pipes", tmp_path / "home" / "residence"
    services.mkdir(parents=True, mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as other:
        record = {"port": other.getsockname()[1], "pid": 2**30}
        (services / "prefect.server").write_text(json.dumps(record))
        seed(tmp_path / "home" / "prefect")
        desk = Desk(folder)
        desk.notes("notes", WATCH)
        desk.write("notes/inbox/a.txt", "a")
        try:
            desk.start()
            desk.until(lambda: desk.output("notes", "a.txt"))
        finally:
            desk.stop()
    assert "failed" not in desk.said()


def test_a_burst_of_calls_is_taken_at_once_none_is_lost_and_none_is_run_twice(desk: Desk) -> None:
    group = "concurrency: {group: 'burst', on_conflict: skip}"
    desk.write("burst/inbox/a.txt", "a")
    desk.waits("burst", f"{HOOK % 'burst'}\n{group}")
    desk.start()

    def call(number: int) -> int:
        body = json.dumps({"n": number}).encode()
        headers = {**signed(body), "X-GitHub-Delivery": str(number)}
        return desk.post("/burst", body, headers)[0]

    with ThreadPoolExecutor(40) as threads:
        told = list(threads.map(call, [*range(15), *range(5)]))
    assert sorted(told) == [200] * 5 + [202] * 15
    desk.until(lambda: desk.get()["calls_waiting"] == 0, within_s=180)
    desk.until(lambda: [run["state_name"] for run in desk.flow_runs("burst")].count("Skipped")
               == 14, within_s=180)  # fmt: skip
    desk.until(lambda: desk.marks("burst"))
    assert len(desk.marks("burst")) == 1
    assert len(desk.flow_runs("burst")) == 15

    # What was accepted while `up` was about to be killed is run by the next one.
    desk.write("burst/go", "")
    desk.until(lambda: not desk.get()["running"])
    assert call(100) == 202
    desk.signal(signal.SIGKILL)
    desk.start()
    desk.until(lambda: len(desk.flow_runs("burst")) == 16)
    assert call(100) == 200


def test_a_group_lets_one_at_a_time_and_a_newer_run_may_take_its_place(running: Desk) -> None:
    desk = running
    group = "concurrency: {group: 'shared', on_conflict: %s}"
    for name, conflict in (("one", "queue"), ("two", "skip"), ("three", "cancel_running")):
        desk.write(f"{name}/inbox/a.txt", name)
        desk.waits(name, f"{HOOK % name}\n{group % conflict}")
    desk.serves("one", "two", "three")
    desk.call("one")
    desk.until(lambda: desk.marks("one"))
    desk.call("two")
    desk.call("one", n=2)
    desk.until(lambda: len(desk.flow_runs("two")) == 1
               and desk.flow_runs("two")[0]["state_name"] == "Skipped")  # fmt: skip
    waiting = desk.until(
        lambda: [one for one in desk.get()["queue"] if "waits for run" in one["state"]]
    )
    assert [one["pipeline"] for one in waiting] == ["one"]
    desk.write("one/go", "")
    desk.until(lambda: [run["state_name"] for run in desk.flow_runs("one")]
               == ["Completed", "Completed"])  # fmt: skip

    desk.call("three")
    desk.until(lambda: desk.marks("three"))
    desk.call("three", n=2)
    desk.until(lambda: "a newer run of its group takes its place" in desk.said())
    desk.write("three/go", "")
    desk.until(lambda: desk.flow_runs("three")[-1]["state_name"] == "Completed")


def test_a_window_holds_runs_back_stops_them_at_an_items_border_and_lets_them_go_on(
    running: Desk,
) -> None:
    desk = running
    now = datetime.now().astimezone()
    far = [now + timedelta(hours=hours) for hours in (-2, 6, 10)]
    opened, shut = (f"{one:%H:%M}-{other:%H:%M}" for one, other in (far[:2], far[1:]))

    def with_window(window: str) -> None:
        desk.waits(
            "night", f"on: {{webhook: [{{path: /night, secret: hush}}], window: '{window}'}}"
        )
        desk.reload()

    for name in "ab":
        desk.write(f"night/inbox/{name}.txt", name)
    with_window(shut)
    desk.serves("night")
    desk.call("night")
    (held,) = desk.until(lambda: [one for one in desk.get()["queue"] if "window" in one["state"]])
    assert held["state"] == f"AwaitingConcurrencySlot: waits for its window {shut}"
    with_window(opened)
    desk.until(lambda: desk.marks("night"))
    with_window(shut)
    desk.until(lambda: f"stops: its window {shut} is over" in desk.said())
    desk.write("night/go", "")  # the item in flight is finished, the next one is not begun
    desk.until(lambda: not desk.get()["running"])
    assert (desk.output("night", "a.txt"), desk.output("night", "b.txt")) == ("done", None)
    (again,) = desk.until(
        lambda: [one for one in desk.get()["queue"] if "waits for its window" in one["state"]]
    )
    assert datetime.fromisoformat(again["not_before"]).astimezone().strftime("%H:%M") == shut[:5]
    with_window(opened)
    desk.until(lambda: desk.output("night", "b.txt") == "done")
    assert len(desk.marks("night")) == 2


def test_the_example_summarises_what_comes_into_its_inbox(running: Desk, tmp_path: Path) -> None:
    desk, folder = running, tmp_path / "watched-inbox"
    shutil.copytree(ROOT / "examples/watched-inbox", folder, ignore=LEFT_BY_RUNS)
    folder.rename(desk.folder / "watched-inbox")
    desk.reload()
    desk.until(lambda: desk.output("watched-inbox", "letter.txt.md"), within_s=150)
    desk.write("watched-inbox/inbox/second.txt", "The ferry leaves at noon on Sundays.")
    desk.until(lambda: desk.output("watched-inbox", "second.txt.md"), within_s=150)
    desk.until(lambda: desk.output("watched-inbox", "LIST.txt") == "letter.txt\nsecond.txt\n")
    desk.until(lambda: not desk.get()["running"])
    assert "crashed" not in desk.said()


def test_a_pipeline_is_paused_and_resumed_on_the_console(running: Desk) -> None:
    desk = running
    desk.write("held/inbox/a.txt", "ferry")
    file = desk.notes("held", HOOK % "held")
    desk.serves("held")
    page = pipeline_address(file.resolve())
    token = (desk.folder.parent / "home/review.token").read_text().strip()
    with httpx.Client(base_url=desk.url, trust_env=False, verify=False, timeout=200) as one:
        assert one.post(f"{page}/pause").status_code == 401
        one.post("/ui/sign-in", data={"token": token})
        desk.until(lambda: one.post(f"{page}/pause").status_code == 303)
        desk.until(lambda: "<button>Resume</button>" in one.get(page).text)
        assert desk.post("/held", b"{}", signed(b"{}"))[0] == 202
        why = "waits: its deployment is paused in Prefect"
        desk.until(lambda: why in json.dumps(desk.get()["queue"]))
        assert not (desk.folder / "held/out").exists()
        go_on = {"resume": "1"}
        desk.until(lambda: one.post(f"{page}/pause", data=go_on).status_code == 303)
        desk.until(lambda: "<button>Pause</button>" in one.get(page).text)
        desk.until(lambda: desk.output("held", "a.txt") == "Seen: ferry")
