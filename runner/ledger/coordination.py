"""Coordination of machines in PostgreSQL.

Item claims, concurrency groups, shared budgets, signing key. Blocks. Decided by the database and
its clock, never by a machine's. A participant sends heartbeats from a thread of its own, so that a
busy event loop is not taken for a crash; what it claims is its own until it releases it or its
heartbeats stop. Groups, budgets and the key lie in a schema of the whole database
(`paddock_runs`); all but the key live only as long as the runs they are about, so that schema
needs no version.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .budget import Spent
from .entries import LedgerError
from .postgres import OPEN_S, PostgresConnection, PostgresServer, postgres_server, psycopg_query
from .run_locks import LockHolder

_IS_MADE = "select to_regclass('paddock_runs.keys') is not null"

_STATEMENTS = (
    "create schema if not exists paddock_runs",
    "create table if not exists paddock_runs.turns ("
    "holder text primary key, name text not null, job text not null, run text not null, "
    "host text not null, pid integer not null, began float8 not null, seen float8 not null, "
    "is_unwanted boolean not null default false)",
    "create index if not exists turns_name on paddock_runs.turns (name)",
    "create table if not exists paddock_runs.spent ("
    "job text not null, run text not null, began float8 not null, at float8 not null, "
    "tokens bigint not null default 0, n_ended bigint not null default 0, "
    "n_in_flight bigint not null default 0, primary key (job, run))",
    "create table if not exists paddock_runs.keys (name text primary key, value text not null)",
)
_SIGNING = "signing"


def prepare_runs_schema(link: PostgresConnection) -> None:
    """Make what is not there yet; one machine at a time. Blocks.

    Raises:
        LedgerError: the server cannot be reached, or gives no rights.
    """
    if link.rows(_IS_MADE, {})[0][0]:
        return

    def make(connection: Any) -> None:
        connection.execute("select pg_advisory_xact_lock(hashtext('paddock_runs'))")
        for statement in _STATEMENTS:
            connection.execute(statement)

    link.within(make)


def signing_key(url: str) -> str:
    """Return the key that signs runs in Prefect's queue, one for a database. Blocks.

    Raises:
        LedgerError: the server cannot be reached, or gives no rights.
    """
    link = PostgresConnection(postgres_server(url, ""), retry_s=OPEN_S)
    try:
        prepare_runs_schema(link)
        made = {"name": _SIGNING, "value": secrets.token_urlsafe(32)}
        link.rows(
            "insert into paddock_runs.keys (name, value) values (:name, :value) "
            "on conflict (name) do nothing",
            made,
        )
        found = link.rows("select value from paddock_runs.keys where name = :name", made)
        return str(found[0][0])
    finally:
        link.close()


HEARTBEATS_A_LEASE = 4
"""So often within the time after which it is dead a holder says that it lives."""

SURE_SHARE = 0.75
"""For this part of that time it need not ask whether its claims are still its own."""

CLAIM_FORGOTTEN_S = 86_400.0

SERVER_NOW = "extract(epoch from clock_timestamp())::float8"
# A server that was away could hear nobody: then nobody is dead before it has been up long enough.
IS_ALIVE = (
    f"(seen > {SERVER_NOW} - :dead_s or "
    f"extract(epoch from pg_postmaster_start_time())::float8 > {SERVER_NOW} - :dead_s)"
)

_INSERT_HOLDER = (
    f"insert into holders (holder, host, pid, run, place, job, seen) "
    f"values (:holder, :host, :pid, :run, :place, :job, {SERVER_NOW}) "
    f"on conflict (holder) do update set seen = excluded.seen"
)


@dataclass(frozen=True, slots=True)
class JoinedJob:
    """What a participant finds when it joins."""

    job: str
    """Names the work that all participants who are at it at a time do together."""
    n_others: int
    """Living ones at the same place."""


class Claims:
    """One participant's claims."""

    def __init__(
        self,
        server: PostgresServer,
        holder: str,
        dead_after_s: float,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.server = server
        self.holder = holder
        self._dead_after_s = dead_after_s
        self._link = PostgresConnection(server, tell)
        self._beating = PostgresConnection(server, retry_s=dead_after_s / HEARTBEATS_A_LEASE)
        self._heard_at = float("-inf")
        self._was_silent = False
        """Whether others may have taken us for dead at some time; then claims are asked for."""
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._row: dict[str, object] = {}
        """What is said of this participant each time that it is heard of."""

    def join(self, place: str, run: str, job: str = "") -> JoinedJob:
        """Become a participant, and begin to be heard of.

        Those who are alive at a place do one job together; it has the name of the first one's run,
        or the one that is given.
        """
        there: list[tuple[str, bool]] = []

        def look(connection: Any) -> None:
            # Those who join at the same moment do so one after the other.
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", [place])
            old = psycopg_query(f"delete from holders where seen < {SERVER_NOW} - :old")
            connection.execute(old, {"old": CLAIM_FORGOTTEN_S})
            query = f"select job, {IS_ALIVE} from holders where place = :place order by seen"
            values = {"place": place, "dead_s": self._dead_after_s}
            there[:] = connection.execute(psycopg_query(query), values).fetchall()
            living = [name for name, is_alive in there if is_alive]
            self._row = self._row_of(place, run, _job_name(job, living, run))
            connection.execute(psycopg_query(_INSERT_HOLDER), self._row)

        asked_at = _monotonic_s()
        self._link.within(look)
        self._heard_at = asked_at
        living = [name for name, is_alive in there if is_alive]
        job = _job_name(job, living, run)
        self._thread = threading.Thread(target=self._beat_on, name="claims", daemon=True)
        self._thread.start()
        return JoinedJob(job, len(living))

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
        while not self._is_over.wait(self._dead_after_s / HEARTBEATS_A_LEASE):
            asked_at = _monotonic_s()
            try:
                self._beating.rows(_INSERT_HOLDER, self._row)
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
            f"select :scope, key, :me, {SERVER_NOW} from unnest((:keys)::text[]) as wanted (key) "
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
        """Return whether nobody can have taken us for dead, without asking."""
        return not self._was_silent and self._is_heard(_monotonic_s())

    def _is_heard(self, at: float) -> bool:
        return at - self._heard_at < SURE_SHARE * self._dead_after_s

    def holds(self, scope: str, key: str) -> bool:
        """Return whether an item is still ours; from now on others know again that we live.

        Heard of first, and asked then: a machine that has just woken up would otherwise go on with
        an item that another one takes a moment later.
        """
        query = "select 1 from claims where scope = :scope and key = :key and holder = :me"
        values = {"scope": scope, "key": key, "me": self.holder}
        asked_at = _monotonic_s()
        self._link.rows(_INSERT_HOLDER, self._row)
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


def _job_name(given: str, living: Sequence[str], run: str) -> str:
    return given or (living[0] if living else run)


def _monotonic_s() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, where there is one.

    Linux has one of its own. On macOS the system's monotonic clock does, Python's does not.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


_TAKE_GROUP = (
    f"insert into paddock_runs.turns (holder, name, job, run, host, pid, began, seen) "
    f"values (:holder, :name, :job, :run, :host, :pid, :began, {SERVER_NOW}) "
    f"on conflict (holder) do update set seen = excluded.seen"
)
_OTHER_HOLDERS = (
    f"select run, host, pid, began from paddock_runs.turns "
    f"where name = :name and job <> :job and {IS_ALIVE} order by began limit 1"
)
_DROP_DEAD_HOLDERS = f"delete from paddock_runs.turns where name = :name and not {IS_ALIVE}"
_ASK_TO_LEAVE = (
    "update paddock_runs.turns set is_unwanted = true "
    "where name = :name and job <> :job and began < :began"
)
_GROUP_HEARTBEAT = f"update paddock_runs.turns set seen = {SERVER_NOW} where holder = :holder returning is_unwanted"


class PostgresGroupTurn:
    """One participant's part in a group. Implements `paddock.runner.core.concurrency.GroupTurn`."""

    def __init__(
        self,
        server: PostgresServer,
        name: str,
        holder: str,
        job: str,
        run: str,
        dead_after_s: float,
    ) -> None:
        self._link = PostgresConnection(server)
        self._values: dict[str, Any] = {
            "name": name, "holder": holder, "job": f"{server.schema}:{job}", "run": run,
            "host": socket.gethostname(), "pid": os.getpid(), "dead_s": dead_after_s,
        }  # fmt: skip
        self._has_it = False

    def take(self) -> LockHolder | None:
        """Take the turn; gives who has it, None where it is ours now.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        if "began" not in self._values:
            prepare_runs_schema(self._link)
            self._values["began"] = float(self._link.rows(f"select {SERVER_NOW}", {})[0][0])
        found: list[Any] = []

        def look(connection: Any) -> None:
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", [self._values["name"]])
            connection.execute(psycopg_query(_DROP_DEAD_HOLDERS), self._values)
            found[:] = connection.execute(psycopg_query(_OTHER_HOLDERS), self._values).fetchall()
            if not found:
                connection.execute(psycopg_query(_TAKE_GROUP), self._values)

        self._link.within(look)
        self._has_it = not found
        if self._has_it:  # whoever ends waits for the beat that is under way
            self._link.hurry(self._values["dead_s"] / HEARTBEATS_A_LEASE)
        return LockHolder(*found[0]) if found else None

    def request_release(self) -> None:
        """Ask those who began before us to make room."""
        self._link.rows(_ASK_TO_LEAVE, self._values)

    def is_lost(self) -> bool:
        """Be heard of; tells whether somebody newer wants the turn, or has it since we were silent.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        rows = self._link.rows(_GROUP_HEARTBEAT, self._values)
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


SPENDING_FORGOTTEN_S = 30 * 86_400.0

_RESTART_JOB = (
    f"delete from paddock_runs.spent where at < {SERVER_NOW} - :forgotten_s or (job = :job and not exists "
    f"(select 1 from paddock_runs.spent as other "
    f"where other.job = :job and other.at > {SERVER_NOW} - :dead_s))"
)
_BEGIN_SPENDING = (
    f"insert into paddock_runs.spent (job, run, began, at) values (:job, :run, {SERVER_NOW}, {SERVER_NOW}) "
    f"on conflict do nothing"
)
_WRITE_OWN = (
    f"update paddock_runs.spent set at = {SERVER_NOW}, tokens = :tokens, n_ended = :n_ended, "
    f"n_in_flight = :n_in_flight where job = :job and run = :run"
)
# What was in flight at a machine that died is not any more.
_SPENT_BY_OTHERS = (
    f"select {SERVER_NOW} - min(began), coalesce(sum(tokens) filter (where run <> :run), 0), "
    f"coalesce(sum(n_ended) filter (where run <> :run), 0), "
    f"coalesce(sum(n_in_flight) filter (where run <> :run and run in "
    f"(select holders.run from holders where {IS_ALIVE})), 0) "
    f"from paddock_runs.spent where job = :job"
)


class SharedSpending:
    """One participant's part of what a job spends."""

    def __init__(self, server: PostgresServer, job: str, run: str, dead_after_s: float) -> None:
        self._link = PostgresConnection(server)
        self._values: dict[str, Any] = {
            "job": f"{server.schema}:{job}", "run": run, "dead_s": dead_after_s,
            "forgotten_s": SPENDING_FORGOTTEN_S,
        }  # fmt: skip

    def begin(self) -> None:
        """Begin to count, or go on with what those who are at it have spent.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        prepare_runs_schema(self._link)

        def begun(connection: Any) -> None:
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", [self._values["job"]])
            connection.execute(psycopg_query(_RESTART_JOB), self._values)
            connection.execute(psycopg_query(_BEGIN_SPENDING), self._values)

        self._link.within(begun)

    def others(self, mine: Spent) -> Spent:
        """Return the others what this one has spent; gives what they have, and the time of all."""
        values = {
            "tokens": mine.tokens, "n_ended": mine.n_ended, "n_in_flight": mine.n_in_flight,
        }  # fmt: skip
        self._link.rows(_WRITE_OWN, {**self._values, **values})
        seconds, tokens, n_ended, n_in_flight = self._link.rows(_SPENT_BY_OTHERS, self._values)[0]
        return Spent(float(seconds or 0), int(tokens), int(n_ended), int(n_in_flight))

    def close(self) -> None:
        """Let the connection go."""
        self._link.close()
