"""The runs that there were and are, of several ledgers together, the newest first.

A run that is said to go on while its process is gone has died, and so has one of another machine
that shares the ledger and gives no sign of life. Of others nobody knows more than the ledger says.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paddock.runner.ledger.entries import ItemRow, LedgerError, RunRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.settings import read_settings

from .places import Place

DIED = "died"
BAD = ("failed", "quarantined", "interrupted", "budget", DIED)
MOST_LOOKED_AT = 100_000  # for those of one file, or that failed
SILENT_S = 180.0  # machines that share a ledger give a sign every 30 s
_CLOCK_S = 5.0  # a process is no later than the run that it began, but for how clocks are read


@dataclass(frozen=True, slots=True)
class Past:
    """One run of one ledger."""

    place: Place
    row: RunRow
    status: str
    """As recorded, or `died`."""

    @property
    def journal(self) -> Path:
        """What it wrote down, if it is still there."""
        return self.place.state / "runs" / f"{self.row.run}.jsonl"

    @property
    def traces(self) -> Path:
        """The tracebacks of its unexpected errors, if there were any."""
        return self.place.state / "runs" / f"{self.row.run}.log"

    @property
    def summary(self) -> Mapping[str, Any]:
        """Its report, without the items; empty while it runs."""
        try:
            found = json.loads(self.row.summary or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def message(self) -> str | None:
        """Why it stopped early."""
        if self.status == DIED:
            return "Its process is gone; the same command continues."
        told = self.row.message or self.summary.get("message")
        return str(told) if told else None

    def as_json(self) -> dict[str, Any]:
        """Give the keys that machines read."""
        row, summary = self.row, self.summary
        return {
            "run": row.run,
            "pipeline": row.pipeline,
            "file": str(self.place.folder / row.file),
            "status": self.status,
            "trigger": row.trigger,
            "host": row.host,
            "pid": row.pid,
            "attempt": row.attempt,
            "started": _iso(row.started),
            "ended": _iso(row.ended),
            "seconds": summary.get("seconds"),
            "counts": summary.get("counts"),
            "calls": summary.get("calls"),
            "tokens": summary.get("tokens"),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class History:
    """What was found; `faults` say which ledgers could not be read."""

    runs: tuple[Past, ...]
    faults: tuple[str, ...] = ()


def history(places: Iterable[Place], *, limit: int, failed_only: bool = False) -> History:
    """Give the latest runs of all ledgers, the newest first; none is written to."""
    found: list[Past] = []
    faults: list[str] = []
    for place in places:
        try:
            with reading(place) as ledger:
                found += _runs(place, ledger, limit, failed_only=failed_only)
        except LedgerError as error:
            faults.append(str(error))
    found.sort(key=lambda past: past.row.started, reverse=True)
    return History(tuple(found[:limit]), tuple(faults))


def named(places: Iterable[Place], name: str) -> History:
    """Give the runs of this name, the newest first: each ledger may have one."""
    found: list[Past] = []
    faults: list[str] = []
    for place in places:
        try:
            with reading(place) as ledger:
                row = ledger.run(name)
                status = status_of(row, ledger) if row is not None else ""
        except LedgerError as error:
            faults.append(str(error))
            continue
        if row is not None and place.file in (None, row.file):
            found.append(Past(place, row, status))
    found.sort(key=lambda past: past.row.started, reverse=True)
    return History(tuple(found), tuple(faults))


def names(places: Iterable[Place]) -> frozenset[str]:
    """Give the names of all runs, to say which may be meant."""
    found: set[str] = set()
    for place in places:
        try:
            with reading(place) as ledger:
                found |= ledger.run_names()
        except LedgerError:
            continue
    return frozenset(found)


def items(past: Past) -> list[ItemRow]:
    """Give the items that this run was the last to record.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with reading(past.place) as ledger:
        return ledger.items_of(past.row.run)


def status_of(row: RunRow, ledger: Ledger) -> str:
    """Tell how a run ended; one that goes on in a process that is gone has died."""
    if row.status != "running":
        return row.status
    if row.host not in (None, socket.gethostname()):
        return DIED if ledger.is_shared and _is_silent(row, ledger) else row.status
    return "running" if row.pid is not None and is_there(row.pid, row.started) else DIED


def _is_silent(row: RunRow, ledger: Ledger) -> bool:
    """Tell whether another machine's run has long given no sign of life."""
    since = time.time() - SILENT_S
    return row.started < since and not ledger.is_heard_of(row.run, since)


def is_there(pid: int, started: float) -> bool:
    """Tell whether the process is there, and not a later one that was given its number."""
    import psutil

    try:
        process = psutil.Process(pid)
        is_old_enough = process.create_time() <= started + _CLOCK_S
        return bool(is_old_enough and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def _runs(place: Place, ledger: Ledger, limit: int, *, failed_only: bool) -> Iterator[Past]:
    """Give the latest runs of one ledger; the file and the dead are sorted out here."""
    is_choosy = failed_only or place.file is not None
    n_found = 0
    for row in ledger.runs(MOST_LOOKED_AT if is_choosy else limit):
        status = status_of(row, ledger)
        if place.file not in (None, row.file) or (failed_only and status not in BAD):
            continue
        yield Past(place, row, status)
        n_found += 1
        if n_found == limit:
            return


@contextmanager
def reading(place: Place) -> Iterator[Ledger]:
    """Open a ledger to read."""
    url = read_settings(place.folder).ledger_url
    with Ledger(place.state, is_readonly=True, url=url) as ledger:
        yield ledger


def _iso(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
