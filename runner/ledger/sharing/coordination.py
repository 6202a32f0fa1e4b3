"""Coordination of machines in PostgreSQL: item claims, concurrency groups, shared budgets.

Blocks. The database and its clock decide, never a machine's clock. A participant sends heartbeats
from a thread of its own, so that a busy event loop is not taken for a crash. What it claims is its
own until it releases it or its heartbeats stop. Groups, budgets and the key that signs runs lie in
a schema of the whole database (`paddock_runs`); except for the key they live only as long as their
runs, so that schema needs no version.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass

from ..database.ledger_tables import Execute
from ..database.postgres import (
    OPEN_S,
    PostgresDatabase,
    PostgresServer,
    postgres_server,
    refuse_foreign_tables,
)
from ..entries import LedgerError, ViewAtWork
from . import coordination_queries as queries
from .budget import Spent
from .run_locks import LockHolder

HEARTBEATS_A_LEASE = 4  # within the time after which a participant counts as dead
SURE_SHARE = 0.75
"""For this part of that time after a heartbeat, its claims are certain without a query."""


def prepare_runs_schema(connection: PostgresDatabase) -> None:
    """Make the schema `paddock_runs` where it is missing; one machine at a time.

    Raises:
        LedgerError: the server cannot be reached, or gives no rights.
    """
    refuse_foreign_tables(connection.rows, "paddock_runs", connection.server.url)
    if connection.rows(queries.HAS_SCHEMA, {})[0][0]:
        return

    def make(execute: Execute) -> None:
        execute(queries.LOCK, {"lock": "paddock_runs"})
        for statement in queries.MAKE_SCHEMA:
            execute(statement, {})

    connection.in_transaction(make)


def signing_key(url: str) -> str:
    """Return the key that signs runs in Prefect's queue, one for a database.

    Raises:
        LedgerError: the server cannot be reached, or gives no rights.
    """
    with closing(PostgresDatabase(postgres_server(url, ""), retry_s=OPEN_S)) as connection:
        prepare_runs_schema(connection)
        values = {"name": "signing", "value": secrets.token_urlsafe(32)}
        connection.rows(queries.ADD_KEY, values)
        return str(connection.rows(queries.KEY, values)[0][0])


class _Participant:
    """A connection of this process, and the values that its statements use."""

    def __init__(
        self,
        server: PostgresServer,
        dead_after_s: float,
        note: Callable[[str], None] | None = None,
        **values: Any,
    ) -> None:
        self.server = server
        self._connection = PostgresDatabase(server, note)
        self._values: dict[str, Any] = {
            "host": socket.gethostname(), "pid": os.getpid(), "dead_s": dead_after_s, **values,
        }  # fmt: skip

    def _rows(self, query: str, **values: Any) -> Sequence[Sequence[Any]]:
        return self._connection.rows(query, {**self._values, **values})

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class JoinedJob:
    """What a participant finds when it joins."""

    job: str
    """Name of the work that the participants at a place do together."""
    n_others: int
    """Living ones at the same place."""
    run: str
    """The participant's own run."""
    views: tuple[ViewAtWork, ...] = ()
    """What the others see, as they wrote it; all of them where ours differs from one's."""

    def is_before(self, other: str) -> bool:
        """Return whether our run goes on where it and the run `other` cannot both.

        The run that began the job goes before all others, which have a fixed order, so that of two
        runs that meet at the same moment exactly one gives way.

        >>> began = JoinedJob(job="b", n_others=1, run="b")
        >>> came, too = JoinedJob("b", 1, run="a"), JoinedJob("b", 1, run="c")
        >>> began.is_before("a"), came.is_before("b"), came.is_before("c"), too.is_before("a")
        (True, False, True, False)
        """
        return (self.run != self.job, self.run) < (other != self.job, other)


