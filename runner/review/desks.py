"""Review desks of the folders that a service shows, opened when they are first needed.

A folder whose ledger does not exist yet has none. One whose ledger file was replaced is opened
again: a decision must not go into a file that was deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from paddock.engine.system import files
from paddock.pipelines.model import Pipeline, StepNode
from paddock.runner.ledger.ledger import Ledger, has_folder_identity
from paddock.runner.settings import STATE_FOLDER

from .decisions import ReviewDesk


def asks_people(pipeline: Pipeline) -> bool:
    """Return whether a pipeline, or one that it calls, may ask for a review."""
    steps = (node for node in pipeline.nodes() if isinstance(node, StepNode))
    return any(step.review is not None or step.uses == "pipeline" for step in steps)


@dataclass(frozen=True, slots=True)
class _OpenDesk:
    desk: ReviewDesk
    file: tuple[int, int] | None
    """Device and inode of the ledger's file."""


class FolderDesks:
    """The desks of folders of pipelines. All methods block, and one thread calls them."""

    def __init__(self, folders: Callable[[], Iterable[Path]], url: str = "") -> None:
        """`folders` returns the folders at each call; `url`: of PostgreSQL, empty for files."""
        self._folders = folders
        self._url = url
        self._open: dict[Path, _OpenDesk] = {}

    def __call__(self) -> list[ReviewDesk]:
        """Return the desks of the folders that have a ledger.

        Raises:
            LedgerError: one cannot be opened.
        """
        wanted = sorted({folder.resolve() for folder in self._folders()})
        for gone in self._open.keys() - set(wanted):
            self._close(gone)
        found = (self._desk(folder) for folder in wanted)
        return [desk for desk in found if desk is not None]

    def close(self) -> None:
        """Close every ledger."""
        for folder in list(self._open):
            self._close(folder)

    def _desk(self, folder: Path) -> ReviewDesk | None:
        ledger = Ledger(folder / STATE_FOLDER, url=self._url)
        file = None if self._url else files.identity(ledger.file)
        known = self._open.get(folder)
        if known is not None and known.file == file:
            return known.desk
        if known is not None:
            self._close(folder)
        if not (has_folder_identity(ledger.folder) if self._url else file):
            return None
        made = _OpenDesk(ReviewDesk(ledger.__enter__()), file)
        self._open[folder] = made
        return made.desk

    def _close(self, folder: Path) -> None:
        self._open.pop(folder).desk.ledger.__exit__(None, None, None)
