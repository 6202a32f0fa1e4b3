"""Give the disk back what nothing fills of a ledger's file, within a time, beside runs."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

VACUUM_SHARE, VACUUM_BYTES = 0.25, 8 * 1024**2
"""The file is written anew when so much of it, and at least so many bytes, hold nothing."""
VACUUM_S = 20.0
"""Less than a run waits for the database (`reader.WAIT_S`)."""
MOST_VACUUM_BYTES = 2 * 1024**3


def compact(file: Path, clock: Callable[[], float] = time.monotonic) -> bool:
    """Write a ledger's file anew without the room that nothing fills, within a time.

    Left for another day where it takes too long, the disk has no room for a second one, or a run
    writes at this moment. Tells whether it was done.
    """
    connection = sqlite3.connect(file, timeout=1.0, isolation_level=None)
    with contextlib.closing(connection):
        page, n_pages, n_free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        n_bytes = page * n_pages
        is_worth_it = n_free * page >= VACUUM_BYTES and n_free >= VACUUM_SHARE * n_pages
        has_room = shutil.disk_usage(file.parent).free > 2 * n_bytes
        if not is_worth_it or not has_room or n_bytes > MOST_VACUUM_BYTES:
            return False
        ends = clock() + VACUUM_S
        connection.set_progress_handler(lambda: int(clock() > ends), 10_000)
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError:  # interrupted, or somebody writes
            return False
    return True
