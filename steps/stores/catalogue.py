"""What a store holds, in short, without the library: a file beside its table.

Opening a table takes a second for the library alone, and a plan of documents that are all fresh
takes less than that. So who last wrote to a store leaves its sums beside it, together with the
names of the table's versions then; where those are others by now, the file says nothing any more
and the table itself is asked. It is never the truth, only a copy of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paddock.steps.storage import EmbedModel

from .rows import Sum

TABLE = "rows"
"""The table's name in the library's folder of tables, which a store is."""
FILE = ".paddock.json"
LOCK = ".write.lock"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Label:
    """Whose vectors a store holds, and how long they are; written once, with its table."""

    model: EmbedModel
    dimensions: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a store holds at one version of its table."""

    label: Label
    sums: Mapping[str, Sum]
    """What each owner has."""
    indexed: str = ""
    """The content for which words were last indexed; empty for none."""

    @property
    def whole(self) -> Sum:
        """Give what all rows come to."""
        total = Sum()
        for one in self.sums.values():
            total += one
        return total


def content_of(label: Label, whole: Sum) -> str:
    """Name what a store holds: the same for the same rows, in whatever order they came."""
    said = f"{label.model.digest}\n{label.dimensions}\n{whole.text}"
    return hashlib.sha256(said.encode()).hexdigest()


def is_store(path: Path) -> bool:
    """Tell whether a folder is a store, by its table's folder."""
    return table_folder(path).is_dir()


def table_folder(path: Path) -> Path:
    """Give the folder of a store's table."""
    return path / f"{TABLE}.lance"


def state(path: Path) -> str:
    """Name a table's state by its versions' files; empty where there is no table."""
    try:
        with os.scandir(table_folder(path) / "_versions") as listing:
            found = sorted((one.name, one.stat().st_size) for one in listing)
    except OSError:
        return ""
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def read(path: Path) -> Catalogue | None:
    """Give what a store holds, if its file tells of the table as it is now."""
    try:
        found = json.loads((path / FILE).read_text("utf-8"))
        if found["version"] != _VERSION or found["state"] != state(path):
            return None
        model = EmbedModel(found["model"]["ref"], found["model"]["digest"])
        sums = {owner: Sum.read(text) for owner, text in found["owners"].items()}
        return Catalogue(Label(model, int(found["dimensions"])), sums, str(found["indexed"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # of another version, or damaged: the table is asked


def write(path: Path, catalogue: Catalogue) -> None:
    """Leave it beside the table, as the table is now. That it cannot be written costs only time."""
    model = catalogue.label.model
    said = {
        "version": _VERSION,
        "state": state(path),
        "model": {"ref": model.ref, "digest": model.digest},
        "dimensions": catalogue.label.dimensions,
        "indexed": catalogue.indexed,
        "owners": {owner: one.text for owner, one in sorted(catalogue.sums.items())},
    }
    aside = path / f"{FILE}.new"  # whoever writes it holds the store
    with contextlib.suppress(OSError):
        aside.write_text(json.dumps(said, separators=(",", ":")), "utf-8")
        aside.replace(path / FILE)
