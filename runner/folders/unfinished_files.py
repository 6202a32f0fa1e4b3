"""Whether a file is finished, or still being written.

A watch looks twice, a settle time apart, and asks the system whether a program has the file open;
one that is open settles again. A run that a watch started takes only versions that have settled,
which its order carries: the others are left for the next run.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system import no_links
from paddock.engine.system.records import Struct
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.ledger.ledger import Ledger
from paddock.steps.temporary_names import is_temporary_path

from .file_filter import WatchFilter, WatchSpec, watch_specs
from .file_versions import FileIdentity, FileVersion, file_version_at

if sys.platform == "linux":
    import fcntl


class UnsettledFile(Struct, frozen=True):
    """A version that was first seen at `since` (seconds of a monotonic clock)."""

    seen: FileVersion
    since: float


class SettlingFiles:
    """The files that have not settled yet.

    A file is complete only when a second look, after the settle time, shows the same: one look
    proves nothing, however old its mtime.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: dict[str, UnsettledFile] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[str]:
        return iter(self._waiting)

    def __contains__(self, relpath: object) -> bool:
        return relpath in self._waiting

    def note_version(self, seen: FileVersion, now: float) -> None:
        """Note a file's version; a change restarts its settle time."""
        known = self._waiting.get(seen.relpath)
        if known is None or not known.seen.is_same(seen):
            self._waiting[seen.relpath] = UnsettledFile(seen, now)

    def drop(self, relpath: str) -> None:
        self._waiting.pop(relpath, None)

    def keep(self, relpaths: Mapping[str, object]) -> None:
        for relpath in [path for path in self._waiting if path not in relpaths]:
            del self._waiting[relpath]

    def restart(self, relpath: str, now: float) -> None:
        self._waiting[relpath] = UnsettledFile(self._waiting[relpath].seen, now)

    def to_check(self, now: float) -> list[str]:
        return [
            relpath
            for relpath, waiting in self._waiting.items()
            if now - waiting.since >= self._settle_s
        ]

    def take_stable(
        self, found: Mapping[str, FileVersion | None], now: float
    ) -> Iterator[FileVersion]:
        """Remove and yield the files that look the same as before; restart the others."""
        for relpath, seen in found.items():
            known = self._waiting.get(relpath)
            if known is None:
                continue
            if seen is None:
                del self._waiting[relpath]
            elif not known.seen.is_same(seen):
                self._waiting[relpath] = UnsettledFile(seen, now)
            elif now - known.since >= self._settle_s:
                del self._waiting[relpath]
                yield seen

    def next_at(self) -> float | None:
        return min((file.since + self._settle_s for file in self._waiting.values()), default=None)


def is_open_for_writing(path: Path) -> bool:
    """Return whether a program of this machine has a file open for writing, if that is known.

    Linux grants a read lease only while no one has the file open for writing. Other systems, other
    users' files and network shares grant none: then only a change of the file shows it.
    """
    if sys.platform != "linux":
        return False
    try:
        file = no_links.open_file(path)
    except OSError:
        return False
    fd = file.fileno()
    try:
        # A broken lease raises SIGIO, which ends a process; SIGURG is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        file.close()
    return False


def open_files(root: Path, relpaths: Iterable[str], written: Collection[str]) -> list[str]:
    """Return which files are open for writing; `written`: by the system's events. Blocks."""
    return [path for path in relpaths if path in written or is_open_for_writing(root / path)]


class RunnableVersions:
    """Decides of each file below a watch whether a run may take it.

    It may take the versions of its order, and those that were handled before. Reads the ledger once
    for each watch.
    """

    def __init__(self, bound: BoundPlan, ledger: Ledger, ordered: Iterable[FileVersion]) -> None:
        self._specs = watch_specs(bound)
        self._ledger = ledger
        self._ordered = {seen.relpath: seen for seen in ordered}
        self._handled: dict[str, Mapping[str, FileIdentity]] = {}
        self._filters: dict[str, WatchFilter] = {}

    def read(self) -> None:
        for spec in self._specs:
            self._handled[spec.name] = self._ledger.watched(spec.name)
            self._filters[spec.name] = WatchFilter(spec)

    def is_unsettled(self, item: Any) -> bool:
        path = item.get("path") if isinstance(item, Mapping) else None
        if not isinstance(path, str):
            return False
        return any(self._is_left_by(spec, path) for spec in self._specs)

    def _is_left_by(self, spec: WatchSpec, path: str) -> bool:
        prefix = f"{spec.root}{os.sep}"
        if not path.startswith(prefix):
            return False
        relpath = path.removeprefix(prefix).replace(os.sep, "/")
        if is_temporary_path(relpath):
            return True
        if not self._filters[spec.name].wants(relpath):
            return False  # not a file of this watch
        ordered, handled = self._ordered.get(relpath), self._handled[spec.name].get(relpath)
        seen = file_version_at(path, relpath)
        if seen is None:  # of one that no watch has seen, its reader reports that it is gone
            return ordered is not None or handled is not None
        is_ordered = ordered is not None and ordered.identity == seen.identity
        return not is_ordered and seen.identity != handled
