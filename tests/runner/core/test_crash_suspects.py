"""A document that kills the run's process stops no other one: it is found, then it is out.

Runs that die are children forked from the test, so that each costs no new interpreter.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system import crash_isolation
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.runner.core.other_runs.crash_suspects import CrashHistory, CrashSuspects
from paddock.runner.core.traces.block_work import ItemWork
from paddock.runner.ledger.entries import Entry, InFlightRow
from paddock.runner.ledger.item_events import EventKind
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from tests.fakes.pool import FakePool, echo
from tests.runner.world import SUMMARIES, World, errors, states
from tests.waiting import until

FOUR = SUMMARIES.replace("for_each: doc", "max_parallel: 4\n    for_each: doc")
DIED = (
    "the run's process died {} times while it worked on this (killed, often for lack of memory, "
    "or crashed); `--retry-failed` tries it again"
)

NESTED = """\
name: nested
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    max_parallel: 2
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: lines
        for_each: line in steps.text.text.splitlines()
        do:
          - {id: sum, uses: chat, with: {prompt: "Sum up: {{ line }}"}}
        returns: steps.sum.text
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.lines.results | join(',') }}"}
"""


def killing(*words: str, log: Path) -> Callable[[ChatRequest], str]:
    """Return what answers, and kills its own process where one of the words is in the prompt."""

    def answer(request: ChatRequest) -> str:
        text = request.messages[-1].content
        if text.startswith("Sum up"):
            with log.open("a") as file:
                file.write(f"{text}\n")
        if any(word in text for word in words):
            os.kill(os.getpid(), signal.SIGKILL)
        return echo(request)

    return answer


def died(world: World, *words: str, **options: Any) -> int | None:
    """Run in a process of its own; return the signal that ended it, or None."""
    log = world.folder / "asked"
    log.unlink(missing_ok=True)
    log.touch()
    pool = FakePool(answer=killing(*words, log=log), delay_s=0.05)
    return end_of(forked(lambda: world.run(pool=pool, **options).exit_status()))


def forked(act: Callable[[], int]) -> int:
    """Do something in a process of its own; return which."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = act()
        finally:
            os._exit(code)
    return child


def end_of(child: int) -> int | None:
    """Wait for a process; return the signal that ended it, or None."""
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def prompts_of(world: World) -> list[str]:
    """Return what the last run asked about, in order."""
    return (world.folder / "asked").read_text().splitlines()


def attempts(world: World) -> list[InFlightRow]:
    with world.ledger() as ledger:
        return ledger.in_flight()


def latest_run(world: World) -> str:
    with world.ledger() as ledger:
        return RunStore(ledger).runs(1)[0].run


def outputs(world: World) -> set[str]:
    return {path.name for path in (world.folder / "out").glob("*.txt")}


def test_a_document_that_kills_the_run_is_quarantined_and_all_others_are_done(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, FOUR, n_documents=12)
    assert died(world, "Document 5") == signal.SIGKILL
    suspects = {row.key for row in attempts(world)}
    assert "5.txt" in suspects and len(suspects) <= 4
    for most in (4, 2, 1, 1):
        assert died(world, "Document 5") == signal.SIGKILL
        suspects = {row.key for row in attempts(world) if row.run == latest_run(world)}
        assert "5.txt" in suspects and len(suspects) <= most
    assert outputs(world) == {f"{n}.txt" for n in range(12) if n != 5}
    report = world.run()
    assert states(report) == {"5.txt": "quarantined"}
    assert errors(report) == {"5.txt": DIED.format(5)}
    assert (report.status, report.exit_status()) == ("quarantined", 3)
    assert world.output("DIGEST.md")
    again = world.run()
    assert (again.calls, again.exit_status()) == (0, 0)


def test_what_is_released_runs_alone_and_is_quarantined_again_after_as_many_deaths(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, FOUR, n_documents=2)
    for _ in range(5):
        assert died(world, "Document 1") == signal.SIGKILL
    assert world.run().exit_status() == 3
    world.documents(6)
    for turn in range(3):
        assert died(world, "Document 1", retry_failed=True) == signal.SIGKILL
        assert len(prompts_of(world)) == (5 if turn == 0 else 1)
    assert outputs(world) == {f"{n}.txt" for n in range(6) if n != 1}
    assert states(world.run(retry_failed=True)) == {"1.txt": "quarantined"}


def test_a_document_that_has_changed_is_no_suspect(tmp_path: Path) -> None:
    world = World(tmp_path, FOUR, n_documents=3)
    assert died(world, "Document 1") == signal.SIGKILL
    for key in {row.key for row in attempts(world)}:
        world.write(f"inbox/{key}", f"{key}: a harmless one.")
    report = world.run()
    assert (report.status, report.notes) == ("completed", ())
    assert attempts(world) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_in_order_leaves_no_suspect(
    number: signal.Signals, tmp_path: Path
) -> None:
    world = World(tmp_path, FOUR, n_documents=6)
    log = tmp_path / "asked"
    log.touch()
    pool = FakePool(answer=killing(log=log), delay_s=600)
    child = forked(lambda: world.run(pool=pool).exit_status())
    until(lambda: len(attempts(world)) >= 4)
    os.kill(child, number)
    assert end_of(child) is None  # its own end, with the status of an interrupted run
    assert attempts(world) == []


