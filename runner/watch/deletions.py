"""Decide which files are really gone, and not merely out of sight. Pure.

A share that is not mounted looks like an empty folder. So a file counts as gone only when two
looks at the whole folder, some time apart, missed it, and files were seen in that very folder.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .listing import Listing


@dataclass(frozen=True, slots=True)
class _Missing:
    since: float
    root: tuple[int, int]


class Deletions:
    """What was missed by the looks so far."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._missing: dict[str, _Missing] = {}
        self._roots: set[tuple[int, int]] = set()

    def look(self, listing: Listing, missed: Collection[str], now: float) -> tuple[list[str], bool]:
        """Take in what a look at the whole has missed.

        Gives the files that are gone, and whether all are missing from a root that never held any.
        """
        if listing.files:
            self._roots.add(listing.root)
        if listing.root not in self._roots:
            self._missing.clear()
            return [], bool(missed)
        gone = [relpath for relpath in missed if self._is_gone(relpath, listing.root, now)]
        self._note(missed, gone, listing.root, now)
        return gone, False

    def _is_gone(self, relpath: str, root: tuple[int, int], now: float) -> bool:
        known = self._missing.get(relpath)
        return known is not None and known.root == root and now - known.since >= self._settle_s

    def _note(
        self, missed: Collection[str], gone: Collection[str], root: tuple[int, int], now: float
    ) -> None:
        before, taken = self._missing, frozenset(gone)
        self._missing = {}
        for relpath in missed:
            known = before.get(relpath)
            if relpath in taken:
                continue
            is_old = known is not None and known.root == root
            self._missing[relpath] = known if is_old and known else _Missing(now, root)

    def next_at(self) -> float | None:
        """Tell when a second look can confirm the first."""
        return min((one.since + self._settle_s for one in self._missing.values()), default=None)
