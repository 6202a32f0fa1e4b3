"""What the participants of a job have spent together, for a budget: kept by PostgreSQL. Blocks.

Counts from when the first of them began, by the server's clock. A job that is taken up again after
everybody was gone for a while begins anew, as a run of one machine does.
"""

from __future__ import annotations

from typing import Any

from paddock.runner.budget import Spent

from .claims import IS_ALIVE, NOW
from .common import prepare
from .postgres import Link, Server, written

FORGOTTEN_S = 30 * 86_400.0

_ANEW = (
    f"delete from paddock_runs.spent where at < {NOW} - :forgotten_s or (job = :job and not exists "
    f"(select 1 from paddock_runs.spent as other "
    f"where other.job = :job and other.at > {NOW} - :dead_s))"
)
_BEGIN = (
    f"insert into paddock_runs.spent (job, run, began, at) values (:job, :run, {NOW}, {NOW}) "
    f"on conflict do nothing"
)
_MINE = (
    f"update paddock_runs.spent set at = {NOW}, tokens = :tokens, n_ended = :n_ended, "
    f"n_in_flight = :n_in_flight where job = :job and run = :run"
)
# What was in flight at a machine that died is not any more.
_OTHERS = (
    f"select {NOW} - min(began), coalesce(sum(tokens) filter (where run <> :run), 0), "
    f"coalesce(sum(n_ended) filter (where run <> :run), 0), "
    f"coalesce(sum(n_in_flight) filter (where run <> :run and run in "
    f"(select holders.run from holders where {IS_ALIVE})), 0) "
    f"from paddock_runs.spent where job = :job"
)


class Spending:
    """One participant's part of what a job spends."""

    def __init__(self, server: Server, job: str, run: str, dead_after_s: float) -> None:
        self._link = Link(server)
        self._values: dict[str, Any] = {
            "job": f"{server.schema}:{job}", "run": run, "dead_s": dead_after_s,
            "forgotten_s": FORGOTTEN_S,
        }  # fmt: skip

    def begin(self) -> None:
        """Begin to count, or go on with what those who are at it have spent.

        Raises:
            LedgerError: PostgreSQL cannot be used.
        """
        prepare(self._link)

        def begun(connection: Any) -> None:
            connection.execute("select pg_advisory_xact_lock(hashtext(%s))", [self._values["job"]])
            connection.execute(written(_ANEW), self._values)
            connection.execute(written(_BEGIN), self._values)

        self._link.within(begun)

    def others(self, mine: Spent) -> Spent:
        """Tell the others what this one has spent; gives what they have, and the time of all."""
        values = {
            "tokens": mine.tokens, "n_ended": mine.n_ended, "n_in_flight": mine.n_in_flight,
        }  # fmt: skip
        self._link.rows(_MINE, {**self._values, **values})
        seconds, tokens, n_ended, n_in_flight = self._link.rows(_OTHERS, self._values)[0]
        return Spent(float(seconds or 0), int(tokens), int(n_ended), int(n_in_flight))

    def close(self) -> None:
        """Let the connection go."""
        self._link.close()
