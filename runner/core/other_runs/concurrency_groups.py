"""Turns of concurrency groups: of the runs of a group one goes at a time.

A turn is a lock in the state folder, so a group is of this machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from paddock.engine.system.tasks import running
from paddock.runner.ledger.run_locks import GroupTurn, SkippedByGroup, TurnWait
from paddock.runner.progress.drain import StopGate

from .group_names import group_name, has_turns

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.ledger.run_locks import LockHolder
    from paddock.runner.settings import Settings


T = TypeVar("T")
GROUP_FOLDER = "groups"
TURN_LOOK_S = 2.0

GIVES_WAY_REASON = "A newer run of its group takes its place"


def group_holders(
    settings: Settings, names: Collection[str], unwanted: Collection[str] = ()
) -> dict[str, LockHolder]:
    folder = Path(settings.state_dir) / GROUP_FOLDER
    turns = {name: GroupTurn(folder, name, "") for name in {*names, *unwanted}}
    holders = {name: holder for name, turn in turns.items() if (holder := turn.holder())}
    for name in holders.keys() & set(unwanted):
        turns[name].request_release()
    return holders


@asynccontextmanager
async def group_turn(
    bound: BoundPlan, settings: Settings, run: str, stop_gate: StopGate, wait: TurnWait
) -> AsyncIterator[None]:
    """Hold the turn in the run's concurrency group, if it has one; wait for it as its file says.

    A newer run that takes its place closes the stop gate.

    Raises:
        PipelineError: the name of the group cannot be made.
        SkippedByGroup: the group is busy, and the file says `skip`.
        Locked: the deadline passed, or the run is stopped.
    """
    rule = bound.pipeline.concurrency
    if rule is None or not has_turns(rule):
        yield
        return
    name = group_name(bound.pipeline, bound.file, bound.inputs)
    turn = GroupTurn(Path(settings.state_dir) / GROUP_FOLDER, name, run)
    # Its own thread: the default ones may be busy with files for long.
    with ThreadPoolExecutor(1, thread_name_prefix="turn") as thread:

        async def in_thread(action: Callable[[], T]) -> T:
            return await asyncio.get_running_loop().run_in_executor(thread, action)

        async def take() -> tuple[LockHolder, str] | None:
            holder = await in_thread(turn.take)
            if holder is None:
                return None
            if rule.on_conflict == "skip":
                raise SkippedByGroup(
                    f"{holder} of the same group was at work, and `on_conflict` is `skip`: "
                    f"this one is left out."
                )
            if rule.on_conflict == "cancel_running":
                await in_thread(turn.request_release)
            return holder, "is of the same group"

        async def keep() -> None:
            while True:
                await asyncio.sleep(TURN_LOOK_S)
                if await in_thread(turn.is_lost):
                    stop_gate.close(GIVES_WAY_REASON, "interrupted")
                    return

        try:
            await wait.until_free(take)
            async with running(keep()):
                yield
        finally:
            await in_thread(turn.leave)
