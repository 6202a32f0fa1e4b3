"""Deleted documents: those missing from the folder in which they were seen before.

An unmounted share leaves a folder behind that is empty or holds what a program wrote there since,
so files do not count as deleted below a mount point with nothing mounted, in a folder that cannot
be listed, or when the folder is another one. Where outputs would be removed and most documents went
at once, a person is asked first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep
from paddock.runner.bind.document_folders import PROCESSING, BoundWatch
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.folder_identity import FolderIdentity, folder_identity_at, known_folder
from paddock.runner.folders.missing_files import is_mass_deletion, is_other_folder
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.steps.base import OutsideRoots
from paddock.steps.paths import nearest_existing


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A folder that a block's items were listed in."""

    root: Path
    stored: str
    """The folder, as stored in the ledger."""
    watch: BoundWatch | None
    """The watch on this folder."""
    now: FolderIdentity | None
    """Identity of the folder now; None: not readable."""
    before: FolderIdentity | None
    """Identity of the folder when items were last seen in it."""

    @property
    def is_hot(self) -> bool:
        """Whether documents leave the folder when they are done."""
        return self.watch is not None and self.root == self.watch.root / PROCESSING

    @property
    def prunes(self) -> bool:
        """Whether its watch removes outputs of deleted documents."""
        return self.watch is not None and self.watch.keys.deletes.prune

    @property
    def most(self) -> float:
        """The share of its documents that may disappear at once without a question."""
        if self.watch is not None:
            return self.watch.keys.deletes.most
        return MOST_DELETED

    def cannot_list(self, key: str) -> bool:
        """Return whether an item's file lay in a folder that cannot be listed now."""
        folder = nearest_existing((self.root / key).parent)
        return not os.access(folder, os.R_OK | os.X_OK)

    def unmounted(self, key: str) -> str | None:
        """Return the mount point above an item's file that has lost its mount, if one has."""
        if self.now is None or self.before is None:
            return None
        return next((at for at in self.before.lost(self.now) if key.startswith(f"{at}/")), None)


@dataclass(frozen=True, slots=True)
class DeletionDoubt:
    """Why missing documents do not count as deleted until a person confirms it."""

    folder: str
    """The folder as the ledger writes paths."""
    text: str


@dataclass(frozen=True, slots=True)
class MissingSources:
    """Items that a block's list no longer has."""

    deleted: tuple[Entry, ...] = ()
    doubts: tuple[DeletionDoubt, ...] = ()
    sources: tuple[SourceFolder, ...] = ()
    seen: Mapping[str, FolderIdentity] = field(default_factory=dict)
    """Identity of each folder in which items were seen, by stored path."""


@dataclass(frozen=True, slots=True)
class DeletionDetector:
    """Compares the folders of a pipeline's blocks with the ledger. Blocking."""

    bound: BoundPlan
    ledger: Ledger
    index: OutputIndex
    is_confirmed: bool
    """A person has confirmed that missing documents were deleted."""

    def missing(
        self, block: BoundBlock, scope: Scope, owner: str, n_known: int, absent: Sequence[Entry]
    ) -> MissingSources:
        """Decide which `absent` items were deleted, of `n_known`; `owner` is a scope."""
        sources = tuple(self.of(block, scope, owner))
        deleted = tuple(
            gone for gone in absent if not any(source.cannot_list(gone.key) for source in sources)
        )
        n_absent, seen = len(absent), {src.stored: src.now for src in sources if src.now}
        if any(source.is_hot for source in sources):
            return MissingSources((), (), sources)
        if self.is_confirmed:
            return MissingSources(deleted, (), sources, seen)
        for source in sources:
            if source.now is None or is_other_folder(
                source.before, source.now, n_absent, n_known - n_absent
            ):
                return MissingSources((), (self._foreign(source, n_absent),), sources)
        return self._below_mounts(MissingSources(deleted, (), sources, seen))

    def _below_mounts(self, missing: MissingSources) -> MissingSources:
        """Keep what was seen on a mount below a folder that is not there now."""
        deleted, doubts, seen = missing.deleted, list[DeletionDoubt](), dict(missing.seen)
        for source in missing.sources:
            hidden = {gone.key: source.unmounted(gone.key) for gone in deleted}
            lost = {at for at in hidden.values() if at is not None}
            deleted = tuple(gone for gone in deleted if hidden[gone.key] is None)
            kept = {at: source.before.mounts[at] for at in lost} if source.before else {}
            now = seen[source.stored]
            seen[source.stored] = replace(now, mounts={**now.mounts, **kept})
            doubts += [self._unmounted(source, at) for at in sorted(lost)]
        return MissingSources(deleted, tuple(doubts), missing.sources, seen)

    def many(
        self, missing: MissingSources, n_deleted: int, n_known: int, *, prunes: bool
    ) -> DeletionDoubt | None:
        """Return why `n_deleted` of `n_known` documents do not count as deleted.

        `prunes`: a person asks for the outputs of deleted documents to be removed.
        """
        for source in () if self.is_confirmed else missing.sources:
            if (prunes or source.prunes) and is_mass_deletion(n_deleted, n_known, source.most):
                text = (
                    f"{n_deleted:,} of {n_known:,} documents of '{source.stored}' are gone at "
                    f"once, so what was made of them is kept. If they were deleted on purpose, "
                    f"run it with `{'--prune ' if prunes else ''}--yes`."
                )
                return DeletionDoubt(source.stored, text)
        return None

    def keep(self, owner: str, missing: MissingSources) -> None:
        """Record the folders in which a block's items were seen."""
        for source in missing.sources:
            seen = missing.seen.get(source.stored)
            if seen is not None and seen != source.before:
                self.ledger.record_root(owner, source.stored, seen.as_text())
            if source.watch is not None and self.is_confirmed:
                folder = _mounted_folder(source.watch.root)
                if folder is not None:
                    self.ledger.record_root(source.watch.name, "", folder.as_text())

    def _foreign(self, source: SourceFolder, n_absent: int) -> DeletionDoubt:
        text = (
            f"'{source.stored}' is not the folder in which {n_absent:,} missing "
            f"{'document was' if n_absent == 1 else 'documents were'} seen: it was made again, or "
            f"something is not mounted. Nothing counts as deleted. "
            f"If it is the right one, run it with `--yes`."
        )
        return DeletionDoubt(source.stored, text)

    def _unmounted(self, source: SourceFolder, at: str) -> DeletionDoubt:
        text = (
            f"'{source.stored}/{at}' is not mounted as it was when documents were seen in it. "
            f"Nothing there counts as deleted. If they were deleted, run it with `--yes`."
        )
        return DeletionDoubt(f"{source.stored}/{at}", text)

    def of(self, block: BoundBlock, scope: Scope, owner: str) -> Iterator[SourceFolder]:
        """Yield the folders that a block's items were listed in."""
        for step in self.bound.nodes:
            if not isinstance(step, BoundStep) or step.uses != "files.scan":
                continue
            if ("steps", step.id) not in {path[:2] for path in block.over.references}:
                continue
            try:
                text = Value.of(step.written["root"]).render(scope)
                root = self.bound.roots.resolve(str(text))
            except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
                root = None
            if root is None:
                continue
            stored, now = self.index.stored(root), _mounted_folder(root)
            before = known_folder(
                now, map(FolderIdentity.of_text, self.ledger.roots(owner, stored))
            )
            watches = (watch for watch in self.bound.watches if root.is_relative_to(watch.root))
            yield SourceFolder(root, stored, next(watches, None), now, before)


def _mounted_folder(root: Path) -> FolderIdentity | None:
    try:
        return folder_identity_at(root)
    except OSError:
        return None
