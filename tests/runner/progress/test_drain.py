"""The gentle stop: what is in flight is finished, nothing new begins, the same command goes on."""

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool, echo
from tests.forked import ForkServer
from tests.runner.cli.commands.shell import paddock_here
from tests.runner.core.test_blocks import NESTED
from tests.runner.core.test_interruptions import finished, start
from tests.runner.world import World, states

BUDGET = "name: summaries\nbudget: {tokens: 40}\n"


def bordered(world: World, stop_gate: StopGate, pool: FakePool) -> Report:
    """Run with a border that someone may close."""
    return asyncio.run(world.run_async(pool=pool, stop_gate=stop_gate))


def test_a_closed_border_finishes_what_is_in_flight_and_begins_nothing(
    world: World, tmp_path: Path
) -> None:
    world.edit("    do:\n", "    max_parallel: 2\n    do:\n")
    world.documents(6)
    stop_gate = StopGate()

    def answer(request: ChatRequest) -> str:
        if "Document 1" in request.messages[-1].content:
            stop_gate.close("The window is closed", "budget")
        return echo(request)

    report = bordered(world, stop_gate, FakePool(answer=answer))
    assert (report.status, report.exit_status()) == ("budget", 5)
    assert report.message == ("The window is closed. 4 items are left; the same command goes on.")
    assert states(report) == {"0.txt": "new", "1.txt": "new"}
    assert world.output("0.txt") and world.output("1.txt")
    assert not (tmp_path / "out/DIGEST.md").exists()
    assert report.returns is None
    again = world.run()
    assert again.status == "completed"
    assert again.counts == {"fresh": 2, "new": 5}  # four documents and the digest
    assert again.cached_calls == 0


def test_a_block_within_an_item_stops_at_its_own_items(tmp_path: Path) -> None:
    world = World(tmp_path, NESTED)
    world.edit("      - id: colours\n", "      - id: colours\n        max_parallel: 1\n")
    world.documents(1)
    stop_gate = StopGate()

    def answer(request: ChatRequest) -> str:
        stop_gate.close("The window is closed")
        return echo(request)

    report = bordered(world, stop_gate, FakePool(answer=answer))
    assert report.status == "budget"
    assert states(report, "colours") == {"0.txt/red": "new"}
    assert states(report) == {}  # the document is not done, and not in the ledger
    assert report.message == "The window is closed. 1 item is left; the same command goes on."
    again = world.run()
    assert (again.status, again.calls) == ("completed", 1)
    assert again.returns == [{"n": 2, "failed": []}]


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_closed_at_whatever_call_again_and_again_no_call_is_made_twice(
    tmp_path: Path, every: int
) -> None:
    world = World(tmp_path, NESTED)
    world.documents(4)
    prompts: list[str] = []
    n_runs = 0
    report = None
    while report is None or report.status == "budget":
        stop_gate = StopGate()
        n_before = len(prompts)

        def answer(
            request: ChatRequest, stop_gate: StopGate = stop_gate, before: int = n_before
        ) -> str:
            prompts.append(request.messages[-1].content)
            if len(prompts) - before == every:
                stop_gate.close("The window is closed")
            return echo(request)

        report = bordered(world, stop_gate, FakePool(answer=answer, delay_s=0.001))
        n_runs += 1
        assert n_runs < 20
    assert report.status == "completed"
    assert sorted(prompts) == sorted(set(prompts)) and len(prompts) == 8
    assert report.returns == [{"n": 2, "failed": []}] * 4


def test_a_budget_of_tokens_stops_the_run_and_each_further_run_gets_on(world: World) -> None:
    world.edit("name: summaries\n", BUDGET)
    world.edit("    do:\n", "    max_parallel: 1\n    do:\n")
    world.documents(4)
    report = world.run()
    spent = report.tokens["prompt"] + report.tokens["completion"]
    assert (report.status, report.exit_status()) == ("budget", 5)
    assert spent >= 40 > spent * (report.calls - 1) / report.calls and report.calls < 4
    n_left = 4 - report.calls
    assert report.message == (
        f"The budget of 40 tokens is used up. {n_left} items are left; the same command goes on."
    )
    calls = report.calls
    n_runs = 1
    while report.status == "budget":
        report = world.run()
        calls += report.calls
        n_runs += 1
    assert report.status == "completed"
    assert calls == 5  # none was made twice
    assert n_runs > 2


def test_items_in_flight_are_counted_before_another_begins(world: World, tmp_path: Path) -> None:
    world.documents(40)
    first = World(tmp_path / "one")
    first.documents(2)
    only = first.run(only=["0.txt"])
    per_item = only.tokens["prompt"] + only.tokens["completion"]
    budget = 25 * per_item
    world.edit("name: summaries\n", f"name: summaries\nbudget: {{tokens: {budget}}}\n")
    world.edit("    do:\n", "    max_parallel: 10\n    do:\n")
    report = world.run(pool=FakePool(delay_s=0.02))
    assert report.status == "budget"
    # Ten at a time: were only what is done counted, nine more than the 25 would be begun. Those in
    # flight are taken for half done; where all ten have just begun, 21 that are done let a 31st in
    # (21 * (1 + 4.5 / 25.5) < 25), and with 22 nothing more begins.
    assert 15 <= report.counts["new"] <= 31


def test_sigusr1_closes_the_border_of_a_run(world: World, fork_server: ForkServer) -> None:
    world.edit("    do:\n", "    max_parallel: 2\n    do:\n")
    world.documents(12)
    process = start(fork_server, world, n_free=3)
    while not finished(world) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    world.write("go", "")  # what is in flight is answered after the signal
    out, err = process.communicate()
    assert process.returncode == 5, err
    note, last = out.splitlines()
    assert note == "note: A stop was requested: items in flight end, no other begins."
    report = json.loads(last)
    done = finished(world)
    assert report["status"] == "budget"
    assert len(done) == report["counts"]["new"] < 12
    assert report["message"] == (
        f"A stop was requested. {12 - len(done)} items are left; the same command goes on."
    )
    assert world.run().counts == {"fresh": len(done), "new": 12 - len(done) + 1}


def test_the_command_says_what_is_left_and_ends_with_5(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        "budget: {time: 1ms}\n"
        "steps:\n"
        "  - {id: docs, uses: files.scan, with: {root: inbox}}\n"
        "  - for_each: doc in steps.docs.files\n"
        "    max_parallel: 1\n"
        "    do: [{uses: files.read, with: {path: '{{ doc.path }}'}}]\n",
    )
    world.documents(3)
    done = paddock_here(
        "run", "--local", str(world.file), environ={"PADDOCK_HOME": str(tmp_path / "home")}
    )
    assert done.status == 5, done.err
    assert "The budget of under 0.1 s is used up. " in done.out
    assert " left; the same command goes on." in done.out
