"""Whether PostgreSQL can carry the ledger of several machines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger

from .findings import Finding

if TYPE_CHECKING:
    from paddock.runner.ledger.postgres import Link

CLOCK_S = 5.0
# To read, to write, to claim, to be heard of; for its turn in a group, and for a budget.
CONNECTIONS_OF_A_RUN = 6
FEWEST_CONNECTIONS = 60


def look(url: str, state: Path) -> list[Finding]:
    """Look at the database; makes the ledger of the folder whose state lies in `state`. Blocks."""
    if not url:
        return [
            Finding(
                "ledger",
                "wrong",
                "it is a file, which one machine at a time can work with.",
                "Set PADDOCK_LEDGER=postgresql://user:password@host/database on every machine.",
            )
        ]
    from paddock.runner.ledger.postgres import Link, place_of, server

    place = place_of(url)
    try:
        with Ledger(state, url=url) as ledger:
            n_runs = len(ledger.run_names())
        link = Link(server(url, ""))
        try:
            return [
                Finding("ledger", "ok", f"{place}, {n_runs} runs so far"),
                *_reach(url),
                _connections(link),
                _clock(link),
            ]
        finally:
            link.close()
    except LedgerError as error:
        return [Finding("ledger", "wrong", str(error))]


def _reach(url: str) -> list[Finding]:
    """Warn of an address that means another machine on each."""
    from paddock.runner.ledger.postgres import host_of

    host = host_of(url)
    if host and host not in ("localhost", "127.0.0.1", "::1") and not host.startswith("/"):
        return []
    words = f"the address '{host or 'this machine'}' is another machine's own on each"
    remedy = "Name the server by its address in your network, the same on every machine."
    return [Finding("ledger's address", "warning", words, remedy)]


def _connections(link: Link) -> Finding:
    most = int(link.rows("select current_setting('max_connections')", {})[0][0])
    used = int(link.rows("select count(*) from pg_stat_activity", {})[0][0])
    n_runs = max(0, most - used) // CONNECTIONS_OF_A_RUN
    words = f"{most}, of which {used} are in use: enough for {n_runs} runs at a time"
    if most >= FEWEST_CONNECTIONS:
        return Finding("connections", "ok", words)
    remedy = "Let it take more: alter system set max_connections = 200; then restart it."
    return Finding("connections", "warning", words, remedy)


def _clock(link: Link) -> Finding:
    """Compare this machine's clock with the server's; claims go by the server's alone."""
    query = "select extract(epoch from clock_timestamp())::float8"
    link.rows(query, {})  # connected already when the time is taken
    before = time.time()
    theirs = float(link.rows(query, {})[0][0])
    off_s = theirs - (before + time.time()) / 2
    words = f"{abs(off_s):.1f} s {'behind' if off_s > 0 else 'ahead of'} the database's"
    if abs(off_s) <= CLOCK_S:
        return Finding("clock", "ok", words)
    remedy = "Schedules and files' times would be off: set the clock by NTP (systemd-timesyncd)."
    return Finding("clock", "wrong", f"{words}; {CLOCK_S:g} s are allowed", remedy)
