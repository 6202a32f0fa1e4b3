"""Whose turn it is in a group: one run of it works at a time, whoever started it.

On one machine a lock in the state folder says so; where the ledger is in PostgreSQL, that database
does, for all machines that use it. Runs that machines do together have one turn together.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value

from .border import Border
from .freshness import canonical
from .ledger.entries import LedgerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddock.pipelines.tree import Pipeline

    from .binding.bound import BoundPlan
    from .ledger.locks import Holder
    from .settings import Settings
    from .shares import Shares

FOLDER = "groups"
POLL_S = 0.5
BEAT_S = 2.0

GIVES_WAY = "A newer run of its group takes its place"


class Turn(Protocol):
    """One run's part in a group. Blocks."""

    def take(self) -> Holder | None:
        """Take the turn; gives who has it, None where it is ours now."""
        ...

    def ask_to_leave(self) -> None:
        """Ask those who began before us to make room."""
        ...

    def is_lost(self) -> bool:
        """Be heard of; tells whether a newer one wants the turn, or has it."""
        ...

    def leave(self) -> None:
        """Let it go."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """The group of a run: a name that shows nothing of what it was made of, and its rule."""

    name: str
    on_conflict: str


def group_of(bound: BoundPlan) -> Group | None:
    """Give a run's group; None where nothing but the same folders would exclude another.

    Raises:
        PipelineError: the name cannot be made.
    """
    rule: Any = bound.pipeline.concurrency
    if rule is None or (rule.group is None and rule.on_conflict == "queue"):
        return None
    scope = {"inputs": bound.inputs}
    if rule.group is not None:
        written = str(rendered(bound.pipeline, rule.group, scope, ("concurrency", "group")))
    else:
        written = canonical([str(bound.file), _places(bound)])
    return Group(hashlib.sha256(written.encode()).hexdigest()[:32], rule.on_conflict)


def _places(bound: BoundPlan) -> dict[str, str]:
    kinds = bound.input_types
    return {n: str(v) for n, v in bound.inputs.items() if kinds.get(n) in ("dir", "path")}


def rendered(
    pipeline: Pipeline, written: Any, scope: Mapping[str, Any], at: tuple[str | int, ...]
) -> Any:
    """Fill in what stands at `at` outside of the steps.

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
async def turn(
    bound: BoundPlan,
    settings: Settings,
    shares: Shares | None,
    run: str,
    border: Border,
    *,
    deadline_s: float | None,
    is_over: Callable[[], bool],
    note: Callable[[str], None],
) -> AsyncIterator[None]:
    """Have the turn in the run's group, if it has one; wait for it as its file says.

    A newer run that takes its place closes the border.

    Raises:
        LeftOut: the group is busy, and the file says `skip`.
        Locked: the deadline passed, or `is_over` says that nobody wants to wait any more.
        LedgerError: PostgreSQL, which knows whose turn it is, cannot be used.
    """
    group = group_of(bound)
    if group is None:
        yield
        return
    part = _part(group, settings, shares, run)
    # A thread of its own: files may keep the others busy for as long as they like.
    with ThreadPoolExecutor(1, thread_name_prefix="turn") as thread:
        own = _Own(part, thread)
        try:
            await own.taken(group, deadline_s, is_over, note)
            keeping = asyncio.create_task(own.kept(border))
            try:
                yield
            finally:
                keeping.cancel()
        finally:
            with suppress(LedgerError):  # then its silence lets it go
                await own.do(part.leave)


def _part(group: Group, settings: Settings, shares: Shares | None, run: str) -> Turn:
    if shares is not None:
        return shares.turn_in(group.name, run, settings.unattended.dead_after_s)
    from .ledger.locks import FileTurn  # filelock takes 0.05 s to import

    return FileTurn(Path(settings.state_dir) / FOLDER, group.name, run)


class _Own:
    """The turn of this run, asked for in a thread."""

    def __init__(self, part: Turn, thread: ThreadPoolExecutor) -> None:
        self._part = part
        self._thread = thread

    async def do(self, action: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def taken(
        self,
        group: Group,
        deadline_s: float | None,
        is_over: Callable[[], bool],
        note: Callable[[str], None],
    ) -> None:
        """Wait until the turn is ours."""
        from .ledger.locks import LeftOut, Locked

        began, told = time.monotonic(), ""
        while (busy := await self.do(self._part.take)) is not None:
            if group.on_conflict == "skip":
                raise LeftOut(
                    f"{busy} of the same group was at work, and `on_conflict` is `skip`: "
                    f"this one is left out."
                )
            if group.on_conflict == "cancel_running":
                await self.do(self._part.ask_to_leave)
            if told != str(busy):
                told = str(busy)
                note(f"waiting for {told}, which is of the same group")
            if is_over():
                raise Locked("Interrupted while waiting for another run.")
            if deadline_s is not None and time.monotonic() - began > deadline_s:
                raise Locked(
                    f"{busy} is of the same group and did not end within {deadline_s:g} s. "
                    f"Wait for it, or end it."
                )
            await asyncio.sleep(POLL_S)

    async def kept(self, border: Border) -> None:
        """Keep the turn; close the border once it is another's."""
        while True:
            await asyncio.sleep(BEAT_S)
            with suppress(LedgerError):  # whoever records next hears it, and says so
                if await self.do(self._part.is_lost):
                    border.close(GIVES_WAY, "interrupted")
                    return
