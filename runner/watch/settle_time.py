"""Settle time: when has a file come to rest? Pure; no clock.

A file is settled only when it was looked at again after the settle time and looked the same: one
look says nothing, however old its mtime claims to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .watch_spec import FileVersion


@dataclass(frozen=True, slots=True)
class UnsettledFile:
    """A version that was seen first at `since` (seconds of a clock that never jumps)."""

    seen: FileVersion
    since: float


class SettlingFiles:
    """The files that have not come to rest yet."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: dict[str, UnsettledFile] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[str]:
        """Name them."""
        return iter(self._waiting)

    def __contains__(self, relpath: object) -> bool:
        """Return whether a file is among them."""
        return relpath in self._waiting

    def see(self, seen: FileVersion, now: float) -> None:
        """Note how a file looks; whatever has changed begins its time anew."""
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
        """Name the files whose time is over: to be looked at again."""
        return [
            relpath
            for relpath, waiting in self._waiting.items()
            if now - waiting.since >= self._settle_s
        ]

    def settled(self, found: Mapping[str, FileVersion | None], now: float) -> Iterator[FileVersion]:
        """Take out the files that look as they did when their time began; note the others."""
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
        """Return when the first of them has waited long enough."""
        return _earliest(waiting.since + self._settle_s for waiting in self._waiting.values())


def _earliest(times: Iterable[float]) -> float | None:
    return min(times, default=None)
