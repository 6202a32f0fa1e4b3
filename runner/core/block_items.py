"""The items of a block: its list, stable keys, renamed and deleted sources.

- Renamed: a new item with the content of a deleted one, one for one. A renamed document costs no
  calls, unless its name is part of a prompt; what was made under the old name goes when the new
  one is done. Digests are compared, no file is read.
- Deleted: a document that is missing from the folder in which it was seen before. An unmounted
  share leaves a folder behind that is empty or holds what a program wrote there since, so files do
  not count as deleted below a mount point with nothing mounted, in a folder that cannot be listed,
  or when the folder is another one. Where outputs would be removed and most documents went at
  once, a person is asked first.
- Outputs: paths that two items share, or that cannot be written, are found before the first item
  begins, as far as paths are known then.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from paddock.engine.system.text import canonical_json, listed
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError, Value
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep
from paddock.runner.bind.document_folders import PROCESSING, BoundWatch
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.deleted_files import is_mass_deletion, is_other_folder
from paddock.runner.folders.folder_identity import FolderIdentity, folder_identity_at, known_folder
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage import LineageStore
from paddock.runner.ledger.outputs import OutputIndex
from paddock.steps.base import OutsideRoots
from paddock.steps.paths import nearest_existing

from .fingerprints import default_key, file_path_of
from .run_records import RENAMED

N_KEYS_NAMED = 3
"""Keys that a message names: there may be thousands."""


def block_list(block: BoundBlock, scope: Scope) -> Sequence[Any]:
    """Return a block's list; a mapping becomes its pairs.

    Raises:
        PipelineError: `for_each` is neither a list nor a mapping.
        ExpressionError: its expression failed.
    """
    listed = block.over.evaluate(scope)
    if isinstance(listed, Mapping):
        return [{"key": name, "value": value} for name, value in listed.items()]
    if isinstance(listed, (list, tuple)):
        return listed
    what = f"block '{block.id}' goes over {_type_name(listed)}, which is no list."
    raise PipelineError([Fault(what, "Name a list, such as `steps.docs.files`.", block.mark)])


def split_by_where(
    block: BoundBlock, scope: Scope, listed: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the items for which a block's `where` holds, and the others.

    Raises:
        ExpressionError: it failed for an item.
    """
    if block.where is None:
        return listed, ()
    chosen: list[Any] = []
    left: list[Any] = []
    for number, item in enumerate(listed):
        try:
            holds = block.where.evaluate(scope.child(block.var, item))
        except ExpressionError as error:
            message = f"`where` of block '{block.id}', {_item_label(item, number)}: {error.message}"
            raise ExpressionError(message, error.remedy) from error
        (chosen if holds else left).append(item)
    return chosen, left


def item_strata(block: BoundBlock, scope: Scope, listed: Sequence[Any], source: str) -> list[str]:
    """Return each item's stratum, the value of an expression as JSON; nothing without one.

    Raises:
        PipelineError: it cannot be read, or failed for an item.
    """
    if not source:
        return []
    strata: list[str] = []
    try:
        stratum = Expression.of(source)
    except ExpressionError as error:
        what = f"`--stratify {source}`: {error.message}."
        raise PipelineError([Fault(what, error.remedy)]) from error
    try:
        for item in listed:
            inner = scope.child({block.var: item, "item": item})
            strata.append(canonical_json(stratum.evaluate(inner)))
    except ExpressionError as error:
        label = _item_label(listed[len(strata)], len(strata))
        what = f"`--stratify {source}`, {label} of block '{block.id}': {error.message}."
        raise PipelineError([Fault(what, error.remedy)]) from error
    return strata


def loop_value(number: int, length: int) -> dict[str, Any]:
    """Return the variable `loop` of an item, as Jinja has it.

    >>> loop_value(0, 2)
    {'index': 1, 'index0': 0, 'first': True, 'last': False, 'length': 2}
    """
    return {
        "index": number + 1,
        "index0": number,
        "first": number == 0,
        "last": number + 1 == length,
        "length": length,
    }


