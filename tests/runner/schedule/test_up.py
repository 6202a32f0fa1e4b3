"""`paddock up` against a real Prefect server, with real processes, files and kills."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.prefect_server import seed
from tests.runner.schedule.up_process import CLI, ROOT, Desk

WATCH = "on: {watch: [{path: ./inbox, settle: 200ms, batch: 200ms}]}"
HOOK = "on: {webhook: [{path: /%s, secret: hush}]}"

LEFT_BY_RUNS = shutil.ignore_patterns(".paddock", "out")

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def desk(tmp_path: Path, prefect_api: str) -> Iterator[Desk]:
    folder = tmp_path / "pipes"
    folder.mkdir()
    made = Desk(folder, prefect_api)
    yield made
    made.stop()


def signed(body: bytes) -> dict[str, str]:
    mac = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={mac}"}


def flow_runs(api: str, name: str) -> list[dict[str, Any]]:
    """Return the flow runs of a pipeline, the oldest first."""
    import httpx

    body = {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC", "limit": 200}
    answer = httpx.post(f"{api}/flow_runs/filter", json=body, timeout=30)
    return sorted(answer.raise_for_status().json(), key=lambda run: run["created"])


def is_at_work(pid: int) -> bool:
    """Return whether a process still runs; its status may not have been fetched yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def called(desk: Desk, name: str, **more: Any) -> None:
    """Call a pipeline's webhook."""
    body = json.dumps(more).encode()
    status, answer = desk.post(f"/{name}", body, signed(body))
    assert (status, answer["is_known"], answer["run"]) == (202, False, None), answer


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
    assert [one["state"] for one in status["queue"] if one["pipeline"] == "timed"] == [
        "Scheduled: planned by its schedule"
    ] * 3
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
    desk.until(lambda: {run["state_name"] for run in flow_runs(desk.api, "timed")} <= ends)

    # Another one for the same folder says who holds it.
    second = subprocess.run(
        [sys.executable, "-c", CLI, "up", str(desk.folder), "--listen", "127.0.0.1:0"],
        env={**os.environ, "PADDOCK_HOME": str(desk.folder.parent / "home2")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert desk.process is not None
    assert f"`paddock up` (process {desk.process.pid}, since " in second.stderr
    assert "serves this folder.\n  End it, or name other folders." in second.stderr
    assert desk.signal(signal.SIGTERM) == 0
    assert desk.said().endswith("Stopping; once more stops at once.\nStopped.\n")


def test_a_killed_run_is_started_again_and_a_killed_up_takes_up_what_it_left(desk: Desk) -> None:
    desk.write("long/inbox/a.txt", "one")
    desk.write("long/inbox/b.txt", "two")
    desk.waits("long", HOOK % "long")
    desk.start()
    called(desk, "long")
    (first,) = desk.until(lambda: desk.marks("long"))
    psutil.Process(first).kill()
    desk.until(lambda: len(desk.marks("long")) == 2)
    assert "crashed: its process was killed by SIGKILL" in desk.said()

    # `up` is killed: the run goes on; the next one takes it over.
    second = desk.marks("long")[1]
    desk.signal(signal.SIGKILL)
    assert psutil.pid_exists(second)
    desk.start()
    desk.until(lambda: desk.get()["running"])
    assert [one["pid"] for one in desk.get()["running"]] == [second]

    # Both are killed: the next one starts it again.
    desk.signal(signal.SIGKILL)
    psutil.Process(second).kill()
    desk.start()
    desk.until(lambda: len(desk.marks("long")) == 3)
    assert "crashed: its process is gone" in desk.said()
    desk.write("long/go", "")
    desk.until(lambda: desk.output("long", "b.txt") == "done")
    desk.until(lambda: not desk.get()["running"])
    runs = flow_runs(desk.api, "long")
    assert [run["state_name"] for run in runs] == ["Crashed", "Crashed", "Completed"]
    # Each of them died of one item, which the ledger counts: the starts are counted again.
    assert [run["parameters"]["attempt"] for run in runs[1:]] == [2, 2]
    assert len({run["parameters"]["job"] for run in runs[1:]}) == 1
    assert len(desk.marks("long")) == 4  # a, a, a, b: nothing that was done is done again


def test_a_document_that_kills_each_run_ends_in_failed_and_all_others_in_done(desk: Desk) -> None:
    desk.dies("hot", "on: {watch: [{path: ./inbox, claim: move, settle: 200ms, batch: 1s}]}")
    inbox = desk.folder / "hot/inbox"
    for number in range(11):
        desk.write(f"hot/inbox/{number:02}.txt", f"Letter {number}.")
    desk.write("hot/inbox/05b.txt", "This one is poison.")
    desk.start()
    desk.until(lambda: (inbox / "failed/05b.txt").exists(), within_s=200.0)
    desk.until(lambda: not [*(inbox / "processing").iterdir()])
    assert {path.name for path in (inbox / "done").iterdir()} == {f"{n:02}.txt" for n in range(11)}
    assert {path.name for path in (desk.folder / "hot/out").iterdir()} == {
        f"{n:02}.txt" for n in range(11)
    }
    reason = (inbox / "failed/05b.txt.reason.txt").read_text()
    died = re.match(r"the run's process died (\d+) times while it worked on this", reason)
    assert died is not None, reason
    n_died = int(died[1])
    assert desk.said().count("crashed: its process was killed by SIGKILL") == n_died
    assert 3 <= n_died <= 3 + (4).bit_length() - 1  # `max_attempts`, and halvings of 4 in parallel
    assert "is given up" not in desk.said()


@pytest.mark.parametrize("stop_timeout", ["4s", "100ms"])  # 100ms: no end can be recorded
def test_ended_in_the_middle_it_goes_on_at_the_next_start(desk: Desk, stop_timeout: str) -> None:
    for name in "abc":
        desk.write(f"halted/inbox/{name}.txt", name)
    desk.waits("halted", HOOK % "halted")
    desk.environ["PADDOCK_STOP_TIMEOUT"] = stop_timeout
    desk.start()
    n_earlier = len(flow_runs(desk.api, "halted"))  # of an earlier try, on the same server
    called(desk, "halted")
    desk.until(lambda: desk.marks("halted"))
    began = time.monotonic()
    assert desk.signal(signal.SIGTERM) == 0
    assert time.monotonic() - began < 60
    desk.write("halted/go", "")
    desk.start()
    desk.until(lambda: desk.output("halted", "c.txt") == "done")
    desk.until(lambda: not desk.get()["running"])
    states = [run["state_name"] for run in flow_runs(desk.api, "halted")]
    assert states[n_earlier:] == ["Cancelled", "Completed"]


def test_what_is_not_allowed_is_told_once_and_done_when_it_is(desk: Desk) -> None:
    config = desk.folder.parent / "config/paddock/paddock.toml"
    config.parent.mkdir(parents=True)
    desk.environ["XDG_CONFIG_HOME"] = str(config.parent.parent)
    desk.write("asks/inbox/a.txt", "ferry")
    desk.write("asks/go", "")
    file = desk.commands("asks", WATCH)
    desk.start()
    refused = "the pipeline wants to run `sh -c "
    assert desk.said().count(refused) == 1
    assert refused in desk.get()["faults"][str(file)]
    time.sleep(12)  # it was looked at again meanwhile
    assert desk.said().count(refused) == 1 and not desk.marks("asks")
    config.write_text('allow = "run"\n')
    desk.until(lambda: desk.output("asks", "a.txt") == "done\n")
    assert desk.get()["faults"] == {}

    # What is allowed no longer is refused by the next run.
    config.write_text('allow = "network"\n')
    desk.write("asks/inbox/b.txt", "harbour")
    desk.until(lambda: desk.said().count(refused) == 2)
    assert desk.output("asks", "b.txt") is None
    assert "Flow run encountered" not in desk.said()


def test_commands_end_with_it_and_are_begun_again_at_the_next_start(desk: Desk) -> None:
    desk.write("busy/inbox/a.txt", "one")
    desk.commands("busy", WATCH)
    desk.environ["PADDOCK_STOP_TIMEOUT"] = "5s"
    desk.start("--allow", "run")
    desk.until(lambda: desk.marks("busy"))
    began = time.monotonic()
    assert desk.signal(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
    assert not is_at_work(desk.marks("busy")[0])

    desk.start("--allow", "run")
    desk.until(lambda: len(desk.marks("busy")) == 2)
    assert desk.process is not None
    desk.process.send_signal(signal.SIGINT)
    desk.until(lambda: desk.said().endswith("Stopping; once more stops at once.\n"))
    assert desk.signal(signal.SIGINT) == 130
    until = time.monotonic() + 5  # the system takes a moment
    while is_at_work(desk.marks("busy")[1]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_at_work(desk.marks("busy")[1])

    desk.write("busy/go", "")
    desk.start("--allow", "run")
    desk.until(lambda: desk.output("busy", "a.txt") == "done\n")
    desk.until(lambda: not desk.get()["running"])
    assert len(desk.marks("busy")) == 3


def test_ended_while_it_starts_it_ends_in_order(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    state = tmp_path / "home"
    up = subprocess.Popen(
        [sys.executable, "-c", CLI, "up", str(tmp_path), "--listen", "127.0.0.1:0"],
        env={**environ, "PADDOCK_HOME": str(state)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (state / "residence/prefect.server").exists():  # which takes seconds to answer
        assert up.poll() is None
        time.sleep(0.02)
    began = time.monotonic()
    up.send_signal(signal.SIGTERM)
    _, said = up.communicate(timeout=60)
    assert (up.returncode, said.removeprefix("Starting; this takes some seconds.\n")) == (
        0, "Stopping; once more stops at once.\nStopped.\n"
    )  # fmt: skip
    assert time.monotonic() - began < 30


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
    desk.until(lambda: [run["state_name"] for run in flow_runs(desk.api, "burst")].count("Skipped")
               == 14, within_s=180)  # fmt: skip
    desk.until(lambda: desk.marks("burst"))
    assert len(desk.marks("burst")) == 1
    assert len(flow_runs(desk.api, "burst")) == 15

    # What was accepted while `up` was about to be killed is run by the next one.
    desk.write("burst/go", "")
    desk.until(lambda: not desk.get()["running"])
    assert call(100) == 202
    desk.signal(signal.SIGKILL)
    desk.start()
    desk.until(lambda: len(flow_runs(desk.api, "burst")) == 16)
    assert call(100) == 200


EACH = """\
name: each
on: {webhook: [{path: /each, secret: hush, inputs: {n: "{{ payload.n }}"}}]}
inputs: {n: {type: int, default: 0}}
steps:
  - id: wait
    uses: wait
    with: {file: "FOLDER/go-{{ inputs.n }}", mark: "FOLDER/m-{{ inputs.n }}"}
  - uses: files.write
    with: {path: "out/{{ inputs.n }}.txt", text: "{{ steps.wait.text }} {{ inputs.n }}"}
"""


def test_calls_that_wait_together_are_one_run_and_a_kill_loses_and_repeats_none(
    desk: Desk,
) -> None:
    folder = desk.folder / "each"
    desk.write("each/pipeline.yaml", EACH.replace("FOLDER", str(folder)))
    desk.start()

    def marks(number: int) -> list[str]:
        file = folder / f"m-{number}"
        return file.read_text().split() if file.exists() else []

    called(desk, "each", n=0)
    desk.until(lambda: marks(0))
    for number in range(1, 6):
        called(desk, "each", n=number)
    desk.until(lambda: desk.get()["calls_waiting"] == 0 or desk.get()["waiting"] == 1)
    for number in range(6, 9):
        called(desk, "each", n=number)
    for number in range(3):
        desk.write(f"each/go-{number}", "")
    (pid,) = desk.until(lambda: marks(3))
    os.kill(int(pid), signal.SIGKILL)
    for number in range(3, 9):
        desk.write(f"each/go-{number}", "")
    desk.until(lambda: all(desk.output("each", f"{number}.txt") for number in range(9)), 90.0)
    assert [len(marks(number)) for number in range(9)] == [1, 1, 1, 2, 1, 1, 1, 1, 1]
    desk.until(lambda: not desk.get()["running"])
    runs = flow_runs(desk.api, "each")
    assert len(runs) < 9
    assert [run["state_name"] for run in runs].count("Crashed") == 1
    assert all(run["state_name"] in ("Completed", "Crashed") for run in runs)


def test_a_group_lets_one_at_a_time_and_a_newer_run_may_take_its_place(desk: Desk) -> None:
    group = "concurrency: {group: 'shared', on_conflict: %s}"
    for name, conflict in (("one", "queue"), ("two", "skip"), ("three", "cancel_running")):
        desk.write(f"{name}/inbox/a.txt", name)
        desk.waits(name, f"{HOOK % name}\n{group % conflict}")
    desk.start()
    called(desk, "one")
    desk.until(lambda: desk.marks("one"))
    called(desk, "two")
    called(desk, "one", n=2)
    desk.until(lambda: len(flow_runs(desk.api, "two")) == 1
               and flow_runs(desk.api, "two")[0]["state_name"] == "Skipped")  # fmt: skip
    waiting = desk.until(
        lambda: [one for one in desk.get()["queue"] if "waits for run" in one["state"]]
    )
    assert [one["pipeline"] for one in waiting] == ["one"]
    desk.write("one/go", "")
    desk.until(lambda: [run["state_name"] for run in flow_runs(desk.api, "one")]
               == ["Completed", "Completed"])  # fmt: skip

    called(desk, "three")
    desk.until(lambda: desk.marks("three"))
    called(desk, "three", n=2)
    desk.until(lambda: "a newer run of its group takes its place" in desk.said())
    desk.write("three/go", "")
    desk.until(lambda: flow_runs(desk.api, "three")[-1]["state_name"] == "Completed")


def test_a_window_holds_runs_back_stops_them_at_an_items_border_and_lets_them_go_on(
    desk: Desk,
) -> None:
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
    desk.start()
    called(desk, "night")
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


def test_the_example_summarises_what_comes_into_its_inbox(desk: Desk) -> None:
    folder = desk.folder / "watched-inbox"
    shutil.copytree(ROOT / "examples/watched-inbox", folder, ignore=LEFT_BY_RUNS)
    desk.start()
    desk.until(lambda: desk.output("watched-inbox", "letter.txt.md"), within_s=150)
    desk.write("watched-inbox/inbox/second.txt", "The ferry leaves at noon on Sundays.")
    desk.until(lambda: desk.output("watched-inbox", "second.txt.md"), within_s=150)
    desk.until(lambda: desk.output("watched-inbox", "LIST.txt") == "letter.txt\nsecond.txt\n")
    desk.until(lambda: not desk.get()["running"])
    assert "crashed" not in desk.said()
