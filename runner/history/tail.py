"""Read a run's journal as it grows: each line once, half-written ones when they are whole."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 1024**2  # a journal is bounded; something else may lie under its name


class Tail:
    """The lines of one journal; `more` gives those that came since."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0
        self._rest = b""

    def more(self) -> list[dict[str, Any]]:
        """Give the lines that were written since the last call; none where there is no file."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._at)
                found = stream.read(MOST_BYTES)
        except OSError:
            return []
        self._at += len(found)
        whole, newline, self._rest = (self._rest + found).rpartition(b"\n")
        lines = (_line(text) for text in (whole + newline).splitlines())
        return [line for line in lines if line is not None]


class Progress:
    """How far a running run is, of its journal."""

    def __init__(self, file: Path) -> None:
        self._tail = Tail(file)
        self._totals: dict[str, int] = {}
        self._ended: Counter[str] = Counter()
        self.n_bad = 0

    def look(self) -> tuple[int, int]:
        """Give how many items have ended, and of how many that are known by now."""
        for line in self._tail.more():
            step = str(line.get("step"))
            if line.get("event") == "step" and isinstance(line.get("items"), int):
                self._totals[step] = line["items"]
                self._ended[step] += int(line.get("fresh") or 0)
            elif line.get("event") == "item" and step in self._totals:  # no block within another
                self._ended[step] += 1
            if line.get("event") == "item" and line.get("state") in ("failed", "quarantined"):
                self.n_bad += 1
        return sum(self._ended.values()), sum(self._totals.values())


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
