"""`runs`, `logs` and `clean`: what happened, found from where one stands."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from tests.runner.cli.commands.shell import PADDOCK, invoke
from tests.runner.world import World
from tests.waiting import PATIENCE_S

HOST = socket.gethostname()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    made = World(tmp_path / "news")
    made.documents(2)
    made.write("inbox/bad.pdf", "%PDF no")
    return made


def runs(*arguments: str) -> list[dict[str, Any]]:
    found = json.loads(invoke("runs", "--json", *arguments).stdout)["runs"]
    assert isinstance(found, list)
    return found


def noted(world: World, run: str, **row: Any) -> None:
    async def write() -> None:
        with Ledger(world.folder / ".paddock") as ledger:
            started = {"run": run, "pipeline": "summaries", "file": "pipeline.yaml"}
            RunStore(ledger).record_run(
                {**started, "started": time.time(), "status": "running", **row}
            )
            await ledger.durable()

    asyncio.run(write())


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_runs_of_every_pipeline_below_are_listed_the_newest_first(world: World) -> None:
    first = world.run()
    other = World(world.folder.parent / "deep/er/other")
    other.documents(1)
    second = other.run()
    assert [run["run"] for run in runs()] == [second.run, first.run]
    assert [run["run"] for run in runs("--failed")] == [first.run]
    assert [run["run"] for run in runs("news")] == [first.run]
    assert [run["run"] for run in runs("deep/er/other/pipeline.yaml")] == [second.run]
    assert len(runs("-n", "1")) == 1
    row = runs()[1]
    assert (row["status"], row["host"], row["pid"]) == ("quarantined", HOST, os.getpid())
    assert row["counts"]["quarantined"] == 1
    assert row["file"] == str(world.file)


def test_a_run_whose_process_is_gone_has_died(world: World) -> None:
    noted(world, "dead-duck", host=HOST, pid=dead_pid())
    noted(world, "live-lark", host=HOST, pid=os.getpid(), trigger="watch")
    noted(world, "far-fox", host="elsewhere", pid=1, attempt=2)
    found = {run["run"]: run["status"] for run in runs()}
    assert found == {"dead-duck": "died", "live-lark": "running", "far-fox": "running"}
    assert [run["run"] for run in runs("--failed")] == ["dead-duck"]
    assert "watch" in invoke("runs").stdout
    assert "hand on elsewhere (start 2)" in invoke("runs").stdout
    assert "Its process is gone; the same command continues." in invoke("logs", "dead-duck").stdout


def test_a_running_run_says_how_far_it_is(world: World) -> None:
    noted(world, "live-lark", host=HOST, pid=os.getpid())
    lines = [
        {"event": "step", "step": "each", "items": 40, "fresh": 10},
        {"event": "item", "step": "each", "key": "a/b.md", "state": "done"},
        {"event": "item", "step": "each", "key": "c.md", "state": "quarantined"},
        {"event": "item", "step": "inner", "key": "c.md/1", "state": "done"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    world.write(".paddock/runs/live-lark.jsonl", text + '{"event": "it')
    assert "12 of 40, 1 failed" in invoke("runs").stdout


def test_wrong_settings_of_a_folder_end_with_the_status_of_what_is_wrong(world: World) -> None:
    world.run()
    world.write("paddock.toml", "oops = =")
    for command in (("runs",), ("runs", "--json"), ("logs",)):
        result = invoke(*command)
        assert (result.exit_code, "paddock.toml" in result.stderr) == (2, True)


def test_the_log_of_a_run_shows_each_item_and_what_failed(world: World) -> None:
    report = world.run()
    text = invoke("logs", report.run).stdout
    assert text.startswith(f"run {report.run} of summaries ({world.file})\n  quarantined, by hand")
    assert "3 done, 1 quarantined; 3 model calls" in text
    assert "each: 0.txt done in " in text and ", 1 call, " in text
    bad = "each: bad.pdf quarantined: step 'text': 'bad.pdf' is damaged or not a PDF."
    assert bad in text
    lines = invoke("logs", report.run, "--failed").stdout.splitlines()
    assert [line[14:] for line in lines[3:]] == [bad]
    for place in ("news", "./news", "news/pipeline.yaml"):
        assert invoke("logs", "--failed", place).stdout.splitlines()[3:] == lines[3:]
    Path(report.run).mkdir()
    assert invoke("logs", "--failed", report.run).stdout.splitlines()[3:] == lines[3:]


def test_a_log_is_followed_until_its_run_is_over(world: World) -> None:
    noted(world, "live-lark", host=HOST, pid=os.getpid())
    file = world.write(".paddock/runs/live-lark.jsonl", "")
    process = subprocess.Popen(
        [PADDOCK, "logs", "live-lark", "--follow", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with file.open("a") as out:
        for number in range(3):
            out.write(json.dumps({"event": "note", "text": str(number)}) + "\n")
            out.flush()
            assert json.loads(process.stdout.readline())["text"] == str(number)
    noted(world, "live-lark", host=HOST, pid=os.getpid(), status="completed", ended=time.time())
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()


def test_runs_are_watched_as_they_begin_and_end_until_ctrl_c(world: World) -> None:
    world.run()
    process = subprocess.Popen(
        [PADDOCK, "runs", "--watch", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    noted(world, "live-lark", host=HOST, pid=os.getpid())
    began = json.loads(process.stdout.readline())
    assert (began["run"], began["status"]) == ("live-lark", "running")
    noted(world, "live-lark", host=HOST, pid=os.getpid(), status="failed", ended=time.time())
    assert json.loads(process.stdout.readline())["status"] == "failed"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()


def test_clean_says_what_would_go_and_removes_it(world: World) -> None:
    world.run()
    world.edit("Sum up:", "Summarise:")
    world.run()
    assert invoke("clean").stdout == "Nothing to remove in 1 ledger.\n"
    would = invoke("clean", "--older-than", "0s", "--dry-run").stdout
    assert would.startswith("Would remove 3 replies, 2 logs from 1 ledger (")
    assert invoke("clean", "--older-than", "0s").stdout == would.replace("Would remove", "Removed")
    assert world.run().counts == {"fresh": 3, "quarantined": 1}
