"""Whose turn it is in a group, among machines: decided by PostgreSQL and its clock. Blocks.

A job has the turn, not a run: machines that do one together have it together. Whoever is not heard
of for too long has lost it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from .claims import BEATS, IS_ALIVE, NOW
from .common import prepare
from .locks import Holder
from .postgres import Link, Server, written

_TAKE = (
    f"insert into paddock_runs.turns (holder, name, job, run, host, pid, began, seen) "
    f"values (:holder, :name, :job, :run, :host, :pid, :began, {NOW}) "
    f"on conflict (holder) do update set seen = excluded.seen"
)
_OTHERS = (
    f"select run, host, pid, began from paddock_runs.turns "
    f"where name = :name and job <> :job and {IS_ALIVE} order by began limit 1"
)
_GONE = f"delete from paddock_runs.turns where name = :name and not {IS_ALIVE}"
_UNWANTED = (
    "update paddock_runs.turns set is_unwanted = true "
    "where name = :name and job <> :job and began < :began"
)
_BEAT = f"update paddock_runs.turns set seen = {NOW} where holder = :holder returning is_unwanted"


class SharedTurn:
    """One participant's part in a group. Implements `paddock.runner.turns.Turn`."""

    def __init__(
        self, server: Server, name: str, holder: str, job: str, run: str, dead_after_s: float
    ) -> None:
        self._link = Link(server)
        self._values: dict[str, Any] = {
            "name": name, "holder": holder, "job": f"{server.schema}:{job}", "run": run,
            "host": socket.gethostname(), "pid": os.getpid(), "dead_s": dead_after_s,
        }  # fmt: skip
        self._has_it = False

    def take(self) -> Holder | None:
        """Take the turn; gives who has it, None where it is ours now.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        if "began" not in self._values:
            prepare(self._link)
            self._values["began"] = float(self._link.rows(f"select {NOW}", {})[0][0])
        found: list[Any] = []

        def look(connection: Any) -> None:
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", [self._values["name"]])
            connection.execute(written(_GONE), self._values)
            found[:] = connection.execute(written(_OTHERS), self._values).fetchall()
            if not found:
                connection.execute(written(_TAKE), self._values)

        self._link.within(look)
        self._has_it = not found
        if self._has_it:  # whoever ends waits for the beat that is under way
            self._link.hurry(self._values["dead_s"] / BEATS)
        return Holder(*found[0]) if found else None

    def ask_to_leave(self) -> None:
        """Ask those who began before us to make room."""
        self._link.rows(_UNWANTED, self._values)

    def is_lost(self) -> bool:
        """Be heard of; tells whether somebody newer wants the turn, or has it since we were silent.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        rows = self._link.rows(_BEAT, self._values)
        return bool(rows[0][0]) if rows else self.take() is not None

    def leave(self) -> None:
        """Let it go."""
        self._link.hurry()
        try:
            if self._has_it:
                gone = "delete from paddock_runs.turns where holder = :holder"
                self._link.rows(gone, self._values)
        finally:
            self._link.close()
