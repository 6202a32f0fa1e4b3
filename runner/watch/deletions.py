"""Decide which missing files were deleted, and are not merely out of sight. Pure.

An unmounted share leaves a folder behind that is empty, or holds what was written there since. So
files count as deleted only in the folder in which they were seen, and in a watch only when two
looks at the whole folder, some time apart, missed them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .filesystems import Folder


def known_as(now: Folder | None, kept: Iterable[Folder]) -> Folder | None:
    """Return the folder that was seen before: of several machines' the one that is there now.

    `kept` begins with what this machine saw, if it saw any.
    """
    several = list(kept)
    same = (one for one in several if now is not None and one.identity == now.identity)
    return next(same, several[0] if several else None)


def is_foreign(before: Folder | None, now: Folder, n_absent: int, n_present: int) -> bool:
    """Return whether this is another folder than the one in which files were seen.

    A folder that has all of them is the same one at another place: nothing can be deleted by that.
    Where it is not known which folder it was, one file that is there is enough.
    """
    if before is None:
        return n_absent > 0 and n_present == 0
    return before.identity != now.identity and n_absent > 0


def is_most(n_deleted: int, n_known: int, most: float) -> bool:
    """Return whether so many files are gone at once that a person is asked.

    One file alone is not asked about, unless every deletion is (`most` is 0).

    >>> [is_most(n, n_known, 0.5) for n, n_known in ((1, 1), (2, 3), (5, 10), (6, 10))]
    [False, True, False, True]
    """
    return n_deleted > most * n_known and (n_deleted > 1 or most == 0)


class Deletions:
    """Files that were missed by the looks so far."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._missing: dict[str, float] = {}
        """Path → when a look missed it first."""

    def look(self, missed: Collection[str], now: float) -> list[str]:
        """Take in what a look at the whole has missed; return the files that are gone."""
        gone = [
            relpath
            for relpath in missed
            if relpath in self._missing and now - self._missing[relpath] >= self._settle_s
        ]
        taken = frozenset(gone)
        self._missing = {
            relpath: self._missing.get(relpath, now) for relpath in missed if relpath not in taken
        }
        return gone

    def forget(self) -> None:
        """Begin again: the folder is another one."""
        self._missing.clear()

    def next_at(self) -> float | None:
        """Return when a second look can confirm the first."""
        return min((since + self._settle_s for since in self._missing.values()), default=None)
