"""`paddock up` that is killed or ended, or whose runs are: nothing is lost or done twice."""

import signal
from pathlib import Path

import psutil

from tests.runner.schedule.up_process import HOOK, WATCH, UpFolder
from tests.waiting import is_alive, until


def test_a_killed_run_is_started_again_and_a_killed_up_takes_up_what_it_left(up: UpFolder) -> None:
    up.write("long/inbox/a.txt", "one")
    up.write("long/inbox/b.txt", "two")
    up.waits("long", HOOK % "long")
    up.start()
    up.call("long")
    (first,) = up.until(lambda: up.marks("long"))
    psutil.Process(first).kill()
    up.until(lambda: len(up.marks("long")) == 2)
    attempts = [up.get()["running"][0]["attempt"]]
    assert "crashed: its process was killed by SIGKILL" in up.log_text()

    # `up` is killed: the run goes on; the next one takes it over.
    second = up.marks("long")[1]
    up.signal(signal.SIGKILL)
    assert psutil.pid_exists(second)
    up.start()
    up.until(lambda: up.get()["running"])
    assert [run["pid"] for run in up.get()["running"]] == [second]

    # Both are killed: the next one starts it again.
    up.signal(signal.SIGKILL)
    psutil.Process(second).kill()
    up.start()
    up.until(lambda: len(up.marks("long")) == 3)
    attempts.append(up.get()["running"][0]["attempt"])
    assert "crashed: its process is gone" in up.log_text()
    up.write("long/go", "")
    up.until(lambda: up.output("long", "b.txt") == "done")
    up.until(lambda: not up.get()["running"])
    up.until(lambda: [run["state_name"] for run in up.flow_runs("long")] == ["Completed"])
    # Each of them died of one item, which the ledger counts: the starts are counted again.
    assert attempts == [2, 2]
    assert len(up.marks("long")) == 4  # a, a, a, b: nothing that was done is done again


def test_commands_end_with_it_and_are_begun_again_at_the_next_start(up: UpFolder) -> None:
    up.write("busy/inbox/a.txt", "one")
    up.commands("busy", WATCH)
    up.environ["PADDOCK_STOP_TIMEOUT"] = "5s"
    up.start("--allow", "run")
    up.until(lambda: up.marks("busy"))
    assert up.signal(signal.SIGTERM) == 0
    until(lambda: not is_alive(up.marks("busy")[0]))

    up.environ["PADDOCK_STOP_TIMEOUT"] = "200s"  # it still waits at the second signal
    up.start("--allow", "run")
    up.until(lambda: len(up.marks("busy")) == 2)
    assert up.process is not None
    up.process.send_signal(signal.SIGINT)
    up.until(lambda: up.log_text().count("Stopping; once more stops at once.\n") == 2)
    assert up.signal(signal.SIGINT) == 130
    until(lambda: not is_alive(up.marks("busy")[1]))

    up.environ["PADDOCK_STOP_TIMEOUT"] = "5s"
    up.write("go", "")
    up.start("--allow", "run")
    up.until(lambda: up.output("busy", "a.txt") == "done\n")
    up.until(lambda: not up.get()["running"])
    assert len(up.marks("busy")) == 3


def test_it_works_and_ends_in_order_while_its_own_prefect_server_does_not_come_up(
    tmp_path: Path,
) -> None:
    (tmp_path / "home/prefect/prefect.db").mkdir(parents=True)  # where its database would be
    (tmp_path / "pipes").mkdir()
    up = UpFolder(tmp_path / "pipes")
    up.write("slow/inbox/a.txt", "ferry")
    up.notes("slow", HOOK % "slow")
    up.start()
    up.call("slow")
    up.until(lambda: up.output("slow", "a.txt") == "Seen: ferry")
    assert not up.get()["is_prefect_there"]
    assert up.signal(signal.SIGTERM) == 0
    assert up.log_text().endswith("Stopped.\n")
