"""What a vector store holds, as its last writer left it beside the table; needs no library.

Loading the library takes a second, longer than a whole plan of fresh documents. So the last writer
of a store leaves its sums in a file next to the table, with the state of the table's versions;
where that state has changed, the manifest is stale and the table itself is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from paddock.engine.system.files import write_json_atomically
from paddock.engine.system.records import Struct
from paddock.steps.base import EmbedModel, StepError
from paddock.steps.item_rows import RowSum

TABLE_NAME = "rows"
"""The table's name in the library's folder of tables, which a store is."""
MANIFEST_NAME = ".paddock.json"
LOCK_NAME = ".write.lock"
_MANIFEST_VERSION = 1


class StoreFormat(Struct, frozen=True):
    """The model and the dimensions of a store's vectors; written once, with its table."""

    model: EmbedModel
    dimensions: int


class StoreManifest(Struct, frozen=True):
    label: StoreFormat
    sums: Mapping[str, RowSum]
    """The rows of each owner."""
    indexed: str = ""
    """The content when words were last indexed; empty for never."""

    @property
    def whole(self) -> RowSum:
        return sum(self.sums.values(), RowSum())


def content_digest(label: StoreFormat, whole: RowSum) -> str:
    """Return a digest of a store's content, independent of the order of writes."""
    text = f"{label.model.digest}\n{label.dimensions}\n{whole.text}"
    return hashlib.sha256(text.encode()).hexdigest()


def is_store(path: Path) -> bool:
    """Return whether a folder is a store, by its table's folder."""
    return table_folder(path).is_dir()


def table_folder(path: Path) -> Path:
    return path / f"{TABLE_NAME}.lance"


def table_state(path: Path) -> str:
    """Return a table's state, from its version files; empty if there is no table."""
    try:
        with os.scandir(table_folder(path) / "_versions") as listing:
            found = sorted((entry.name, entry.stat().st_size) for entry in listing)
    except OSError:
        return ""
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def read_manifest(path: Path) -> StoreManifest | None:
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
        return None  # another version, or damaged: the table is read


def write_manifest(path: Path, manifest: StoreManifest) -> None:
    """Write the manifest next to the table. A failure only costs time."""
    model = manifest.label.model
    data = {
        "version": _MANIFEST_VERSION,
        "state": table_state(path),
        "model": {"ref": model.ref, "digest": model.digest},
        "dimensions": manifest.label.dimensions,
        "indexed": manifest.indexed,
        "owners": {owner: row_sum.text for owner, row_sum in sorted(manifest.sums.items())},
    }
    with contextlib.suppress(OSError):
        write_json_atomically(path / MANIFEST_NAME, data, mode=None)


def refuse_other_model(path: Path, label: StoreFormat, requested: StoreFormat) -> None:
    """Check that a store's vectors can be compared with those of another format."""
    remedy = "use another folder for the store, or delete that one to create it again."
    if label.model.digest != requested.model.digest:
        is_renewed = label.model.ref == requested.model.ref
        raise StepError(
            f"the store '{path}' holds vectors of model '{label.model.ref}', and those of "
            f"'{requested.model.ref}' cannot be compared with them"
            + (" (its file is another one now)." if is_renewed else "."),
            remedy=f"U{remedy[1:]}" if is_renewed else f"Use `model: {label.model.ref}`, {remedy}",
            is_fatal=True,
        )
    if requested.dimensions and label.dimensions != requested.dimensions:
        raise StepError(
            f"the store '{path}' holds vectors of {label.dimensions:,} dimensions, not of "
            f"{requested.dimensions:,}.",
            remedy=f"Use `dimensions: {label.dimensions}`, {remedy}",
            is_fatal=True,
        )


class MissingTable(Exception):
    """The folder has no table."""
