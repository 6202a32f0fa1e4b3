"""Outputs that a person edited, or that are not ours: they are kept, and their item is held.

`steps.files.write` writes over none; the item's entry keeps a mark of the file with what
would have been written. The item is held until the file is as it was, or as it would have become,
is gone, or a run replaces it (`--take`). What is only lost is made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import listed
from paddock.runner.bind.bound import BoundBlock, all_steps
from paddock.runner.ledger.output_index import OutputIndex

HELD = "held"
"""First word of the mark of an edited file that was kept."""

LOST_FILE, LOST_ROWS = "output is missing: ", "its rows are missing in the store: "
EDITED_FILE, KEPT_NO_MORE = "output was edited: ", "output is not edited any more: "
"""Reasons for which only lost outputs are made again."""


def is_loss(reason: str | None) -> bool:
    """Return whether a reason is a missing output."""
    beginnings = (LOST_FILE, LOST_ROWS, EDITED_FILE, KEPT_NO_MORE)
    return reason is not None and reason.startswith(beginnings)


def held_text(paths: Sequence[str]) -> str:
    """Return why an item is held.

    >>> held_text(["out/a.md"]), held_text(["a", "b", "c", "d"])
    ('edited, or not ours, and kept: out/a.md', 'edited, or not ours, and kept: a, b, c and 1 more')
    """
    return f"edited, or not ours, and kept: {listed(paths, 3)}"


def held_mark(stored: str, sha256: str) -> dict[str, list[Any]]:
    """Mark an edited file that is kept, and the digest that would have been written."""
    return {f"{HELD} {stored}": [HELD, stored, sha256]}


def held_paths(reads: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the stored paths of the files that are marked as held."""
    return [mark[1] for mark in reads.values() if mark[0] == HELD]


def why_writable(index: OutputIndex, path: str, ours: str, edited: list[str]) -> str | None:
    """Return why an edited file that was kept can be written now; else add it to `edited`."""
    absolute = Path(index.absolute(path))
    try:
        there = sha256_of(absolute)  # not `digest`: this run may write it
    except OSError:
        return f"{LOST_FILE}{path}"
    if there == ours:
        return None
    if there in index.known_sha256(absolute):
        return f"{KEPT_NO_MORE}{path}"
    edited.append(path)
    return None


def overwrites_edited(block: BoundBlock) -> bool:
    """Return whether a block overwrites edited files (`on_edited`)."""
    writes = [step for step in all_steps(block.body) if step.uses == "files.write"]
    return bool(writes) and all(step.written.get("on_edited") == "overwrite" for step in writes)
