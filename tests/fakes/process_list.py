"""What another user of the machine sees meanwhile: the command lines of all processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class SeenCommandLines:
    """The command lines that were seen so far, with zeros between their words."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()

    def look(self) -> None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                self.lines.add(file.read_bytes())

    def with_any(self, *secrets: str) -> list[bytes]:
        """Return the lines that have one of these."""
        assert all(secrets)
        return [line for line in self.lines if any(one.encode() in line for one in secrets)]


@contextmanager
def watched_process_list() -> Iterator[SeenCommandLines]:
    """Look at all command lines again and again until the block ends."""
    seen, is_over = SeenCommandLines(), threading.Event()

    def watch() -> None:
        while not is_over.wait(0.01):
            seen.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()
        seen.look()
