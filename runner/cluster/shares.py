"""What becomes of a job's shares, each a flow run on some worker: who is asked next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paddock.runner.border import ASKED
from paddock.runner.restarts import again

HELP_AFTER_S = 10.0
"""So long a job is one machine's; a share costs a machine 4 s of its processor to begin."""

MOST_SHARES = 32

Phase = Literal["waiting", "running", "ended"]


@dataclass(frozen=True, slots=True)
class Share:
    """One flow run of a job, as Prefect has it."""

    id: str
    number: int
    attempt: int
    phase: Phase
    state: str = ""
    """The name of its state."""
    message: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it has walked the whole plan: then the job is done, whoever did what of it."""
        return self.phase == "ended" and self.state in ("Completed", "Quarantined")

    @property
    def is_spent(self) -> bool:
        """Whether it stopped at an item's border since the budget is used up."""
        is_border = self.phase == "ended" and self.state == "Budget"
        return is_border and not self.was_sent_away

    @property
    def was_sent_away(self) -> bool:
        """Whether its worker was ended, which says nothing about the job."""
        return self.phase == "ended" and (
            self.message.startswith(ASKED) or (self.state == "Cancelled" and self._was_interrupted)
        )

    @property
    def _was_interrupted(self) -> bool:
        return self.message.startswith("Interrupted")


@dataclass(frozen=True, slots=True)
class Begin:
    """Ask for a share."""

    number: int
    attempt: int
    instead_of: str
    """The flow run that it goes on with; empty for a new one."""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Over:
    """The job is over."""

    status: Literal["completed", "failed", "budget", "interrupted"]
    message: str


def decide(
    shares: Sequence[Share],
    *,
    n_wanted: int | None,
    n_online: int,
    elapsed_s: float,
    max_restarts: int,
) -> Over | list[Begin]:
    """Tell what to do about a job: it is over, or these shares are asked for.

    `n_wanted` is how many machines were asked for, None for as many as there are, once the job has
    gone on for a while.
    """
    latest = _latest(shares)
    done = next((share for share in latest if share.is_done), None)
    if done is not None:
        return Over("completed", done.message)
    begins: list[Begin] = []
    is_alive = False
    for share in latest:
        if share.phase != "ended":
            is_alive = True
            continue
        next_ = _again(share, max_restarts)
        if next_ is not None:
            begins.append(next_)
    n = n_wanted or (1 if elapsed_s < HELP_AFTER_S else max(1, min(n_online, MOST_SHARES)))
    if any(share.is_spent for share in latest):  # it is the budget of all
        return [] if is_alive else _end(latest)
    there = {share.number for share in latest}
    begins += [Begin(number, 1, "") for number in range(1, n + 1) if number not in there]
    if is_alive or (begins and not _has_failed(latest)):
        return begins
    return _end(latest)


def _latest(shares: Sequence[Share]) -> list[Share]:
    """Give each share's last attempt, by number."""
    found: dict[int, Share] = {}
    for share in shares:
        found[share.number] = share
    return [found[number] for number in sorted(found)]


def _again(share: Share, max_restarts: int) -> Begin | None:
    if share.was_sent_away:
        return Begin(share.number, share.attempt, share.id)
    if share.state != "Crashed":
        return None
    once_more = again(share.attempt, max_restarts)
    if once_more is None:
        return None
    return Begin(share.number, once_more.attempt, share.id, once_more.pause_s)


def _has_failed(shares: Sequence[Share]) -> bool:
    return any(share.phase == "ended" and share.state == "Failed" for share in shares)


def _end(shares: Sequence[Share]) -> Over:
    for state, status in (("Failed", "failed"), ("Budget", "budget"), ("Cancelled", "interrupted")):
        for share in shares:
            if share.state == state:
                return Over(status, share.message)  # type: ignore[arg-type]
    crashed = shares[0]
    return Over("failed", f"it crashed {crashed.attempt} times: {crashed.message}")
