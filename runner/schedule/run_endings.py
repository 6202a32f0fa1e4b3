"""What follows the end of a triggered run: it is started again after a crash, or not.

That is decided by a pure function; `StartRecords` keeps what it needs to know over the end of
`paddock up`.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system import files
from paddock.engine.system.light_dataclasses import asdict, dataclass, replace
from paddock.runner.workers.run_restarts import next_restart

StopReason = Literal["window", "cancelled", "suspended", "shutdown"]
_NOT_FINISHED = ("interrupted", "budget", "suspended")


@dataclass(frozen=True, slots=True)
class RunEnding:
    """How a process ended, and what it was asked before."""

    attempt: int
    crash: str | None = None
    """How it died; None: it reported its end."""
    status: str = "failed"
    """A report's status, or `failed` where an error ended it."""
    stopped: StopReason | None = None
    """Why it was asked to stop, if it was."""
    has_progressed: bool = False
    """For a crash: it made progress before, or is known to have died of one item."""


@dataclass(frozen=True, slots=True)
class NoRestart:
    """No restart; `is_given_up`: it crashed once too often."""

    is_given_up: bool = False


@dataclass(frozen=True, slots=True)
class RestartRun:
    """Restart it."""

    at: datetime
    attempt: int
    words: str


def after_ending(ending: RunEnding, now: datetime, *, max_restarts: int) -> NoRestart | RestartRun:
    has_finished = ending.crash is None and ending.status not in _NOT_FINISHED
    if has_finished or ending.stopped == "cancelled":
        return NoRestart()
    if ending.stopped == "window":
        # Due at once: it is held as all runs are, and may continue when the file changes.
        return RestartRun(now, ending.attempt, "continues in its window")
    if ending.stopped == "shutdown":
        return RestartRun(now, ending.attempt, "continues after the end of `paddock up`")
    if ending.crash is None:
        return NoRestart()
    restart = next_restart(ending.attempt, max_restarts, has_progressed=ending.has_progressed)
    if restart is None:
        return NoRestart(is_given_up=True)
    words = f"{ending.crash}; start {restart.attempt} of at most {max_restarts + 1}"
    return RestartRun(now + timedelta(seconds=restart.pause_s), restart.attempt, words)


@dataclass(frozen=True, slots=True)
class StartRecord:
    """The last start of a flow run."""

    attempt: int = 1
    """The number of starts since the run's last progress, from 1."""
    mark: str = ""
    """Of its process; empty until that is there."""
    run: str = ""
    """Its name in the ledger, once it is known."""
    is_stopped: bool = False
    """It was at work when `paddock up` was asked to end, so a killed process is no crash."""


class StartRecords:
    """The starts of runs that have not ended, by flow run, in a file of this machine.

    Prefect may be others', so no process is signalled by what a flow run says.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._records: dict[str, StartRecord] = {}
        for id_, facts in files.read_json_object(file).items():
            with suppress(TypeError):  # of another version
                self._records[id_] = StartRecord(**facts)

    def get(self, id_: str) -> StartRecord | None:
        return self._records.get(id_)

    def note(self, id_: str, **changes: Any) -> StartRecord:
        """Change what is known of a run's start, on the disk too."""
        record = self._records[id_] = replace(self._records.get(id_) or StartRecord(), **changes)
        self._write()
        return record

    def forget(self, ids: Collection[str]) -> None:
        if found := self._records.keys() & set(ids):
            for id_ in found:
                del self._records[id_]
            self._write()

    def _write(self) -> None:
        with suppress(OSError):  # a full disk: what runs goes on
            facts = {id_: asdict(record) for id_, record in self._records.items()}
            files.write_json_atomically(self._file, facts)