def item_keys(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys, in the list's order.

    Items without a name of their own go by their content, and equal ones are numbered: a row that
    changes makes no other one stale.

    Raises:
        PipelineError: two items have the same one.
        ExpressionError: the block's `key` failed.
    """
    keys = raw_item_keys(block, scope, listed)
    if len(set(keys)) < len(keys):
        raise PipelineError([_duplicate_key_fault(block, keys, listed)])
    return keys


def raw_item_keys(block: BoundBlock, scope: Scope, listed: Sequence[Any]) -> list[str]:
    """Return the items' keys before duplicates are refused."""
    if block.key is None:
        return _numbered_keys([default_key(item) for item in listed], listed)
    return [str(block.key.evaluate(scope.child(block.var, item))) for item in listed]


def _numbered_keys(keys: list[str], listed: Sequence[Any]) -> list[str]:
    """Append `#2`, `#3` … to the keys of items that equal an earlier one."""
    if len(set(keys)) == len(keys):
        return keys
    seen: Counter[str] = Counter()
    made = []
    for key, item in zip(keys, listed, strict=True):
        seen[key] += 1
        is_again = seen[key] > 1 and file_path_of(item) is None
        made.append(f"{key}#{seen[key]}" if is_again else key)
    return made


def _duplicate_key_fault(block: BoundBlock, keys: Sequence[str], listed: Sequence[Any]) -> Fault:
    key = next(key for key, count in Counter(keys).items() if count > 1)
    first, second = [index for index, other in enumerate(keys) if other == key][:2]
    both = f"{_item_label(listed[first], first)} and {_item_label(listed[second], second)}."
    if block.key is not None:
        what = f"`key: {block.key.source}` gives two items of block '{block.id}' the same key "
        remedy = "Write one that differs, or leave it out: items that are equal are then numbered."
        return Fault(f"{what}'{key}': {both}", remedy, block.mark)
    what = f"two items of block '{block.id}' have the same key '{key}': {both}"
    if listed[first] == listed[second]:
        remedy = "They are equal: leave one out, with `| unique` behind the list."
    else:
        remedy = "Give the block a `key` that differs, such as `key: doc.path`."
    return Fault(what, remedy, block.mark)


def _item_label(item: Any, index: int) -> str:
    place = item.get("path") if isinstance(item, Mapping) else None
    return f"number {index + 1}" + (f" ('{place}')" if isinstance(place, str) else "")


_TYPE_NAMES = {"str": "a text", "int": "a number", "float": "a number", "bool": "true or false"}


def _type_name(value: Any) -> str:
    return "nothing" if value is None else _TYPE_NAMES.get(type(value).__name__, "something else")


def renamed_items(
    ledger: Ledger, scope: str, deleted: Iterable[Entry], new: Mapping[str, Any]
) -> dict[str, str]:
    """Return new key → old key of a block's items; `new` has their files as `files.scan` does."""
    keys = {entry.key for entry in deleted}
    made = LineageStore(ledger).made_of(scope)
    contents = {key: row.made["source"]["sha256"] for key, row in made.items() if row.source}
    gone = {key: contents[key] for key in keys & contents.keys()}
    # From a run that was killed before it removed the outputs of the old name.
    before = {key: str(row.made.get(RENAMED)) for key, row in made.items()}
    before = {key: old for key, old in before.items() if gone.get(old) == contents.get(key, "")}
    return before | match_renames(gone, {key: file["sha256"] for key, file in new.items()})


def match_renames(gone: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return new key → old key, by content digest; each key is used once.

    Among several with the same content, files with the same name are matched first.

    >>> match_renames({"a.md": "1", "x/b.md": "2"}, {"c.md": "1", "y/b.md": "2", "d.md": "3"})
    {'c.md': 'a.md', 'y/b.md': 'x/b.md'}
    """
    by_content: dict[str, list[str]] = {}
    for key, sha256 in sorted(gone.items()):
        by_content.setdefault(sha256, []).append(key)
    found: dict[str, str] = {}
    for same_name in (True, False):
        for key, sha256 in sorted(new.items()):
            olds = by_content.get(sha256, [])
            old = next(
                (old for old in olds if not same_name or _file_name_of(old) == _file_name_of(key)),
                None,
            )
            if key not in found and old is not None:
                found[key] = old
                olds.remove(old)
    return dict(sorted(found.items()))


def _file_name_of(key: str) -> str:
    return PurePosixPath(key).name


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
            one for one in absent if not any(source.cannot_list(one.key) for source in sources)
        )
        n_absent, seen = len(absent), {one.stored: one.now for one in sources if one.now}
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
            hidden = {one.key: source.unmounted(one.key) for one in deleted}
            lost = {at for at in hidden.values() if at is not None}
            deleted = tuple(one for one in deleted if hidden[one.key] is None)
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
            root = self._root(step, scope)
            if root is None:
                continue
            stored, now = self.index.stored(root), _mounted_folder(root)
            before = known_folder(
                now, map(FolderIdentity.of_text, self.ledger.roots(owner, stored))
            )
            yield SourceFolder(root, stored, self._watch_on(root), now, before)

    def _watch_on(self, root: Path) -> BoundWatch | None:
        around = (watch for watch in self.bound.watches if root.is_relative_to(watch.root))
        return next(around, None)

    def _root(self, step: BoundStep, scope: Scope) -> Path | None:
        try:
            text = Value.of(step.params.value.data["root"]).render(scope)
            return self.bound.roots.resolve(str(text))
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            return None


def _mounted_folder(root: Path) -> FolderIdentity | None:
    try:
        return folder_identity_at(root)
    except OSError:
        return None


def nearest_keys(key: str, keys: Collection[str]) -> str:
    """Return a hint with the nearest keys, or the first ones."""
    near = difflib.get_close_matches(key, sorted(keys), n=N_KEYS_NAMED)
    if near:
        return "Did you mean " + " or ".join(f"'{one}'" for one in near) + "?"
    if not keys:
        return "There are no items."
    named = [f"'{one}'" for one in sorted(keys)]
    return f"Known: {listed(named, N_KEYS_NAMED)}."
