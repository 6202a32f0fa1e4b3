"""Manifest of a vector store: what it holds, in a file next to its table; store errors.

Opening a table takes a second for the library alone, and a plan of fresh documents takes less than
that. So the last writer of a store leaves its sums next to it, together with the state of the
table's versions; where that state has changed, the manifest is stale and the table itself is
asked. It is never the truth, only a copy of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from paddock.steps.base import EmbedModel, StepError

from .row_changes import RowSum

TABLE_NAME = "rows"
"""The table's name in the library's folder of tables, which a store is."""
MANIFEST_NAME = ".paddock.json"
LOCK_NAME = ".write.lock"
_MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoreFormat:
    """Whose vectors a store holds, and how long they are; written once, with its table."""

    model: EmbedModel
    dimensions: int


@dataclass(frozen=True, slots=True)
class StoreManifest:
    """What a store holds at one version of its table."""

    label: StoreFormat
    sums: Mapping[str, RowSum]
    """What each owner has."""
    indexed: str = ""
    """The content for which words were last indexed; empty for none."""

    @property
    def whole(self) -> RowSum:
        """Return what all rows come to."""
        total = RowSum()
        for one in self.sums.values():
            total += one
        return total


def content_digest(label: StoreFormat, whole: RowSum) -> str:
    """Name what a store holds: the same for the same rows, in whatever order they came."""
    said = f"{label.model.digest}\n{label.dimensions}\n{whole.text}"
    return hashlib.sha256(said.encode()).hexdigest()


def is_store(path: Path) -> bool:
    """Return whether a folder is a store, by its table's folder."""
    return table_folder(path).is_dir()


def table_folder(path: Path) -> Path:
    """Return the folder of a store's table."""
    return path / f"{TABLE_NAME}.lance"


def table_state(path: Path) -> str:
    """Name a table's state by its versions' files; empty where there is no table."""
    try:
        with os.scandir(table_folder(path) / "_versions") as listing:
            found = sorted((one.name, one.stat().st_size) for one in listing)
    except OSError:
        return ""
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def read_manifest(path: Path) -> StoreManifest | None:
    """Return what a store holds, if its file tells of the table as it is now."""
    try:
        found = json.loads((path / MANIFEST_NAME).read_text("utf-8"))
        if found["version"] != _MANIFEST_VERSION or found["state"] != table_state(path):
            return None
        model = EmbedModel(found["model"]["ref"], found["model"]["digest"])
        sums = {owner: RowSum.read(text) for owner, text in found["owners"].items()}
        return StoreManifest(
            StoreFormat(model, int(found["dimensions"])), sums, str(found["indexed"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # of another version, or damaged: the table is asked


def write_manifest(path: Path, catalogue: StoreManifest) -> None:
    """Leave it beside the table, as the table is now. That it cannot be written costs only time."""
    model = catalogue.label.model
    said = {
        "version": _MANIFEST_VERSION,
        "state": table_state(path),
        "model": {"ref": model.ref, "digest": model.digest},
        "dimensions": catalogue.label.dimensions,
        "indexed": catalogue.indexed,
        "owners": {owner: one.text for owner, one in sorted(catalogue.sums.items())},
    }
    aside = path / f"{MANIFEST_NAME}.new"  # whoever writes it holds the store
    with contextlib.suppress(OSError):
        aside.write_text(json.dumps(said, separators=(",", ":")), "utf-8")
        aside.replace(path / MANIFEST_NAME)


def refuse_other_model(path: Path, label: StoreFormat, wanted: StoreFormat) -> None:
    """Make sure that a store's vectors can be compared with those of another label.

    Raises:
        StepError: they cannot.
    """
    anew = "name another folder for the store, or delete that one to have it made anew."
    if label.model.digest != wanted.model.digest:
        is_renewed = label.model.ref == wanted.model.ref
        raise StepError(
            f"the store '{path}' holds vectors of model '{label.model.ref}', and those of "
            f"'{wanted.model.ref}' cannot be compared with them"
            + (" (its file is another one now)." if is_renewed else "."),
            remedy=f"N{anew[1:]}" if is_renewed else f"Use `model: {label.model.ref}`, {anew}",
            is_fatal=True,
        )
    if wanted.dimensions and label.dimensions != wanted.dimensions:
        raise StepError(
            f"the store '{path}' holds vectors of {label.dimensions:,} dimensions, not of "
            f"{wanted.dimensions:,}.",
            remedy=f"Use `dimensions: {label.dimensions}`, {anew}",
            is_fatal=True,
        )


@contextlib.contextmanager
def store_errors(path: Path, what: str) -> Iterator[None]:
    """Say in words of ours what the library cannot do; `what`: read or written."""
    try:
        yield
    except StepError:
        raise
    except Exception as error:  # the library raises many kinds, RuntimeError for most
        raise _store_error(path, what, error) from error


def _store_error(path: Path, what: str, error: Exception) -> StepError:
    said = " ".join(str(error).split())
    if "No space left" in said or "Disk quota" in said:
        return StepError(
            f"the store '{path}' cannot be written: the disk is full.",
            remedy="Make room, then run the same command again.",
            is_fatal=True,
            kind="io",
        )
    if "Permission denied" in said or "Read-only file system" in said:
        return StepError(
            f"the store '{path}' cannot be written: permission denied.",
            remedy="Give yourself the right to write there, or name another folder.",
            kind="io",
        )
    return StepError(
        f"the store '{path}' cannot be {what} ({said[:200]}).",
        remedy="If it is broken, delete that folder and run what fills it again: the vectors are "
        "remembered, so that no model is asked for them.",
        kind="io",
    )
