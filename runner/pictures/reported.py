"""Write a run as one page: the door of this closet to reports."""

from __future__ import annotations

from pathlib import Path

from paddock.runner.history.past import Past, named
from paddock.runner.history.places import STATE_FOLDER, Place
from paddock.runner.ledger.entries import LedgerError
from paddock.steps.aside import put

from .report_page import report_page
from .story import story_of


def write_report(file: Path, run: str, target: Path) -> None:
    """Write a run of a pipeline as one page.

    Raises:
        LedgerError: the ledger cannot be read.
        OSError: the file cannot be written.
    """
    found = named([Place(file.absolute().parent / STATE_FOLDER)], run)
    if found.faults and not found.runs:
        raise LedgerError(found.faults[0])
    for past in found.runs[:1]:
        write_story(past, target)


def write_story(past: Past, target: Path) -> None:
    """Write a run as one page."""
    put(target, report_page(story_of(past), target))
