"""What a step leaves for the end of a run, when its results are in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from paddock.engine.system.records import Struct


class FolderAtEnd(Struct, frozen=True):
    """What the ledger has of a folder at a run's end; names are relative to it."""

    done: Collection[str]
    """Documents whose items are done."""
    outputs: Collection[str]
    pipeline: str
    """Its name among all that work on the folder, which it keeps when its file is renamed."""
    former_names: Collection[str]
    """That earlier versions of Paddock gave it."""
    applies: Callable[[str], bool]
    """Whether the ledger has a file, by its absolute path, as an output of this pipeline that is
    made still."""
    folders: Collection[Path]
    """Those of all such actions of the run."""
    takes_over: bool
    """Whether it may write in place of what another program wrote."""


class RunEndAction(Protocol):
    """Marks documents in their source, say, or sends outputs."""

    @property
    def folder(self) -> Path: ...

    def finish(self, at_end: FolderAtEnd) -> list[str]:
        """Do it, and return notes on what is left to the next run. Blocks.

        Raises:
            StepError: the run fails.
        """
