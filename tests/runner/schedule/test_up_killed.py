"""`paddock up` that is killed or ended, or whose runs are: nothing is lost or done twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.runner.schedule.up_process import CLI, HOOK, WATCH, Desk
from tests.waiting import is_alive, until

pytestmark = pytest.mark.timeout(280)


def test_a_killed_run_is_started_again_and_a_killed_up_takes_up_what_it_left(desk: Desk) -> None:
    desk.write("long/inbox/a.txt", "one")
    desk.write("long/inbox/b.txt", "two")
    desk.waits("long", HOOK % "long")
    desk.start()
    desk.call("long")
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
    runs = desk.flow_runs("long")
    assert [run["state_name"] for run in runs] == ["Crashed", "Crashed", "Completed"]
    # Each of them died of one item, which the ledger counts: the starts are counted again.
    assert [run["parameters"]["Paddock"]["attempt"] for run in runs[1:]] == [2, 2]
    assert len({run["parameters"]["Paddock"]["job"] for run in runs[1:]}) == 1
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
    n_earlier = len(desk.flow_runs("halted"))  # of an earlier try, on the same server
    desk.call("halted")
    desk.until(lambda: desk.marks("halted"))
    assert desk.signal(signal.SIGTERM) == 0
    desk.write("halted/go", "")
    desk.start()
    desk.until(lambda: desk.output("halted", "c.txt") == "done")
    desk.until(lambda: not desk.get()["running"])
    states = [run["state_name"] for run in desk.flow_runs("halted")]
    assert states[n_earlier:] == ["Cancelled", "Completed"]


def test_commands_end_with_it_and_are_begun_again_at_the_next_start(desk: Desk) -> None:
    desk.write("busy/inbox/a.txt", "one")
    desk.commands("busy", WATCH)
    desk.environ["PADDOCK_STOP_TIMEOUT"] = "5s"
    desk.start("--allow", "run")
    desk.until(lambda: desk.marks("busy"))
    assert desk.signal(signal.SIGTERM) == 0
    until(lambda: not is_alive(desk.marks("busy")[0]))

    desk.start("--allow", "run")
    desk.until(lambda: len(desk.marks("busy")) == 2)
    assert desk.process is not None
    desk.process.send_signal(signal.SIGINT)
    desk.until(lambda: desk.said().endswith("Stopping; once more stops at once.\n"))
    assert desk.signal(signal.SIGINT) == 130
    until(lambda: not is_alive(desk.marks("busy")[1]))

    desk.write("busy/go", "")
    desk.start("--allow", "run")
    desk.until(lambda: desk.output("busy", "a.txt") == "done\n")
    desk.until(lambda: not desk.get()["running"])
    assert len(desk.marks("busy")) == 3


SLOW_PREFECT = """
import sys, time
if "paddock.runner.daemon.prefect_process" in sys.orig_argv:
    time.sleep(600)
"""


def test_ended_while_it_starts_it_ends_in_order(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    state, modules = tmp_path / "home", tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(SLOW_PREFECT)
    up = subprocess.Popen(
        [sys.executable, "-c", CLI, "up", str(tmp_path), "--listen", "127.0.0.1:0"],
        env={**environ, "PADDOCK_HOME": str(state), "PYTHONPATH": str(modules)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (state / "residence/prefect.server").exists():  # which does not answer yet
        assert up.poll() is None
        time.sleep(0.02)
    up.send_signal(signal.SIGTERM)
    _, said = up.communicate(timeout=200)
    assert (up.returncode, said.removeprefix("Starting; this takes some seconds.\n")) == (
        0, "Stopping; once more stops at once.\nStopped.\n"
    )  # fmt: skip


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


def test_calls_that_wait_together_are_one_run_and_a_kill_loses_and_repeats_none(desk: Desk) -> None:
    folder = desk.folder / "each"
    desk.write("each/pipeline.yaml", EACH.replace("FOLDER", str(folder)))
    desk.start()

    def marks(number: int) -> list[str]:
        file = folder / f"m-{number}"
        return file.read_text().split() if file.exists() else []

    desk.call("each", n=0)
    desk.until(lambda: marks(0))
    for number in range(1, 6):
        desk.call("each", n=number)
    desk.until(lambda: desk.get()["calls_waiting"] == 0 or desk.get()["waiting"] == 1)
    for number in range(6, 9):
        desk.call("each", n=number)
    for number in range(3):
        desk.write(f"each/go-{number}", "")
    (pid,) = desk.until(lambda: marks(3))
    os.kill(int(pid), signal.SIGKILL)
    for number in range(3, 9):
        desk.write(f"each/go-{number}", "")
    desk.until(lambda: all(desk.output("each", f"{number}.txt") for number in range(9)))
    assert [len(marks(number)) for number in range(9)] == [1, 1, 1, 2, 1, 1, 1, 1, 1]
    desk.until(lambda: not desk.get()["running"])
    runs = desk.flow_runs("each")
    assert len(runs) < 9
    assert [run["state_name"] for run in runs].count("Crashed") == 1
    assert all(run["state_name"] in ("Completed", "Crashed") for run in runs)
