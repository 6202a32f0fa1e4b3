"""Store of runs: their rows, the items that each did, and which of them died.

A run has died that the ledger calls running although its process is gone; on another machine that
shares the ledger, if PostgreSQL has no session of it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Collection, Sequence
from typing import Any

from paddock.engine.system.hardware import psutil_module
from paddock.engine.system.records import Struct
from paddock.engine.system.units import iso_time

from .database import queries
from .database.sqlite_file import damage_error
from .entries import Entry, ItemRow, RunRow
from .ledger import Ledger
from .run_locks import session_name

DIED = "died"

_CLOCK_TOLERANCE_S = 5.0  # a process starts before its run, but clocks differ


class RunStore(Struct, frozen=True):
    _ledger: Ledger

    def n_runs(self, file: str | None) -> int:
        query = queries.COUNT_RUNS if file is None else queries.COUNT_RUNS_OF_FILE
        rows = self._ledger.rows(query, file=file)  # none without a ledger
        return sum(int(n_runs) for (n_runs,) in rows)

    def run_names(self) -> frozenset[str]:
        return frozenset(row[0] for row in self._ledger.rows(queries.RUN_NAMES))

    def last_summary(self, file: str) -> dict[str, Any] | None:
        for row in self._ledger.rows(queries.LAST_SUMMARIES, file=file):
            summary = json.loads(row[0])
            if summary.get("calls"):
                return dict(summary)
        return None

    def record_run(self, row: dict[str, Any]) -> None:
        new = dict.fromkeys(RunRow.__match_args__) | {"trigger": "hand", "attempt": 1}
        self._ledger.put("runs", new | row)

    def runs(
        self, limit: int = 100, *, file: str | None = None, before: float | None = None
    ) -> list[RunRow]:
        query = queries.LATEST_RUNS if file is None else queries.LATEST_RUNS_OF_FILE
        return self._runs(query, file=file, before=before, limit=limit)

    def run(self, name: str) -> RunRow | None:
        return next(iter(self._runs(queries.RUN, run=name)), None)

    def _runs(
        self, query: str, parents: Collection[str] | None = None, **values: Any
    ) -> list[RunRow]:
        found = self._ledger.rows_of_keys(query, parents, "parent", **values)
        rows = [RunRow(*row) for row in found]
        for row in rows:  # it is read where the ledger may be closed
            try:
                json.loads(row.summary or "{}")
                json.loads(row.given or "{}")
                for at in (row.started, row.started if row.ended is None else row.ended):
                    iso_time(at)
            except (ValueError, TypeError, OverflowError, OSError) as error:
                damage = f"run '{row.run}' is damaged: {error}"
                raise damage_error(self._ledger.file, damage) from error
        return rows

    def runs_that_continue(self, jobs: Sequence[str]) -> list[RunRow]:
        return sorted(self._runs(queries.RUNS_OF_PARENTS, jobs), key=lambda row: row.started)

    def runs_of(self, job: str) -> frozenset[str]:
        return frozenset(row[0] for row in self._ledger.rows(queries.RUNS_OF_JOB, job=job))

    def running_without_items_begun(self, since: float) -> list[RunRow]:
        return self._runs(queries.RUNNING_WITHOUT_ITEMS_BEGUN, since=since)

    def running(self) -> list[RunRow]:
        return self._runs(queries.RUNNING)

    def has_progressed(self, run: str) -> bool:
        """Return whether a run recorded an item, or its crash tells more of what crashes runs."""
        if self._ledger.rows(queries.HAS_ITEM_OF_RUN, run=run):
            return True
        were_suspects = [bool(row[0]) for row in self._ledger.rows(queries.SUSPECTS, run=run)]
        return len(were_suspects) == 1 or (bool(were_suspects) and all(were_suspects))

    def reserve_run(self, run: str, pipeline: str, file: str) -> bool:
        """Reserve a run's name among machines; return False if it is taken."""
        started = time.time()
        return self._ledger.reserve_run(run=run, pipeline=pipeline, file=file, started=started)

    def items_of(self, run: str, *, quarantined_before: str | None = None) -> list[ItemRow]:
        """Return the items whose latest record is of this run, by step and key.

        `quarantined_before`, a pipeline's file: its items that were quarantined before this run,
        which therefore did not try them.
        """
        is_of_run = quarantined_before is None
        query = queries.ITEMS_OF_RUN if is_of_run else queries.QUARANTINED_BEFORE_RUN
        rows = self._ledger.rows(query, run=run, file=quarantined_before)
        return [ItemRow(row[0], row[1] or "", Entry(*row[2:])) for row in rows]


def run_status(row: RunRow, ledger: Ledger) -> str:
    """Return a run's status, `died` for a running one without a process."""
    if row.status != "running":
        return row.status
    if row.host not in (None, socket.gethostname()):
        return DIED if ledger.has_ended(session_name(row.run)) else row.status
    return "running" if row.pid is not None and is_process_alive(row.pid, row.started) else DIED


def is_process_alive(pid: int, started: float) -> bool:
    psutil = psutil_module()
    try:
        process = psutil.Process(pid)
        is_old_enough = process.create_time() <= started + _CLOCK_TOLERANCE_S
        return bool(is_old_enough and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
