"""The world of now, against which traces are verified; nothing else asks the disk about items.

It knows files, folders, stores, models, labels, and what people decided. One world serves a run.
`preparation.prepare` looks at all that some traces need, at once, and returns the world of a block:
a copy with that block's lists of labels, which shares what was seen on the disk (`SeenFiles`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.files import content_stamp, sha256_of
from paddock.engine.system.records import Struct, field
from paddock.pipelines.label_choices import LabelList
from paddock.runner.answers.text_vectors import Matrix
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.progress.reasons import Reason
from paddock.steps.base import Roots, StepError, Vector
from paddock.steps.files.scan import FilesScanParams, scan_folder
from paddock.steps.item_rows import ItemRows
from paddock.steps.tables.database_tables import DatabaseTables
from paddock.steps.vectors.open_stores import OpenStores

from .parts import part_digest

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundStep
    from paddock.runner.ledger.ledger import Ledger
    from paddock.runner.ledger.output_index import OutputIndex

    from ..calls.run_models import RunModels
    from .past_decisions import PendingReview, StepDecisions
    from .scopes import StepName


class LabelVectors(Struct, frozen=True):
    labels: Sequence[str]
    model: str
    """Identity of the model that made the vectors."""
    rows: Matrix


EmbedLabels = Callable[["BoundStep", Sequence[str]], Awaitable[tuple[str, Sequence[Vector]] | None]]
"""Returns the identity of a step's embedding model, and vectors; None: these are not known."""


class SeenFiles(Struct, frozen=True):
    """What a run has seen on the disk: held once, and filled by all its blocks."""

    reasons: dict[Hashable, Reason] = field(default_factory=dict)
    """Why files are not as they were, by dependency, as far as some were looked at."""
    contents: dict[str, tuple[tuple[int, int, int, int], str]] = field(default_factory=dict)
    """The stamp and the sha256 of each file, by path."""
    listings: dict[tuple[str, str], str] = field(default_factory=dict)
    """The digest of what a folder has, by folder and parameters of the scan."""
    listed: set[tuple[str, str]] = field(default_factory=set)
    """Those of `listings` that are not from before the last outermost block began."""


class World(Struct, frozen=True):
    # Of the run.
    index: OutputIndex
    stores: OpenStores
    tables: DatabaseTables
    models: RunModels
    secrets: Secrets = field(default_factory=Secrets)
    """Without a digest nothing that is made of secrets is compared."""
    embed_labels: EmbedLabels | None = None
    """Embeds labels that are new to a list; a plan has only vectors that the ledger knows."""
    seen: SeenFiles = field(default_factory=SeenFiles)
    # Of the block.
    decisions: Mapping[StepName, StepDecisions] = field(default_factory=dict)
    """What people decided about the answers of each step."""
    pending: Callable[[str, str], PendingReview | None] = lambda scope_id, key: None
    """Returns what of an item waits for a person, or was decided since its last run."""
    lists: Mapping[str, LabelList] = field(default_factory=dict)
    """The lists of labels that are known before any item, by name."""
    label_vectors: Mapping[str, LabelVectors] = field(default_factory=dict)
    """The vectors of new labels, by list, where the nearest labels were offered to an item."""

    @property
    def ledger(self) -> Ledger:
        return self.index.ledger

    def rows_at(self, path: Path) -> ItemRows:
        """Return what holds the rows of items in a store, or in a table of a database."""
        return self.tables if self.tables.has(path) else self.stores

    def content(self, path: str) -> tuple[tuple[int, int, int, int], str]:
        """Return the stamp and the sha256 of a file; it is hashed once, unless it changes."""
        stamp = content_stamp(os.stat(path))  # noqa: PTH116 - 10,000 times in a run
        known = self.seen.contents.get(path)
        if known is None or known[0] != stamp:
            known = self.seen.contents[path] = stamp, sha256_of(Path(path))
        return known

    def digest(self, path: str) -> str:
        return self.content(path)[1]

    def is_there(self, stored: str) -> bool:
        return os.path.lexists(self.index.absolute(stored))


class PreparedWorld(World, frozen=True):
    """What `prepare` returns: only of the traces that it has looked at is anything verified."""


def scan_digest(folder: str, scan_params: str, roots: Roots, owned: frozenset[str]) -> str:
    """Return the digest of what a scan finds; empty where the folder cannot be listed. Blocks."""
    try:
        params = FilesScanParams.model_validate({**json.loads(scan_params), "root": folder})
        files = scan_folder(params, Path(folder), roots.allowed, owned).files
    except (OSError, ValueError, StepError):
        return ""
    return listing_digest((file["relpath"], file["sha256"]) for file in files)


def listing_digest(files: Iterable[tuple[str, str | None]]) -> str:
    return part_digest(sorted(files))
