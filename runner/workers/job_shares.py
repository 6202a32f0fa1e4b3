"""Shares of a job that machines do together: how many start, and when the job is over. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Literal

from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.progress.prefect_view import REFUSED, SENT_AWAY

from .run_restarts import next_restart

HELP_AFTER_S = 4.0
"""For this long a job of `paddock up` stays on one machine: most have few items, and a share costs
1 s of processor time to begin, 0.4 s of it in Prefect's server."""

MOST_SHARES = 32

SharePhase = Literal["waiting", "running", "ended"]
ShareOutcome = Literal[
    "open", "done", "sent away", "refused", "spent", "cancelled", "crashed", "failed"
]
_OUTCOMES: Mapping[str, ShareOutcome] = {
    "Budget": "spent", "Cancelled": "cancelled", "Crashed": "crashed", REFUSED: "refused",
    SENT_AWAY: "sent away",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobShare:
    """One flow run of a job in Prefect."""

    id: str
    number: int
    attempt: int
    phase: SharePhase
    state: str = ""
    """The name of its state."""
    message: str = ""
    machine: str = ""
    """The worker that has taken it."""
    is_suspended: bool = False
    has_progressed: bool = False
    """For a crash: it made progress before, or is known to have died of one item."""

    @property
    def outcome(self) -> ShareOutcome:
        """How it ended, if it has.

        "done" has finished the whole plan, "spent" has used up the budget, a person has "cancelled"
        it. "sent away": its worker was stopped, which says nothing about the job. "refused": its
        machine has taken no item, since it lacks something or sees something else than the others.
        """
        if self.phase != "ended":
            return "open"
        if self.state in ("Completed", "Quarantined"):
            return "done"
        return _OUTCOMES.get(self.state, "failed")


@dataclass(frozen=True, slots=True)
class StartShare:
    """Start a share."""

    number: int
    attempt: int
    instead_of: str
    """The flow run that it continues; empty for a new one."""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The job is over."""

    status: Literal["completed", "failed", "budget", "interrupted"]
    message: str


def decide_shares(
    shares: Sequence[JobShare],
    *,
    n_requested: int | None,
    online: Collection[str],
    is_early: bool,
    max_restarts: int,
    n_at_work: int = 0,
) -> JobEnd | list[StartShare]:
    """Return what to do about a job: it is over, or these shares must start.

    `n_requested` is the number of machines; None: all that are online, or one while it `is_early`.
    `n_at_work` are machines that still have items, such as documents that came while others were at
    the end: a share that is done ends the job only when there are none. A machine that has refused
    the job does not get it again, and it is over once all have.
    """
    last_attempts = {share.number: share for share in sorted(shares, key=attrgetter("number"))}
    latest = [*last_attempts.values()]
    first = {share.outcome: share for share in reversed(latest)}
    if "done" in first and not n_at_work:
        return JobEnd("completed", first["done"].message)
    if {"cancelled", "open"} <= first.keys():
        return JobEnd("interrupted", first["cancelled"].message)
    refused = {share.machine: share.message for share in shares if share.outcome == "refused"}
    able = set(online) - refused.keys()
    if refused and online and not able and all(share.phase != "running" for share in latest):
        return JobEnd("failed", "\n".join(refused.values()))
    n = n_requested or (1 if is_early else max(1, min(len(able), MOST_SHARES)))
    starts: list[StartShare] = []
    if not {"spent", "done"} & first.keys():  # all shares have one budget
        for share in latest:
            if share.outcome in ("sent away", "refused"):
                starts.append(StartShare(share.number, share.attempt, share.id))
            elif share.outcome == "crashed":
                got_on = share.has_progressed
                if again := next_restart(share.attempt, max_restarts, has_progressed=got_on):
                    starts.append(StartShare(share.number, again.attempt, share.id, again.pause_s))
        new = (number for number in range(1, n + 1) if number not in last_attempts)
        starts += [StartShare(number, 1, "") for number in new]
    has_failed = any(share.state == "Failed" for share in latest)
    if "open" in first or (starts and not has_failed):
        return starts
    for state, status in (("Failed", "failed"), ("Budget", "budget"), ("Cancelled", "interrupted")):
        for share in latest:
            if share.state == state:
                return JobEnd(status, share.message)  # type: ignore[arg-type]
    crashed = latest[0]
    return JobEnd("failed", f"it crashed {crashed.attempt} times: {crashed.message}")
