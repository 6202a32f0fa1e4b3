"""Concurrency groups: of their runs one goes at a time.

A group's turn is a lock in the state folder; with a ledger in PostgreSQL, the database holds it for
all machines, and runs that machines do together have one turn together.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paddock.engine.system.tasks import running
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.input_values import FOLDER_TYPES
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import postgres_module
from paddock.runner.ledger.own_state import folder_identity, make_state
from paddock.runner.ledger.sharing.run_locks import FileGroupTurn, SkippedByGroup, TurnWait
from paddock.runner.progress.drain import StopGate
from paddock.runner.settings import STATE_FOLDER

from .machine_view import stored_path
from .work_claims import WorkClaims

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddock.pipelines.model import Pipeline
    from paddock.pipelines.triggers import ConcurrencyKeys
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.ledger.sharing.run_locks import LockHolder
    from paddock.runner.settings import Settings


GROUP_FOLDER = "groups"
TURN_HEARTBEAT_S = 2.0

GIVES_WAY_REASON = "A newer run of its group takes its place"


class GroupTurn(Protocol):
    """One run's turn in a concurrency group. Blocking."""

    def take(self) -> LockHolder | None:
        """Take the turn; return who holds it, None if it is ours now."""

    def request_release(self) -> None:
        """Ask runs that began earlier to stop."""

    def is_lost(self) -> bool:
        """Send a heartbeat; return whether a newer run wants the turn, or has it."""

    def leave(self) -> None:
        """Release the turn."""


@dataclass(frozen=True, slots=True)
class ConcurrencyGroup:
    """The group of a run: a hashed name, and its rule."""

    name: str
    on_conflict: str


def concurrency_group(bound: BoundPlan, *, is_shared: bool) -> ConcurrencyGroup | None:
    """Return a run's group, as `group_name` has it; None where it has none.

    Raises:
        PipelineError: the name cannot be made.
    """
    rule = bound.pipeline.concurrency
    if rule is None or not has_turns(rule):
        return None
    name = group_name(bound.pipeline, bound.file, bound.inputs, is_shared=is_shared)
    return ConcurrencyGroup(name, rule.on_conflict)


def has_turns(rule: ConcurrencyKeys) -> bool:
    """Return whether runs take turns; else the lock on their folder is enough."""
    return rule.group is not None or rule.on_conflict != "queue"


def group_name(
    pipeline: Pipeline, file: Path, inputs: Mapping[str, Any], *, is_shared: bool
) -> str:
    """Return the hashed name of a run's group, by default that of its file and folders.

    `is_shared`: the ledger is in PostgreSQL, and machines may have mounted the file's folder
    elsewhere, so that its identity names it, which is made here if there is none. Blocks then.

    Raises:
        PipelineError: the name cannot be made.
    """
    rule = pipeline.concurrency
    if rule is not None and rule.group is not None:
        at = ("concurrency", "group")
        written = str(rendered_value(pipeline, rule.group, {"inputs": inputs}, at))
    else:
        kinds = {name: spec.type for name, spec in pipeline.inputs.items()}
        folders = {n: str(value) for n, value in inputs.items() if kinds.get(n) in FOLDER_TYPES}
        place = [str(file)]
        if is_shared:
            with suppress(LedgerError, OSError):  # its run says so
                base = file.parent.resolve()
                make_state(base / STATE_FOLDER)
                place = [folder_identity(base / STATE_FOLDER), file.name]
                folders = {n: stored_path(Path(path), base) for n, path in folders.items()}
        written = canonical_json([*place, folders])
    return hashlib.sha256(written.encode()).hexdigest()[:32]


def group_holders(
    settings: Settings, names: Collection[str], unwanted: Collection[str] = ()
) -> dict[str, LockHolder]:
    """Return who has the turn in these groups; ask those of `unwanted` to stop. Blocks.

    Raises:
        LedgerError: PostgreSQL, which knows whose turn it is, cannot be used.
    """
    if settings.ledger_url:
        given = settings.ledger_url, names, unwanted, settings.unattended.dead_after_s
        held: dict[str, LockHolder] = postgres_module("sharing.coordination").group_holders(*given)
        return held
    folder = Path(settings.state_dir) / GROUP_FOLDER
    turns = {name: FileGroupTurn(folder, name, "") for name in {*names, *unwanted}}
    found = {name: holder for name, turn in turns.items() if (holder := turn.holder())}
    for name in found.keys() & set(unwanted):
        turns[name].request_release()
    return found


def rendered_value(
    pipeline: Pipeline, written: Any, scope: Mapping[str, Any], at: tuple[str | int, ...]
) -> Any:
    """Render the value at `at`, outside of the steps.

    Raises:
        PipelineError: it cannot be filled in.
    """
    try:
        return Value.of(written).render(scope)
    except ExpressionError as error:
        what = f"`{'.'.join(str(part) for part in (*at, *error.path))}`: {error.message}."
        fault = Fault(what, error.remedy, pipeline.mark((*at, *error.path)))
        raise PipelineError([fault]) from error


@asynccontextmanager
async def group_turn(
    bound: BoundPlan,
    settings: Settings,
    claims: WorkClaims | None,
    run: str,
    stop_gate: StopGate,
    wait: TurnWait,
) -> AsyncIterator[None]:
    """Hold the turn in the run's concurrency group, if it has one; wait for it as its file says.

    A newer run that takes its place closes the stop gate.

    Raises:
        SkippedByGroup: the group is busy, and the file says `skip`.
        Locked: the deadline passed, or the run is stopped.
        LedgerError: PostgreSQL, which knows whose turn it is, cannot be used.
    """
    group = concurrency_group(bound, is_shared=claims is not None)
    if group is None:
        yield
        return
    part: GroupTurn
    if claims is not None:
        part = claims.turn_in(group.name, run)
    else:
        part = FileGroupTurn(Path(settings.state_dir) / GROUP_FOLDER, group.name, run)
    # Its own thread: the default ones may be busy with files for long.
    with ThreadPoolExecutor(1, thread_name_prefix="turn") as thread:
        own = _OwnTurn(part, thread)
        try:
            await own.take(group, wait)
            async with running(own.keep(stop_gate)):
                yield
        finally:
            with suppress(LedgerError):  # then the missing heartbeat releases it
                await own.do(part.leave)


class _OwnTurn:
    """The turn of this run, taken in a thread."""

    def __init__(self, part: GroupTurn, thread: ThreadPoolExecutor) -> None:
        self._part = part
        self._thread = thread

    async def do(self, action: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def take(self, group: ConcurrencyGroup, wait: TurnWait) -> None:
        """Wait until the turn is ours."""

        async def look() -> tuple[LockHolder, str] | None:
            busy: LockHolder | None = await self.do(self._part.take)
            if busy is not None and group.on_conflict == "skip":
                raise SkippedByGroup(
                    f"{busy} of the same group was at work, and `on_conflict` is `skip`: "
                    f"this one is left out."
                )
            if busy is not None and group.on_conflict == "cancel_running":
                await self.do(self._part.request_release)
            return None if busy is None else (busy, "is of the same group")

        await wait.until_free(look)

    async def keep(self, stop_gate: StopGate) -> None:
        """Keep the turn; close the gate once it is another run's."""
        while True:
            await asyncio.sleep(TURN_HEARTBEAT_S)
            with suppress(LedgerError):  # the next record raises it
                if await self.do(self._part.is_lost):
                    stop_gate.close(GIVES_WAY_REASON, "interrupted")
                    return
