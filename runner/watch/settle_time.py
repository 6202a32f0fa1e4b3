"""Settle time: when a file is complete. Pure; no clock.

A file has settled only when a second look, after the settle time, shows the same: one look proves
nothing, however old its mtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .watch_spec import FileVersion


@dataclass(frozen=True, slots=True)
class UnsettledFile:
    """A version that was first seen at `since` (seconds of a monotonic clock)."""

    seen: FileVersion
    since: float


class SettlingFiles:
    """The files that have not settled yet."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: dict[str, UnsettledFile] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[str]:
        """Iterate over their paths."""
        return iter(self._waiting)

    def __contains__(self, relpath: object) -> bool:
        """Return whether a file is among them."""
        return relpath in self._waiting

    def see(self, seen: FileVersion, now: float) -> None:
        """Note a file's version; a change restarts its settle time."""
        known = self._waiting.get(seen.relpath)
        if known is None or not known.seen.is_same(seen):
            self._waiting[seen.relpath] = UnsettledFile(seen, now)

    def drop(self, relpath: str) -> None:
        """Forget a file."""
        self._waiting.pop(relpath, None)

    def keep(self, relpaths: Mapping[str, object]) -> None:
        """Forget every file that is not among these."""
        for relpath in [one for one in self._waiting if one not in relpaths]:
            del self._waiting[relpath]

    def to_check(self, now: float) -> list[str]:
        """Return the files whose settle time is over: look at them again."""
        return [
            relpath
            for relpath, waiting in self._waiting.items()
            if now - waiting.since >= self._settle_s
        ]

    def settled(self, found: Mapping[str, FileVersion | None], now: float) -> Iterator[FileVersion]:
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
        """Return when the first settle time is over."""
        return _earliest(waiting.since + self._settle_s for waiting in self._waiting.values())


def _earliest(times: Iterable[float]) -> float | None:
    return min(times, default=None)
