"""Whether an output is as an item wrote it: the same, edited, missing, or another's since."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from paddock.steps.base import StepError
from paddock.steps.effects import output_at

if TYPE_CHECKING:
    from .entries import OutputRow
    from .output_index import OutputIndex

FileCondition = Literal["same", "edited", "missing", "interrupted"]
"""`interrupted`: it has what a run was about to record when it was killed."""
OURS: tuple[FileCondition, ...] = ("same", "interrupted")
"""Conditions of a file that no one else has changed."""


def condition_of(index: OutputIndex, scope: str, stored: str) -> FileCondition:
    """Return whether an output is as recorded."""
    return _condition_of_row(index, index.row(scope, stored), stored)


def _condition_of_row(index: OutputIndex, row: OutputRow | None, stored: str) -> FileCondition:
    """Equal size and mtime are trusted where nothing happened to the file since."""
    if row is None or row.size is None:  # a file of the user's that was moved there
        return "missing"
    try:
        kind, place = output_at(index.absolute(stored))
        try:
            stamp = kind.stamp(place)
        except OSError:
            return "missing"
        if stamp is not None:
            is_untouched = stamp.changed_at <= row.at
            if is_untouched and (stamp.size, stamp.mtime_ns) == (row.size, row.mtime_ns):
                return "same"
            if stamp.size != row.size and not row.intended:
                return "edited"
        digest = kind.holds(place)
    except StepError:  # it cannot be asked now
        return "same"
    if digest is None:
        return "missing"
    if digest == row.sha256:
        return "same"
    if digest in row.intended:
        return "interrupted"
    return "missing" if row.sha256 is None else "edited"


def condition_of_item(
    index: OutputIndex, scope: str, key: str, stored: str, sha256: str
) -> FileCondition | Literal["replaced"]:
    """Return whether an output is as an item wrote it; `replaced`: another one wrote it since.

    Without a `sha256` its content is known only where the item wrote the path last.
    """
    row = index.row(scope, stored)
    found = _condition_of_row(index, row, stored)
    if row is not None and row.key == key:
        sha256 = sha256 or row.sha256 or ""
        if found == "interrupted":
            return found
    if row is not None and (found, row.sha256) == ("same", sha256):
        return found
    with suppress(OSError, StepError):
        digest = index.content(stored)
        if row is not None and digest == sha256:
            return "same"
        if any(digest in (row.sha256, *row.intended) for row in index.rows_at(stored)):
            return "replaced"
    return found


def is_recorded_and_unchanged(
    index: OutputIndex, scope: str, key: str, path: Path, sha256: str
) -> bool:
    stored = index.stored(path)
    row = index.row(scope, stored)
    is_of_item = row is not None and (row.key, row.sha256) == (key, sha256)
    return is_of_item and condition_of(index, scope, stored) == "same"