def test_of_an_item_with_items_within_only_the_inner_one_is_quarantined(tmp_path: Path) -> None:
    world = World(tmp_path, NESTED, {"inbox/a.txt": "one\ntwo\nthree", "inbox/b.txt": "four\nfive"})
    for _ in range(7):  # as many lines as 16 may be in flight
        assert died(world, "two") == signal.SIGKILL
    report = world.run()
    quarantined = [item for item in report.items if item.state == "quarantined"]
    assert [item.step for item in quarantined] == ["lines"]
    assert quarantined[0].error == DIED.format(7)
    assert len(world.output("a.txt").split(",")) == 2
    assert len(world.output("b.txt").split(",")) == 2


def item_of(key: str, hash_: str, entry: Entry | None = None) -> ItemWork:
    return ItemWork(key=key, name=key, value=None, hash=hash_, own_parts="{}", entry=entry)


async def test_what_a_run_recorded_before_it_died_is_no_suspect(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for key in ("a", "b"):
            ledger.append(EventKind.BEGAN, "s", key, "dead", hash="h")
        await ledger.durable()
        suspects = CrashSuspects(ledger, "now")
        suspects.look_once()
        entry = Entry("a", "h", "{}", "failed", run="dead")
        assert suspects.of("s", item_of("a", "h", entry)) is None
        known = suspects.of("s", item_of("b", "h"))
        assert known is not None and (known.n_deaths, known.runs) == (1, ("dead",))
        assert suspects.of("s", item_of("b", "another")) is None
        assert suspects.of("t", item_of("b", "h")) is None


async def test_a_quarantined_item_explains_the_crashes_that_it_caused(tmp_path: Path) -> None:
    """Crashes that nothing in the ledger explains count as kills from outside."""
    with Ledger(tmp_path) as ledger:
        for run in ("owl", "elk"):
            row = {"run": run, "pipeline": "p", "file": "p.yaml", "status": "running"}
            RunStore(ledger).record_run({**row, "started": time.time()})
        for key in ("a", "b"):
            ledger.append(EventKind.BEGAN, "s", key, "owl", hash="h")
        await ledger.durable()
        suspects = CrashSuspects(ledger, "now")
        suspects.look_once()
        known = suspects.of("s", item_of("b", "h"))
        assert known == CrashHistory(1, ("owl",), n_kills=1)
        suspects.end("s", "a", is_recorded=True, is_repeated_crash=True)
        suspects.end("s", "b", is_recorded=True)
        await ledger.durable()
        later = CrashSuspects(ledger, "later")
        later.look_once()
        known = later.of("s", item_of("a", "h"))
        assert known == CrashHistory(0, (), was_given_up=True, n_kills=1)
        assert later.of("s", item_of("b", "h")) is None


async def test_a_suspect_is_with_as_many_others_as_it_may() -> None:
    room, inside, n_together = SuspectRoom(), list[int](), set[tuple[int, int]]()

    async def stay(most: int) -> None:
        async with room.entered(most):
            inside.append(most)
            n_together.add((min(inside), len(inside)))
            await asyncio.sleep(0.01)
            inside.remove(most)

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            for most in (9, 9, 3, 1):
                group.create_task(stay(most))
    assert all(n <= most for most, n in n_together)
    assert max(n for _, n in n_together) > 1


async def test_a_suspect_is_not_kept_out_for_ever_by_those_that_come_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crash_isolation, "PATIENCE_S", 0.05)
    room, has_ended = SuspectRoom(), False

    async def come() -> None:
        """Overlap with the next one, as the requests of many users do."""
        while not has_ended:
            async with room.entered(rank=0):
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as others:
        for _ in range(3):
            others.create_task(come())
        await asyncio.sleep(0.02)
        async with room.entered(1, rank=2):
            has_ended = True


async def test_less_urgent_work_does_not_pass_a_suspect_and_more_urgent_does() -> None:
    room, entered = SuspectRoom(), list[str]()

    async def come(name: str, most: int, rank: int) -> None:
        async with room.entered(most, rank):
            entered.append(name)

    async with asyncio.TaskGroup() as others, room.entered(rank=1):
        for name, most, rank in (
            ("suspect", 1, 1), ("batch", 9, 2), ("chat", 9, 1), ("urgent", 9, 0)
        ):  # fmt: skip
            others.create_task(come(name, most, rank))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == ["urgent"]
    assert entered[:2] == ["urgent", "suspect"]
    assert set(entered[2:]) == {"batch", "chat"}
