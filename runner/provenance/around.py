"""What stands around an item, and how it is now: folders that it listed, stores.

Compares the marks of its entry, as a plan does, but all of them: a plan needs one reason only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddock.runner.evidence import LISTED, ROWS, STORE, Evidence
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.outputs import Index
from paddock.steps.roots import Roots

from .find import Trace
from .origin import Change
from .since import marks_of


class Around:
    """Looks at each folder and store once, for all items that are asked about."""

    def __init__(self, ledger: Ledger, base: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._evidence: dict[str, Evidence] = {}

    async def changes(self, trace: Trace, roots: Roots, subject: str = "it") -> list[Change]:
        """Tell what is not as it was; `subject` names the item in what is told."""
        marks = [(path, mark) for path, mark in marks_of(trace).items() if mark[0] in _TOLD]
        if trace.entry is None or not marks:
            return []
        evidence = self._of(trace.place.file)
        await evidence.look([trace.entry], roots)
        return [
            Change(self._words(path, mark, subject))
            for path, mark in marks
            if not evidence.agrees(path, mark)
        ]

    def _of(self, file: str) -> Evidence:
        """Give what compares for the items of one pipeline: its own outputs are in no listing."""
        if file not in self._evidence:
            scopes = self._ledger.scopes_of(file)
            self._evidence[file] = Evidence(Index(self._ledger, self._base, scopes))
        return self._evidence[file]

    def _words(self, path: str, mark: Sequence[Any], subject: str) -> str:
        what, now = _TOLD[mark[0]]
        path = mark[1] if mark[0] == ROWS else path.removesuffix("/")
        is_there = (self._base / path).is_dir()
        return f"{what.format(subject)} {now if is_there else 'is gone'}: {path}"


_TOLD = {
    LISTED: ("a folder that {} listed", "holds something else now"),
    STORE: ("a store that {} searched", "holds something else now"),
    ROWS: ("a store that {} kept rows in", "has not all of them as they were"),
}
