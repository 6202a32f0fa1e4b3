"""Which missing documents were deleted: a block's folders compared with those seen before.

An unmounted share leaves a folder behind that is empty, or holds what a program wrote there since.
So files that are missing from another folder than the one in which they were seen are not deleted;
nor are those below a mount point at which nothing is mounted, or in a folder that cannot be
listed. Where outputs would be removed, a person is asked first if most documents went at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddock.pipelines.expressions import ExpressionError, Value
from paddock.steps.places import nearest
from paddock.steps.roots import OutsideRoots

from .binding.bound import BoundBlock, BoundPlan, BoundStep
from .binding.watches import PROCESSING, BoundWatch
from .ledger.entries import Entry
from .ledger.ledger import Ledger
from .ledger.outputs import Index
from .scope import Scope
from .watch.deletions import is_foreign, is_most, known_as
from .watch.filesystems import Folder, folder_at


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that a block's items were listed in."""

    root: Path
    stored: str
    """The folder as the ledger writes paths."""
    watch: BoundWatch | None
    """The watch that is on it."""
    now: Folder | None
    """Which folder lies there now; None: it cannot be looked at."""
    before: Folder | None
    """Which one lay there when items were seen in it last."""

    @property
    def is_hot(self) -> bool:
        """Whether documents leave it when they are done."""
        return self.watch is not None and self.root == self.watch.root / PROCESSING

    @property
    def prunes(self) -> bool:
        """Whether its watch has outputs of deleted documents removed."""
        return self.watch is not None and self.watch.keys.deletes.prune

    @property
    def most(self) -> float:
        """The share of its documents that may go at once without a question."""
        if self.watch is not None:
            return self.watch.keys.deletes.most
        from paddock.pipelines.triggers import MOST_DELETED  # models that a plan does without

        return MOST_DELETED

    def cannot_list(self, key: str) -> bool:
        """Return whether an item's file lay in a folder that cannot be listed now."""
        folder = nearest((self.root / key).parent)
        return not os.access(folder, os.R_OK | os.X_OK)

    def unmounted(self, key: str) -> str | None:
        """Return the mount point above an item's file that has lost its mount, if one has."""
        if self.now is None or self.before is None:
            return None
        return next((at for at in self.before.lost(self.now) if key.startswith(f"{at}/")), None)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why documents that are missing do not count as deleted, until a person confirms it."""

    folder: str
    """The folder as the ledger writes paths."""
    text: str


@dataclass(frozen=True, slots=True)
class Missing:
    """What is known of items that a block's list no longer has."""

    deleted: tuple[Entry, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    sources: tuple[Source, ...] = ()
    seen: Mapping[str, Folder] = field(default_factory=dict)
    """Which folders the items were seen in, to be kept: by the path as the ledger writes it."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Compares the folders of one pipeline's blocks with what the ledger has of them. Blocking."""

    bound: BoundPlan
    ledger: Ledger
    index: Index
    is_confirmed: bool
    """A person has confirmed that what is missing was deleted."""

    def missing(
        self, block: BoundBlock, scope: Scope, owner: str, n_known: int, absent: Sequence[Entry]
    ) -> Missing:
        """Decide about the items in `absent`, of `n_known` that were there; `owner` is a scope."""
        sources = tuple(self.of(block, scope, owner))
        deleted = tuple(
            one for one in absent if not any(source.cannot_list(one.key) for source in sources)
        )
        if any(source.is_hot for source in sources):
            return Missing((), (), sources)
        if self.is_confirmed:
            seen = {source.stored: source.now for source in sources if source.now is not None}
            return Missing(deleted, (), sources, seen)
        doubts: list[Doubt] = []
        seen = {}
        for source in sources:
            n_present = n_known - len(absent)
            if source.now is None or is_foreign(source.before, source.now, len(absent), n_present):
                return Missing((), (self._foreign(source, len(absent)),), sources)
            hidden = {one.key: source.unmounted(one.key) for one in deleted}
            lost = {at for at in hidden.values() if at is not None}
            deleted = tuple(one for one in deleted if hidden[one.key] is None)
            kept = {} if source.before is None else source.before.mounts
            mounts = {**source.now.mounts, **{at: kept[at] for at in lost}}
            seen[source.stored] = Folder(source.now.identity, mounts)
            doubts += [self._unmounted(source, at) for at in sorted(lost)]
        return Missing(deleted, tuple(doubts), sources, seen)

    def many(self, missing: Missing, n_deleted: int, n_known: int, *, prunes: bool) -> Doubt | None:
        """Return why `n_deleted` of `n_known` documents do not count as deleted.

        `prunes`: a person asks for the outputs of deleted documents to be removed.
        """
        for source in () if self.is_confirmed else missing.sources:
            if (prunes or source.prunes) and is_most(n_deleted, n_known, source.most):
                text = (
                    f"{n_deleted:,} of {n_known:,} documents of '{source.stored}' are gone at "
                    f"once, so what was made of them is kept. If they were deleted on purpose, "
                    f"run it with `{'--prune ' if prunes else ''}--yes`."
                )
                return Doubt(source.stored, text)
        return None

    def keep(self, owner: str, missing: Missing) -> None:
        """Write down in which folders a block's items were seen."""
        for source in missing.sources:
            seen = missing.seen.get(source.stored)
            if seen is not None and seen != source.before:
                self.ledger.record_root(owner, source.stored, seen.as_text())
            if source.watch is not None and self.is_confirmed:
                folder = _folder(source.watch.root)
                if folder is not None:
                    self.ledger.record_root(source.watch.name, "", folder.as_text())

    def _foreign(self, source: Source, n_absent: int) -> Doubt:
        text = (
            f"'{source.stored}' is not the folder in which {n_absent:,} missing "
            f"{'document was' if n_absent == 1 else 'documents were'} seen: it was made again, or "
            f"something is not mounted. Nothing counts as deleted. "
            f"If it is the right one, run it with `--yes`."
        )
        return Doubt(source.stored, text)

    def _unmounted(self, source: Source, at: str) -> Doubt:
        text = (
            f"'{source.stored}/{at}' is not mounted as it was when documents were seen in it. "
            f"Nothing there counts as deleted. If they were deleted, run it with `--yes`."
        )
        return Doubt(f"{source.stored}/{at}", text)

    def of(self, block: BoundBlock, scope: Scope, owner: str) -> Iterator[Source]:
        """Yield the folders that a block's items were listed in."""
        for step in self.bound.nodes:
            if not isinstance(step, BoundStep) or step.uses != "files.scan":
                continue
            if ("steps", step.id) not in {path[:2] for path in block.over.references}:
                continue
            root = self._root(step, scope)
            if root is None:
                continue
            stored, now = self.index.stored(root), _folder(root)
            before = known_as(now, map(Folder.of_text, self.ledger.roots(owner, stored)))
            yield Source(root, stored, self._watch_on(root), now, before)

    def _watch_on(self, root: Path) -> BoundWatch | None:
        around = (watch for watch in self.bound.watches if root.is_relative_to(watch.root))
        return next(around, None)

    def _root(self, step: BoundStep, scope: Scope) -> Path | None:
        try:
            text = Value.of(step.params.value.data["root"]).render(scope)
            return self.bound.roots.resolve(str(text))
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            return None


def _folder(root: Path) -> Folder | None:
    try:
        return folder_at(root)
    except OSError:
        return None
