"""What holds for all folders of a database: a schema beside theirs, for runs and not for items.

Whose turn it is in a group (`turns`), what a job has spent (`spending`), and the key that signs
runs in Prefect's queue. Made where it is first wanted; the key apart, nothing in it outlives what
it is about, so it needs no version.
"""

from __future__ import annotations

import secrets
from typing import Any

from .postgres import OPEN_S, Link, server

_MADE = "select to_regclass('paddock_runs.keys') is not null"

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


def prepare(link: Link) -> None:
    """Make what is not there yet; one machine at a time. Blocks.

    Raises:
        LedgerError: the server cannot be reached, or gives no rights.
    """
    if link.rows(_MADE, {})[0][0]:
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
    link = Link(server(url, ""), retry_s=OPEN_S)
    try:
        prepare(link)
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