class Claims(_Participant):
    """One participant's claims."""

    def __init__(
        self,
        server: PostgresServer,
        holder: str,
        dead_after_s: float,
        note: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(server, dead_after_s, note, me=holder)
        self.holder = holder
        self._dead_after_s = dead_after_s
        self._heartbeat_s = dead_after_s / HEARTBEATS_A_LEASE
        self._heartbeat_connection = PostgresDatabase(server, retry_s=self._heartbeat_s)
        self._last_heartbeat_at = float("-inf")
        self._was_silent = False
        """Whether others may have taken us for dead; then claims are no longer certain."""
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def group_turn(self, group: str, job: str, run: str) -> PostgresGroupTurn:
        return PostgresGroupTurn(self.server, group, self.holder, job, run, self._dead_after_s)

    def spending(self, job: str, run: str) -> SharedSpending:
        return SharedSpending(self.server, job, run, self._dead_after_s)

    def join(
        self,
        place: str,
        run: str,
        job: str = "",
        *,
        folders: str = "",
        view: str = "{}",
        differs: Callable[[str], object] = lambda _: False,
    ) -> JoinedJob | ViewAtWork:
        """Become a participant, and start to send heartbeats.

        The participants at a place do one job together: `job`, or the one that is under way, or
        a new one that is named after the run. If one that works in the same `folders` has a view
        that `differs` from ours, that one is returned, and nothing is joined.
        """

        def enter(execute: Execute) -> JoinedJob | ViewAtWork:
            values = {**self._values, "place": place, "folders": folders, "view": view}
            # Those who join at the same moment, one by one.
            execute(queries.LOCK, {"lock": folders or place})
            for statement in (queries.DROP_FORGOTTEN, queries.DROP_FORGOTTEN_VIEWS):
                execute(statement, {})
            rows = execute(queries.AT_WORK, values)
            at_work = tuple(ViewAtWork(*row[1:]) for row in rows)
            if other := next((found for found in at_work if differs(found.view)), None):
                return other
            jobs = [row[1] for row in rows if row[0] == place]
            joined = JoinedJob(job or (jobs[0] if jobs else run), len(jobs), run, at_work)
            self._values |= {"run": run, "place": place, "job": joined.job}
            execute(queries.HEARTBEAT, self._values)
            execute(queries.WRITE_VIEW, values)
            return joined

        prepare_runs_schema(self._connection)
        sent_at = _monotonic_s()
        joined = self._connection.in_transaction(enter)
        if isinstance(joined, ViewAtWork):
            return joined
        self._last_heartbeat_at = sent_at
        self._thread = threading.Thread(target=self._send_heartbeats, name="claims", daemon=True)
        self._thread.start()
        return joined

    def _send_heartbeats(self) -> None:
        while not self._is_over.wait(self._heartbeat_s):
            with suppress(LedgerError):  # the next claim or record raises it
                self._send_heartbeat(self._heartbeat_connection)

    def _send_heartbeat(self, connection: PostgresDatabase) -> None:
        sent_at = _monotonic_s()
        connection.rows(queries.HEARTBEAT, self._values)
        if not self._is_recent(sent_at):  # what we held may be others' now
            self._was_silent = True
        self._last_heartbeat_at = sent_at

    def leave(self) -> None:
        """Release everything; other participants take over what is not finished."""
        self._is_over.set()
        self._connection.retry_s = 0.0
        if self._thread is not None:
            self._thread.join()
        with (
            closing(self._heartbeat_connection),
            closing(self._connection),
            suppress(LedgerError),  # then missing heartbeats release it
        ):
            for statement in queries.LEAVE:
                self._rows(statement)

    def n_others(self, place: str) -> int:
        return int(self._rows(queries.COUNT_OTHERS, place=place)[0][0])

    def runs_of_others(self, job: str) -> frozenset[str]:
        return frozenset(row[0] for row in self._rows(queries.RUNS_OF_OTHERS, job=job))

    def drop_dead(self, place: str) -> list[str]:
        """Forget the dead participants at a place; return their names."""
        return [row[0] for row in self._rows(queries.DROP_DEAD, place=place)]

    def claim(self, scope: str, keys: Collection[str]) -> frozenset[str]:
        """Claim items; return the keys that are ours now. Living participants hold the others."""
        return frozenset(
            row[0] for row in self._rows(queries.CLAIM, scope=scope, keys=sorted(keys))
        )

    def release(self, scope: str, keys: Collection[str]) -> None:
        self._rows(queries.RELEASE, scope=scope, keys=sorted(keys))

    def is_sure(self) -> bool:
        """Return whether no participant can have taken us for dead, without a query."""
        return not self._was_silent and self._is_recent(_monotonic_s())

    def _is_recent(self, at: float) -> bool:
        return at - self._last_heartbeat_at < SURE_SHARE * self._dead_after_s

    def holds(self, scope: str, key: str) -> bool:
        """Send a heartbeat; return whether an item is still ours.

        In this order: otherwise a machine that has just woken up would go on with an item that
        another one takes a moment later.
        """
        self._send_heartbeat(self._connection)
        return bool(self._rows(queries.HOLDS, scope=scope, key=key))

    def holder_of(self, scope: str, keys: Collection[str]) -> str | None:
        """Return a text that names the run which holds the first of these items."""
        rows = self._rows(queries.HOLDER_OF, scope=scope, keys=sorted(keys))
        return f"run '{rows[0][0]}' on {rows[0][1]}" if rows else None


def _monotonic_s() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, if there is one.

    Linux has its own. On macOS the system's monotonic clock goes on, Python's does not.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class PostgresGroupTurn(_Participant):
    """One participant's turn in a group of all machines, with the methods of `FileGroupTurn`."""

    def __init__(
        self,
        server: PostgresServer,
        name: str,
        holder: str,
        job: str,
        run: str,
        dead_after_s: float,
    ) -> None:
        super().__init__(
            server, dead_after_s, name=name, holder=holder, job=f"{server.schema}:{job}", run=run
        )
        self._is_ours = False

    def take(self) -> LockHolder | None:
        """Take the turn; return who holds it, None if it is ours now.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        if "began" not in self._values:
            prepare_runs_schema(self._connection)
            self._values["began"] = float(self._rows(queries.NOW)[0][0])

        def take(execute: Execute) -> Sequence[Sequence[Any]]:
            execute(queries.LOCK, {"lock": self._values["name"]})
            execute(queries.DROP_DEAD_TURNS, self._values)
            found = execute(queries.TURN_OF_OTHERS, self._values)
            if not found:
                execute(queries.TAKE_TURN, self._values)
            return found

        found = self._connection.in_transaction(take)
        self._is_ours = not found
        if self._is_ours:  # the end of a run waits for a heartbeat that is under way
            self._connection.retry_s = self._values["dead_s"] / HEARTBEATS_A_LEASE
        return LockHolder(*found[0]) if found else None

    def request_release(self) -> None:
        self._rows(queries.REQUEST_RELEASE)

    def is_lost(self) -> bool:
        """Send a heartbeat; return whether a newer run wants the turn, or has it.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        rows = self._rows(queries.TURN_HEARTBEAT)
        return bool(rows[0][0]) if rows else self.take() is not None

    def leave(self) -> None:
        self._connection.retry_s = 0.0
        with closing(self._connection):
            if self._is_ours:
                self._rows(queries.LEAVE_TURN)


def group_holders(
    url: str, names: Collection[str], unwanted: Collection[str], dead_after_s: float
) -> dict[str, LockHolder]:
    """Return the runs that have the turn in these groups; ask those of `unwanted` to stop.

    Raises:
        LedgerError: PostgreSQL cannot be used.
    """
    with closing(PostgresDatabase(postgres_server(url, ""), retry_s=0.0)) as connection:
        if not connection.rows(queries.HAS_SCHEMA, {})[0][0]:
            return {}
        if unwanted:
            connection.rows(queries.UNWANT, {"names": [*unwanted]})
        rows = connection.rows(queries.TURNS, {"names": [*names], "dead_s": dead_after_s})
        return {row[0]: LockHolder(*row[1:]) for row in rows}


class SharedSpending(_Participant):
    """One participant's part of what a job spends."""

    def __init__(self, server: PostgresServer, job: str, run: str, dead_after_s: float) -> None:
        super().__init__(server, dead_after_s, job=f"{server.schema}:{job}", run=run)

    def begin(self) -> None:
        """Start to count, or continue from what the present participants have spent.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        prepare_runs_schema(self._connection)

        def begin(execute: Execute) -> None:
            execute(queries.LOCK, {"lock": self._values["job"]})
            execute(queries.RESTART_JOB, self._values)
            execute(queries.BEGIN_SPENDING, self._values)

        self._connection.in_transaction(begin)

    def exchange(self, mine: Spent) -> Spent:
        """Write what this participant has spent; return what others have, and the job's time."""
        self._rows(
            queries.WRITE_OWN,
            tokens=mine.tokens,
            n_ended=mine.n_ended,
            n_in_flight=mine.n_in_flight,
        )
        ((seconds, tokens, n_ended, n_in_flight),) = self._rows(queries.SPENT_BY_OTHERS)
        return Spent(float(seconds or 0), int(tokens), int(n_ended), int(n_in_flight))
