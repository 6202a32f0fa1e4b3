"""What a watch keeps between its lives: which version of each file has been seen through.

The real one lies in the ledger of the pipeline's folder. Blocking; each call opens and closes it,
since runs, which are other processes, write there too and a watch does so seldom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..ledger.entries import LedgerError  # noqa: TID252 - the same class in either way of importing
from ..ledger.ledger import Ledger  # noqa: TID252 - the same class in either way of importing
from .filesystems import Folder
from .spec import UNKNOWN, Identity

_EPOCH = ""
"""The row that counts: no file below a root has an empty path."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a watch."""

    done: Mapping[str, Identity] = field(default_factory=dict)
    epoch: int = 0
    roots: Sequence[Folder] = ()
    """Which folder lay at the root, as each machine saw it last; this one's first."""


class Book(Protocol):
    """Keeps what a watch knows. Every method blocks, and raises `LedgerError` if it cannot."""

    def read(self) -> Known:
        """Give what is kept."""
        ...

    def owned(self) -> frozenset[str]:
        """Give the absolute paths below the root that the pipeline itself wrote."""
        ...

    def record(
        self, run: str, files: Mapping[str, Identity], gone: Iterable[str], epoch: int
    ) -> None:
        """Write which versions have been seen through, and forget those that are gone."""
        ...

    def record_root(self, folder: Folder) -> None:
        """Write which folder lies at the root."""
        ...


class LedgerBook:
    """Implements `Book` in the ledger of a pipeline's folder."""

    def __init__(self, watch: str, root: Path, file: Path, opens: Callable[[bool], Ledger]) -> None:
        """Take the watch's name and root, the pipeline's file, and what opens the ledger.

        `opens` is asked with True where nothing will be written.
        """
        self._watch = watch
        self._prefix = f"{root}{os.sep}"
        self._file = file
        self._opens = opens

    def read(self) -> Known:
        """Give what is kept."""
        with _answering(), self._opens(True) as ledger:
            rows = ledger.watched(self._watch)
            roots = tuple(map(Folder.of_text, ledger.roots(self._watch, "")))
        epoch, _ = rows.pop(_EPOCH, (0, 0))
        return Known(rows, epoch, roots)

    def owned(self) -> frozenset[str]:
        """Give the absolute paths below the root that the pipeline itself wrote."""
        base = f"{self._file.parent.resolve()}{os.sep}"
        with _answering(), self._opens(True) as ledger:
            scopes = ledger.scopes_of(self._file.name)
            paths = (
                row.path if os.path.isabs(row.path) else base + row.path  # noqa: PTH117 - many
                for row in ledger.outputs()
                if row.scope in scopes
            )
            return frozenset(path for path in paths if path.startswith(self._prefix))

    def record(
        self, run: str, files: Mapping[str, Identity], gone: Iterable[str], epoch: int
    ) -> None:
        """Write which versions have been seen through, and forget those that are gone."""
        with _answering(), self._opens(False) as ledger:
            ledger.record_watched(self._watch, run, {**files, _EPOCH: (epoch, 0)}, gone)
        if ledger.error is not None:
            raise ledger.error

    def record_root(self, folder: Folder) -> None:
        """Write which folder lies at the root."""
        with _answering(), self._opens(False) as ledger:
            ledger.record_root(self._watch, "", folder.as_text())
        if ledger.error is not None:
            raise ledger.error


@contextmanager
def _answering() -> Iterator[None]:
    """Make a failure of whichever database it is one that a watch waits out."""
    try:
        yield
    except LedgerError:
        raise
    except Exception as error:
        raise LedgerError(f"the ledger does not answer ({error})") from error


def unknown(relpaths: Iterable[str]) -> dict[str, Identity]:
    """Give what is kept of files while a run has them."""
    return dict.fromkeys(relpaths, UNKNOWN)
