"""Which missing files count as deleted.

Files count as deleted only in the folder in which they were seen, and in a watch only when two
listings, some time apart, missed them.
"""

from __future__ import annotations

from collections.abc import Collection

from .folder_identity import FolderIdentity


def is_other_folder(
    before: FolderIdentity | None, now: FolderIdentity, n_absent: int, n_present: int
) -> bool:
    """Return whether this is another folder than the one in which files were seen.

    A folder that has all of them is the same one at another place: that deletes nothing. When the
    former folder is not known, one present file is enough.
    """
    if before is None:
        return n_absent > 0 and n_present == 0
    return before.identity != now.identity and n_absent > 0


def is_mass_deletion(n_deleted: int, n_known: int, most: float) -> bool:
    """Return whether so many files are gone at once that a person is asked.

    One file alone is not asked about, unless every deletion is (`most` is 0).

    >>> [is_mass_deletion(n, n_known, 0.5) for n, n_known in ((1, 1), (2, 3), (5, 10), (6, 10))]
    [False, True, False, True]
    """
    return n_deleted > most * n_known and (n_deleted > 1 or most == 0)


class MissingFiles:
    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._missing: dict[str, float] = {}
        """Path → when a listing missed it first."""

    def confirm_missed(self, missed: Collection[str], now: float) -> list[str]:
        """Take the files that a full listing missed; return those that count as deleted."""
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

    def next_at(self) -> float | None:
        return min((since + self._settle_s for since in self._missing.values()), default=None)
