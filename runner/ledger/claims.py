"""Who works on which items: decided by PostgreSQL and its clock, never by a machine's.

A participant is a holder that is heard of again and again (from a thread of its own, so that a busy
loop is not taken for a death). What it claims is its own until it lets go or is dead. Blocks;
belongs into threads.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .entries import LedgerError
from .postgres import Link, Server, written

BEATS = 4
"""So often within the time after which it is dead a holder says that it lives."""

SURE = 0.75
"""For this part of that time it need not ask whether its claims are still its own."""

FORGOTTEN_S = 86_400.0

NOW = "extract(epoch from clock_timestamp())::float8"
# A server that was away could hear nobody: then nobody is dead before it has been up long enough.
IS_ALIVE = (
    f"(seen > {NOW} - :dead_s or "
    f"extract(epoch from pg_postmaster_start_time())::float8 > {NOW} - :dead_s)"
)

_INSERT = (
    f"insert into holders (holder, host, pid, run, place, job, seen) "
    f"values (:holder, :host, :pid, :run, :place, :job, {NOW}) "
    f"on conflict (holder) do update set seen = excluded.seen"
)


@dataclass(frozen=True, slots=True)
class Joined:
    """What a participant finds when it joins."""

    job: str
    """Names the work that all participants who are at it at a time do together."""
    n_others: int
    """Living ones at the same place."""


class Claims:
    """One participant's claims."""

    def __init__(
        self,
        server: Server,
        holder: str,
        dead_after_s: float,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.server = server
        self.holder = holder
        self._dead_after_s = dead_after_s
        self._link = Link(server, tell)
        self._beating = Link(server, retry_s=dead_after_s / BEATS)
        self._heard_at = float("-inf")
        self._was_silent = False
        """Whether others may have taken us for dead at some time; then claims are asked for."""
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._row: dict[str, object] = {}
        """What is said of this participant each time that it is heard of."""

    def join(self, place: str, run: str, job: str = "") -> Joined:
        """Become a participant, and begin to be heard of.

        Those who are alive at a place do one job together; it has the name of the first one's run,
        or the one that is given.
        """
        there: list[tuple[str, bool]] = []

        def look(connection: Any) -> None:
            # Those who join at the same moment do so one after the other.
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", [place])
            old = written(f"delete from holders where seen < {NOW} - :old")
            connection.execute(old, {"old": FORGOTTEN_S})
            query = f"select job, {IS_ALIVE} from holders where place = :place order by seen"
            values = {"place": place, "dead_s": self._dead_after_s}
            there[:] = connection.execute(written(query), values).fetchall()
            living = [name for name, is_alive in there if is_alive]
            self._row = self._row_of(place, run, _job(job, living, run))
            connection.execute(written(_INSERT), self._row)

        asked_at = _moment()
        self._link.within(look)
        self._heard_at = asked_at
        living = [name for name, is_alive in there if is_alive]
        job = _job(job, living, run)
        self._thread = threading.Thread(target=self._beat_on, name="claims", daemon=True)
        self._thread.start()
        return Joined(job, len(living))

    def _row_of(self, place: str, run: str, job: str) -> dict[str, object]:
        return {
            "holder": self.holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "run": run,
            "place": place,
            "job": job,
        }

    def _beat_on(self) -> None:
        while not self._is_over.wait(self._dead_after_s / BEATS):
            asked_at = _moment()
            try:
                self._beating.rows(_INSERT, self._row)
            except LedgerError:
                continue  # whoever claims or records next hears it, and says so
            self._heard(asked_at)

    def _heard(self, asked_at: float) -> None:
        """Note that we were heard of; after too long a silence what we held may be others' now."""
        if not self._is_heard(asked_at):
            self._was_silent = True
        self._heard_at = asked_at

    def leave(self) -> None:
        """Let everything go; what was claimed and not finished is anybody's."""
        self._is_over.set()
        self._link.hurry()
        if self._thread is not None:
            self._thread.join()
        try:
            for table in ("claims", "holders"):
                self._link.rows(f"delete from {table} where holder = :me", {"me": self.holder})
        except LedgerError:
            pass  # then they are let go by its death
        finally:
            self._link.close()
            self._beating.close()

    def n_others(self, place: str) -> int:
        """Count the other participants that live at a place."""
        query = (
            f"select count(*) from holders where place = :place and holder <> :me and {IS_ALIVE}"
        )
        values = {"place": place, "me": self.holder, "dead_s": self._dead_after_s}
        return int(self._link.rows(query, values)[0][0])

    def runs_of_others(self, job: str) -> frozenset[str]:
        """Name the runs of the others that live and do a job."""
        query = f"select run from holders where job = :job and holder <> :me and {IS_ALIVE}"
        values = {"job": job, "me": self.holder, "dead_s": self._dead_after_s}
        return frozenset(row[0] for row in self._link.rows(query, values))

    def bury(self, place: str) -> bool:
        """Forget those who died at a place; tells whether there were any."""
        gone = f"delete from holders where place = :place and not {IS_ALIVE} returning holder"
        return bool(self._link.rows(gone, {"place": place, "dead_s": self._dead_after_s}))

    def claim(self, scope: str, keys: Collection[str]) -> frozenset[str]:
        """Claim items, and give the keys that are ours now; the others somebody alive holds."""
        rows = self._link.rows(
            f"insert into claims (scope, key, holder, at) "
            f"select :scope, key, :me, {NOW} from unnest((:keys)::text[]) as wanted (key) "
            f"on conflict (scope, key) do update set holder = excluded.holder, at = excluded.at "
            f"where claims.holder = excluded.holder or not exists (select 1 from holders "
            f"where holders.holder = claims.holder and {IS_ALIVE}) returning key",
            {
                "scope": scope,
                "keys": sorted(keys),
                "me": self.holder,
                "dead_s": self._dead_after_s,
            },
        )
        return frozenset(row[0] for row in rows)

    def release(self, scope: str, keys: Collection[str]) -> None:
        """Let items go."""
        self._link.rows(
            "delete from claims where scope = :scope and key = any((:keys)::text[]) "
            "and holder = :me",
            {"scope": scope, "keys": sorted(keys), "me": self.holder},
        )

    def is_sure(self) -> bool:
        """Tell whether nobody can have taken us for dead, without asking."""
        return not self._was_silent and self._is_heard(_moment())

    def _is_heard(self, at: float) -> bool:
        return at - self._heard_at < SURE * self._dead_after_s

    def holds(self, scope: str, key: str) -> bool:
        """Return whether an item is still ours; from now on others know again that we live.

        Heard of first, and asked then: a machine that has just woken up would otherwise go on with
        an item that another one takes a moment later.
        """
        query = "select 1 from claims where scope = :scope and key = :key and holder = :me"
        values = {"scope": scope, "key": key, "me": self.holder}
        asked_at = _moment()
        self._link.rows(_INSERT, self._row)
        self._heard(asked_at)
        return bool(self._link.rows(query, values))

    def holder_of(self, scope: str, keys: Collection[str]) -> str | None:
        """Name in words who holds the first of these items, for whoever waits for it."""
        rows = self._link.rows(
            "select holders.run, holders.host from claims join holders using (holder) "
            "where scope = :scope and key = any((:keys)::text[]) order by key limit 1",
            {"scope": scope, "keys": sorted(keys)},
        )
        return f"run '{rows[0][0]}' on {rows[0][1]}" if rows else None


def _job(given: str, living: Sequence[str], run: str) -> str:
    return given or (living[0] if living else run)


def _moment() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, where there is one.

    Linux has one of its own. On macOS the system's monotonic clock does, Python's does not.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)
