"""What other users of the machine see meanwhile, the command lines; and each one's environment."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO


class SeenCommandLines:
    """The command lines that were seen so far, with zeros between their words."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self.environs: dict[tuple[str, bytes], bytes] = {}
        """The environment of each process and command line, as its own user could read it."""
        self._others = _processes()
        """Those that were there before: to read them would be most of the work."""

    def look(self) -> None:
        there = _processes()
        self._others &= there  # a number that is free may be given to a new one
        for process in there - self._others:
            with suppress(OSError):  # it has ended
                line = _read(process, "cmdline")
                self.lines.add(line)
                if (process, line) not in self.environs:
                    environ = _read(process, "environ")
                    if _read(process, "cmdline") == line:  # not that of the next program
                        self.environs[process, line] = environ

    def with_any(self, *secrets: str) -> list[bytes]:
        """Return the lines that have one of these."""
        assert all(secrets)
        return [line for line in self.lines if any(one.encode() in line for one in secrets)]

    def environs_of(self, *words: str) -> list[bytes]:
        """Return the environments of programs that have these words in their command lines."""
        return [
            environ
            for (_, line), environ in [*self.environs.items()]  # the watcher adds some meanwhile
            if all(word.encode() in line for word in words)
        ]


def _processes() -> set[str]:
    return {found.name for found in os.scandir("/proc") if found.name.isdecimal()}


def _read(process: str, name: str) -> bytes:
    """Return a file of a process, for half of what `Path` takes: it is done 100 times a second."""
    with FileIO(f"/proc/{process}/{name}") as file:
        return file.readall()


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
