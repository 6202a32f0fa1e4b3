"""The folders in which a block's items were listed, and what they lack since."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct, field
from paddock.pipelines.expressions import ExpressionError, Value, steps_read
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.watches import PROCESSING, BoundWatch
from paddock.runner.folders.folder_identity import FolderIdentity, folder_identity_at, known_folder
from paddock.runner.progress.reasons import Reason
from paddock.steps.base import OutsideRoots
from paddock.steps.param_types import InputFolder
from paddock.steps.temporary_names import is_temporary_path

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import Entry
    from paddock.runner.ledger.output_index import OutputIndex

_PROVES_ABSENCE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENAMETOOLONG, errno.EINVAL)
)
"""Errors of a path below what can be looked at: the folder above it decides."""


class SourceFolder(Struct, frozen=True):
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
        return self.watch is not None and self.root == self.watch.root / PROCESSING

    @property
    def prunes(self) -> bool:
        return self.watch is not None and self.watch.keys.deletes.prune

    @property
    def most(self) -> float:
        """The share of its documents that may disappear at once without a question."""
        return MOST_DELETED if self.watch is None else self.watch.keys.deletes.most

    def cannot_list(self, file: str) -> bool:
        """Return whether a file may be there that no listing shows.

        The nearest folder above it tells, even where a file has the name of one between. A link
        that leads nowhere, or a folder that does not answer, may be a share that is away.
        """
        for folder in (self.root / file).parents:
            try:
                mode = folder.stat().st_mode
            except ValueError:  # no path has such a name
                continue
            except OSError as error:
                # `Path.is_symlink` raises where a name is too long
                if error.errno not in _PROVES_ABSENCE or os.path.islink(folder):  # noqa: PTH114
                    return True
                continue
            if stat.S_ISDIR(mode):
                return not os.access(folder, os.R_OK | os.X_OK)
        return True

    def is_temporary(self, file: str) -> bool:
        path = self.root / file
        is_below = path.is_relative_to(self.root) and os.path.lexists(path)
        return is_below and is_temporary_path(path.relative_to(self.root).as_posix())

    def unmounted(self, file: str) -> str | None:
        """Return the mount point above a file that has lost its mount, if one has."""
        if self.now is None or self.before is None:
            return None
        above = (self.root / file).parents
        return next(
            (at for at in self.before.lost_mounts(self.now) if self.root / at in above), None
        )


class DeletionDoubt(Struct, frozen=True):
    """Why missing documents do not count as deleted until a person confirms it."""

    folder: str
    """The folder as the ledger writes paths."""
    reason: Reason


class MissingSources(Struct, frozen=True, kw_only=True):
    """Items that a block's list no longer has."""

    deleted: tuple[Entry, ...] = ()
    dropped: tuple[Entry, ...] = ()
    """Entries from before `where` left them out."""
    pruned: frozenset[str] = frozenset()
    """Keys of filed items of which nothing is to be kept, since their documents are away."""
    absences: Mapping[str, Reason] = field(default_factory=dict)
    """Key of each of these → why the list has it no more."""
    doubts: tuple[DeletionDoubt, ...] = ()
    sources: tuple[SourceFolder, ...] = ()
    seen: Mapping[str, FolderIdentity] = field(default_factory=dict)
    """Identity of each folder in which items were seen, by stored path."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Key of a new item → key of the deleted one with the same content."""


def source_folders(
    bound: BoundPlan, index: OutputIndex, block: BoundBlock, scope: Scope, scope_id: str
) -> tuple[SourceFolder, ...]:
    """Return the folders that a block's items were listed in; `scope_id` is its scope. Blocking."""
    folders, read = list[SourceFolder](), steps_read(block.over.references)
    for step in bound.nodes:
        if not (isinstance(step, BoundStep) and step.has(InputFolder) and step.id in read):
            continue
        try:
            text = Value.of(step.given(InputFolder)).render(scope)
            root = bound.roots.resolve(str(text))
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            continue
        stored, now = index.stored(root), None
        with suppress(OSError):
            now = folder_identity_at(root)
        before = known_folder(
            now, map(FolderIdentity.of_text, index.ledger.roots(scope_id, stored))
        )
        watches = (watch for watch in bound.watches if root.is_relative_to(watch.root))
        folders.append(SourceFolder(root, stored, next(watches, None), now, before))
    return tuple(folders)
