"""Fingerprints of items, their recorded dependencies, and the reason why one is stale.

An item's hash is made of named parts: its content, for each step the prompt, the parameters, the
model and the version, and each outer value that it reads. The recorded spec tells which parameters
differ. Files read, folders listed, files and vector rows written, stores searched: each is a mark
in the item's entry, and so are files that were moved away or held back (edited by hand). All is
pure but `DependencyIndex`, which compares marks with the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from paddock.engine.system.files import content_stamp, sha256_of
from paddock.engine.system.tasks import in_left_thread
from paddock.engine.system.text import canonical_json, listed
from paddock.pipelines.checking.check import Check
from paddock.pipelines.expressions import Expression, ExpressionError, Reference, Value
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.progress.report import State
from paddock.steps.base import Roots, StepError
from paddock.steps.files.scan import FilesScanParams, scan_folder
from paddock.steps.python_step import is_function_reference
from paddock.steps.vectors.open_stores import OpenStores

CONTENT = "content"
LOOP = "loop"
"""A part of items that read their place in the block's list."""
PATH, TIME = "path", "modified"
"""Parts of items that read a file's path or time, not only its content."""
CONTEXT = ".ctx"
"""A part that is no digest: the context of a step's model, where the author sets one."""
PART_CHARS = 16
LOST_FILE, LOST_ROWS = "output is missing: ", "its rows are missing in the store: "
EDITED_FILE, KEPT_NO_MORE = "output was edited: ", "output is not edited any more: "
"""Reasons for which only lost outputs are made again."""
READERS = ".readers"
"""A part that is no digest: the installed readers of documents, one a line."""

# Parameters that are text for the model or for a file: reasons call them "prompt".
TEXTS = frozenset(("prompt", "template", "map", "reduce", "system", "instructions", "messages"))
# Keys that cannot change a step's result.
NOT_IN_RESULT = frozenset(
    ("retry", "timeout", "cache", "needs", "max_parallel", "on_error", "id", "mark", "model")
)
# A file's attributes that change without its content; its digest stands for them.
_VOLATILE = frozenset(("path", "modified", "size"))


Place = Callable[[str], str]
"""Path → the path as the ledger stores it."""
_NO_TEXTS: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PastItem:
    """How an item was last done, besides its entry."""

    content: str | None = None
    """The digest that today's item would have had then."""
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Part of the hash → what of it changed since, in words."""
    has_other_key: bool = False
    """Whether the block's `key`, which reads the item too, is another expression."""


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """State of an item, and why; `quarantined`: known to fail."""

    state: State
    why: str | None = None
    is_decided: bool = False
    """Whether a person has decided on an answer of the unchanged item since its last run."""

    @property
    def is_work(self) -> bool:
        """Whether the item must run."""
        return self.state in ("new", "changed", "stale")

    @property
    def is_remade(self) -> bool:
        """Whether only outputs are missing."""
        return self.state == "stale" and is_loss(self.why)


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


def part_digest(value: Any) -> str:
    """Return the short digest of one part."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:PART_CHARS]


def item_hash(parts: Mapping[str, str]) -> str:
    """Return the hash of all parts together."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def is_file_value(value: Any) -> bool:
    """Return whether a value describes a file by its content, as `files.scan` does."""
    return isinstance(value, Mapping) and isinstance(value.get("sha256"), str)


def item_content(item: Any, attributes: frozenset[str] | None) -> Any:
    """Return the part of an item that decides the result.

    A file's path and size never do; its time does where the block reads it by name. `attributes`
    are those that the block reads; None: the whole item.
    """
    if not is_file_value(item):
        if attributes is None or not isinstance(item, Mapping):
            return item
        return {name: item.get(name) for name in attributes}
    if attributes is None:
        return {name: value for name, value in item.items() if name not in _VOLATILE}
    wanted = (attributes - _VOLATILE) | (attributes & {"modified"}) | {"sha256"}
    return {name: item.get(name) for name in wanted}


def without_time(attributes: frozenset[str] | None) -> frozenset[str] | None:
    """Return the attributes of which an item's content is made: its time is a part of its own."""
    return None if attributes is None else attributes - {TIME}


def default_key(item: Any) -> str:
    """Return an item's key where the block has no `key`: its path, else its content."""
    return file_path_of(item) or part_digest(item)


def file_path_of(item: Any) -> str | None:
    """Return the path of an item that is a file, or describes one."""
    if isinstance(item, Mapping):
        for name in ("relpath", "path"):
            if isinstance(item.get(name), str) and item[name]:
                return str(item[name])
    return None


def item_place(item: Any, var: str, shown: Collection[Reference], place: Place) -> dict[str, Any]:
    """Return the path and the time of an item that is a file, where they show in the result.

    `shown` is what is read but for paths of files whose content alone is taken; `place` gives the
    path as the ledger stores it.
    """
    if not is_file_value(item):
        return {}
    read = {path[1:2] for path in shown if path[0] == var}
    names = (name for name in (PATH, TIME) if name in item and not read.isdisjoint(((), (name,))))
    return {name: place(item[name]) if name == PATH else item[name] for name in names}


def hashable_value(value: Any, place: Place | None = None) -> Any:
    """Return a value for hashing, with files replaced by their content's digest.

    With `place`, their paths and times count as well: see `item_place`.
    """
    if is_file_value(value):
        content = item_content(value, None)
        if place is not None and isinstance(value.get(PATH), str):
            content |= {PATH: place(value[PATH]), TIME: value.get(TIME)}
        return content
    if isinstance(value, Mapping):
        return {name: hashable_value(inner, place) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [hashable_value(inner, place) for inner in value]
    return value


def outer_value(
    path: Sequence[str], variables: Mapping[str, Any], place: Place | None = None
) -> Any:
    """Follow a reference such as ("steps", "text", "pages") into the variables, for hashing.

    What is missing is None; evaluating the expression reports it.
    """
    value: Any = variables
    for name in path:
        if is_file_value(value) and name == PATH:
            digest = value["sha256"]
            return digest if place is None else [digest, place(str(value[PATH]))]
        value = value.get(name) if isinstance(value, Mapping) else None
    return hashable_value(value, place)


def spec_parts(step: str, spec: str) -> dict[str, str]:
    """Split a step's spec into its prompt and its parameters."""
    written = json.loads(spec)
    if not isinstance(written, dict):
        return {f"{step}.parameters": part_digest(written)}
    given = written.get("with")
    texts, others = {}, {}
    for name, value in given.items() if isinstance(given, dict) else ():
        if name in TEXTS:
            texts[name] = value
        elif name not in NOT_IN_RESULT:
            others[name] = value
    control = {
        name: value
        for name, value in written.items()
        if name not in NOT_IN_RESULT and name not in ("with", "do", "for_each")
    }
    reply, review = control.pop("reply", None), control.pop("review", None)
    parts = {f"{step}.parameters": part_digest([control, others])}
    if texts:
        parts[f"{step}.prompt"] = part_digest(texts)
    if isinstance(reply, dict):
        parts[f"{step}.schema"] = part_digest(reply.get("schema"))
        parts[f"{step}.check"] = part_digest([reply.get("check"), reply.get("repair")])
        for name in ("evidence", "confidence"):
            if name in reply:  # a step without it keeps its parts
                parts[f"{step}.{name}"] = part_digest(reply[name])
    if review is not None:
        parts[f"{step}.review"] = part_digest(review)
    return parts


def judge_item(
    entry: Entry | None,
    hash_: str,
    parts: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None = None,
    past: PastItem | None = None,
) -> ItemVerdict:
    """Compare an item with its entry; files are compared elsewhere.

    `older`: by the version of a step, those whose results are as good; None: none is, and neither
    is what was read before more could be read. `past` is what is known of how the item was done.
    """
    if entry is None:
        return ItemVerdict("new")
    if entry.hash != hash_:
        before = json.loads(entry.parts)
        names = stale_parts(before, parts, older, entry)
        if names or not changed_parts(before, parts):
            return _first_difference(names, before, parts, past or PastItem())
    if entry.state == "quarantined":
        return ItemVerdict("quarantined", entry.error)
    if entry.state == "waiting":
        return ItemVerdict("waiting", entry.error)
    if entry.state == "failed":
        return ItemVerdict("stale", f"it failed before: {entry.error}")
    if entry.state == "done" and entry.attempts:
        return ItemVerdict("stale", "what failed within it is tried again")
    return ItemVerdict("fresh")


def changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of parts, or of keys, that differ."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def stale_parts(
    before: Mapping[str, str],
    now: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None,
    entry: Entry,
) -> list[str]:
    """Return the names of parts that make a result stale."""
    names = changed_parts(before, now)
    return [n for n in names if not _is_compatible(before, now, n, older, entry)]


def _is_compatible(
    before: Mapping[str, str],
    now: Mapping[str, str],
    name: str,
    older: Mapping[str, Collection[str]] | None,
    entry: Entry,
) -> bool:
    """Return whether a part differs without making the result stale."""
    if older is None or name.startswith(("inputs.", "steps.")):
        return False
    was, is_now, is_done = before.get(name), now.get(name, ""), entry.state == "done"
    if name.endswith(CONTEXT):
        has_fitted = is_done and not entry.marks(LIMITED)
        return has_fitted and has_more_room(was, now.get(name))
    if name.endswith(READERS):
        # Installing OCR asks for files that could not be read, not for all of them again.
        more_can_be_read = {*(was or "").split("\n")} - {""} < {*is_now.split("\n")}
        return was is None or (is_done and more_can_be_read)
    return name.endswith(".version") and was in older.get(is_now, ())


def context_part(n_ctx_tokens: int, default: int | None) -> str:
    """Return the part of a context that the author sets; `default`: what it is without."""
    return f"{n_ctx_tokens} of {default or ''}".strip()


def has_more_room(was: str | None, now: str | None) -> bool:
    """Return whether a context is at least as large; None: the author sets none.

    >>> has_more_room("2048 of 4096", "3072 of 4096"), has_more_room("2048 of 4096", None)
    (True, True)
    >>> has_more_room(None, "2048 of 4096"), has_more_room("2048 of", None)
    (False, False)
    """
    told_was, _, default_was = (was or "").partition(" of ")
    told_now, _, default_now = (now or "").partition(" of ")
    default = default_now or default_was
    sizes = [told.removesuffix(" of") or default for told in (told_was, told_now)]
    return all(sizes) and int(sizes[0]) <= int(sizes[1])


def _first_difference(
    names: Sequence[str], before: Mapping[str, str], now: Mapping[str, str], past: PastItem
) -> ItemVerdict:
    """Return every difference. The content only changed where the part that was read then did."""
    words = change_reasons((name for name in names if name != CONTENT), before, now, past.words)
    if CONTENT in names and past.content != before.get(CONTENT):
        return ItemVerdict("changed", "; ".join(["content changed", *words]))
    rest = "`key` changed" if past.has_other_key else "what it reads of the item changed"
    return ItemVerdict("stale", "; ".join(words) or rest)


def change_reasons(
    names: Iterable[str],
    before: Mapping[str, str],
    now: Mapping[str, str],
    words: Mapping[str, Sequence[str]] = _NO_TEXTS,
) -> list[str]:
    """Return each difference once, in the order: prompt, model, parameters, version, values.

    `words` says, by the part, what of it changed, as far as that is known.
    """
    found: dict[str, None] = {}
    for name in sorted(names, key=_rank):
        place, _, what = name.rpartition(".")
        if name == CONTENT:
            found["content changed"] = None
        elif name in _ITEM_PARTS:
            if name in before and name in now:  # else only what it says of it did
                found[_ITEM_PARTS[name]] = None
        elif what not in _PART_NAMES or name.startswith(("inputs.", "steps.")):
            found[f"value changed: {name}"] = None
        elif (came := _came_or_went(place, before, now)) is not None:
            found[came] = None
        else:
            told = words[name] if name in words else (_PART_NAMES[what],)
            found.update(dict.fromkeys(f"{one} (step '{place}')" for one in told))
    return list(found)


def _came_or_went(place: str, before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Return the words for a step that is new or gone; a block has no version."""
    version, parameters = f"{place}.version", f"{place}.parameters"
    if version not in before and version in now and parameters not in before:
        return f"step '{place}' is new"
    if version in before and version not in now and parameters not in now:
        return f"step '{place}' was removed"
    return None


_ITEM_PARTS = {
    LOOP: "its place in the list changed",
    PATH: "its path changed",
    TIME: "its time changed",
}
_PART_NAMES = {
    "prompt": "prompt changed",
    "schema": "schema changed",
    "check": "checks changed",
    "evidence": "sources of its evidence changed",
    "confidence": "`confidence` changed",
    "review": "`review.when` changed",
    "model": "model changed",
    "parameters": "parameters changed",
    "ctx": "`ctx` of its model changed",
    "version": "step version changed",
    "readers": "what reads documents here changed",
}


def _rank(name: str) -> tuple[int, str]:
    what = name.rpartition(".")[2]
    order = list(_PART_NAMES)
    return (order.index(what) if what in order else len(order), name)


Spec = Mapping[str, Mapping[str, Any]]
"""As `canonical_spec` has it: `{"blocks": {id: …}, "steps": {id: …}}`."""


@dataclass(frozen=True, slots=True)
class SpecChanges:
    """Differences between the recorded spec of an item and today's."""

    has_item: bool
    """Whether it was a block, whose items are read by a name."""
    attributes: frozenset[str] | None
    """Attributes of the item that were read then; None: all."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Part of the hash → what of it changed, in words."""
    has_other_key: bool = False
    """Whether the block's `key` is another expression."""


def compare_specs(then: Spec, now: Spec, block: str) -> SpecChanges:
    """Compare two specs; `block` is the outermost one, or the step."""
    words = {
        f"{name}.{part}": tuple(told)
        for kind in ("blocks", "steps")
        for name in {**then[kind], **now[kind]}
        for part, told in _text_diff(then[kind].get(name), now[kind].get(name)).items()
    }
    written = then["blocks"].get(block)
    if written is None:
        return SpecChanges(False, None, words)
    var = str(written.get("for_each", "")).partition(" in ")[0]
    has_other_key = written.get("key") != now["blocks"].get(block, {}).get("key")
    return SpecChanges(True, _spec_attributes(then, block, var), words, has_other_key)


# --- which parameters differ


def _text_diff(then: Any, now: Any) -> dict[str, list[str]]:
    """Return, by part of the hash, which keys of a step or block differ."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return {}
    texts: list[str] = []
    own = (name for name in changed_parts(then, now) if name not in ("with", "reply"))
    others = [
        told
        for name in own
        for told in (
            _tools_diff(then.get(name), now.get(name))
            if name == "servers"
            else [f"`{name}` changed"]
        )
    ]
    given_then, given_now = then.get("with") or {}, now.get("with") or {}
    for name in changed_parts(given_then, given_now):
        if name in TEXTS:
            texts.append("template changed" if name == "template" else "prompt changed")
        elif name not in NOT_IN_RESULT:
            others.append(f"`{name}` changed")
    if not others and "with" in now:
        others = ["`params` of its model changed"]
    words = {"parameters": others}
    if texts:
        words["prompt"] = list(dict.fromkeys(texts))
    if is_function_reference(uses := str(now.get("uses", ""))):
        file = uses.rpartition(":")[0]
        words["version"] = [f"code of {file}, or of what it imports, changed"]
    reply_then, reply_now = then.get("reply"), now.get("reply")
    for part, names in (("schema", ("schema",)), ("check", ("check", "repair"))):
        if _is_same_reply(reply_then or {}, reply_now or {}, names):
            words[part] = []  # only the other half of `reply` came or went
    return words


def _is_same_reply(then: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> bool:
    if then and now:
        return all(then.get(name) == now.get(name) for name in names)
    return (then.get(names[0]) or None) == (now.get(names[0]) or None)


def _tools_diff(then: Any, now: Any) -> list[str]:
    """Return which files of a step's tools differ, else that its tools do."""
    then, now = then or {}, now or {}
    changed = changed_parts(then, now)
    files = [name for name in changed if name.startswith("files of ") and name in then]
    if not files or len(files) < len(changed):
        return ["its tools changed"]
    pairs = ((then[name], now.get(name) or {}) for name in files)
    return [f"file changed: {file}" for pair in pairs for file in changed_parts(*pair)]


# --- what was read of the item


def _spec_attributes(spec: Spec, block: str, var: str) -> frozenset[str] | None:
    read = [path for path in _spec_references(spec, block) if path[0] == var]
    return None if any(len(path) == 1 for path in read) else frozenset(path[1] for path in read)


def _spec_references(spec: Spec, block: str) -> Iterator[Reference]:
    """Yield the references within a block; texts that no longer compile are left out."""
    for name, one in spec["blocks"].items():
        yield from _expression_references(one.get("key"))
        yield from _value_references(one.get("returns"), bare=True)
        if name != block:
            yield from _expression_references(str(one.get("for_each", "")).partition(" in ")[2])
            yield from _expression_references(one.get("where"))
            yield from _expression_references(one.get("if"))
    for one in spec["steps"].values():
        yield from _value_references(one.get("with"))
        yield from _expression_references(one.get("if"))
        yield from _value_references(one.get("returns"), bare=True)
        for check in (one.get("reply") or {}).get("check") or ():
            try:
                yield from Check.of(check).references
            except ExpressionError:
                continue
        for source in ((one.get("reply") or {}).get("evidence") or {}).get("from") or ():
            yield from _expression_references(source)
        yield from _expression_references(one.get("review"))


def _expression_references(source: Any) -> frozenset[Reference]:
    try:
        return Expression.of(source).references if source else frozenset()
    except ExpressionError:
        return frozenset()


def _value_references(data: Any, *, bare: bool = False) -> frozenset[Reference]:
    return Value.scan(data, bare=bare)[0].references


# --- dependencies

SCAN = "files.scan"
LISTED, WRITTEN, ROWS, STORE, AWAY = "listed", "written", "rows", "store", "away"
HELD, LIMITED = "held", "limited"
"""First words of marks that are not of a file that was read."""


def is_file_mark(mark: Sequence[Any]) -> bool:
    """Return whether a mark is of a file that was read."""
    return bool(mark) and mark[0] not in (
        LISTED,
        WRITTEN,
        ROWS,
        STORE,
        AWAY,
        HELD,
        LIMITED,
    )


def held_mark(stored: str, sha256: str) -> dict[str, list[Any]]:
    """Mark an edited file that is kept, and the digest that would have been written."""
    return {f"{HELD} {stored}": [HELD, stored, sha256]}


def limited_mark(step: str) -> dict[str, list[Any]]:
    """Mark a step for which the model's context was too small: a larger one changes its result."""
    return {f"{LIMITED} {step}": [LIMITED, step]}


def held_paths(reads: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the stored paths of the files that are marked as held."""
    return [mark[1] for mark in reads.values() if mark[0] == HELD]


def written_within(scope: str, key: str, paths: Iterable[str]) -> dict[str, list[Any]]:
    """Mark the outputs of a nested item."""
    return {path: [WRITTEN, scope, key] for path in paths}


def nested_outputs(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Yield the outputs of nested items: (scope, key, path)."""
    for path, (_, scope, key) in entry.marks(WRITTEN).items():
        yield scope, key, path


def current_paths(entry: Entry) -> set[str]:
    """Return the stored paths that an item, and those within it, last wrote or kept."""
    marks = entry.marks(WRITTEN, HELD).items()
    within = (path if mark[0] == WRITTEN else mark[1] for path, mark in marks)
    return {*entry.output_paths, *within}


def entry_marks(entry: Entry, scope: str) -> dict[str, list[Any]]:
    """Return an entry's dependencies, for the item around it."""
    return entry.marks() | written_within(scope, entry.key, entry.output_paths)


class DependencyIndex:
    """Marks files and folders, and compares them; reads each file once."""

    def __init__(self, index: OutputIndex, stores: OpenStores | None = None) -> None:
        self._index = index
        self._stores = stores or OpenStores(Path(index.absolute("")))
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        """Each file's stamp and sha256."""
        self._listings: dict[str, str] = {}
        """Digests of folders' current listings."""

    def digest(self, path: str) -> str:
        """Return the sha256 of a file, read once in a run unless it changes meanwhile."""
        return self.mark(path)[2]  # type: ignore[no-any-return]

    def mark(self, path: str) -> list[Any]:
        """Return size, mtime, sha256, ctime and inode of a file that a step is about to read."""
        size, mtime_ns, ctime_ns, inode = stamp = _stamp_of(path)
        known = self._digests.get(path)
        if known is None or known[0] != stamp:
            known = self._digests[path] = stamp, sha256_of(Path(path))
        return [size, mtime_ns, known[1], ctime_ns, inode]

    def note_listing(
        self,
        reads: dict[str, list[Any]],
        params: FilesScanParams,
        files: Sequence[Mapping[str, Any]] | None,
        roots: Roots,
        owned: frozenset[Path],
    ) -> None:
        """Add the mark of a folder that was listed for one item. Blocking.

        Without `files` it is listed again, without the `owned` files: a step's `returns` may leave
        out what its items depend on.
        """
        name = f"{self._index.stored(str(roots.resolve(params.root)))}/"
        given = canonical_json(params.model_dump(mode="json", exclude={"root"}))
        before = reads.get(name, [LISTED])
        listings = before[1:] if before[0] == LISTED else []
        if files is None:
            seen = _listing_digest(str(roots.resolve(params.root)), given, roots, owned)
        else:
            seen = _digest_of((file["relpath"], file["sha256"]) for file in files)
        reads[name] = [LISTED, *(one for one in listings if one[0] != given), [given, seen]]

    # --- comparing

    async def look(self, entries: Iterable[Entry], roots: Roots) -> None:
        """Read the folders and stores that these items depend on.

        `difference` then need not.
        """
        entries = list(entries)
        await in_left_thread(self._hash_changed, entries)
        stores = {path for entry in entries for path in _stores_of(entry)}
        await self._stores.look(Path(self._index.absolute(path)) for path in sorted(stores))
        wanted = {key: one for entry in entries for key, one in _listings_of(entry)}
        wanted = {key: one for key, one in wanted.items() if key not in self._listings}
        if wanted:
            owned = self._index.owned()  # here, since the loop's tasks add to it
            await in_left_thread(self._list_all, wanted, roots, owned)

    def _hash_changed(self, entries: Iterable[Entry]) -> None:
        """Hash the files that look changed; `digest` keeps what they are."""
        for entry in entries:
            for path, mark in entry.marks().items():
                if is_file_mark(mark):
                    self._is_as_read(path, mark)

    def _list_all(
        self, wanted: Mapping[str, tuple[str, str]], roots: Roots, owned: frozenset[Path]
    ) -> None:
        for key, (folder, given) in wanted.items():
            self._listings[key] = _listing_digest(self._index.absolute(folder), given, roots, owned)

    def difference(self, scope: str, entry: Entry, edited: list[str]) -> str | None:
        """Return what changed of an item's outputs and dependencies; None: nothing.

        A changed dependency comes before a lost output, which can be made again without a call.
        Edited outputs are added to `edited`, and are no difference.
        """
        loss = None
        for path in entry.output_paths:
            loss = loss or self._of_output(scope, path, edited)
        for path, mark in entry.marks().items():
            reason = self._of_mark(path, mark, edited)
            if reason is not None and not is_loss(reason):
                return reason
            loss = loss or reason
        return loss

    def released(self, entry: Entry) -> str | None:
        """Return why an edited file that blocked an item can be written now."""
        reasons = (self._of_held(path, ours, []) for _, path, ours in entry.marks(HELD).values())
        return next((reason for reason in reasons if reason is not None), None)

    def agrees(self, path: str, mark: Sequence[Any]) -> bool:
        """Return whether a mark's target is unchanged; call `look` for its entry first."""
        return self._of_mark(path, mark, []) is None

    def _of_output(self, scope: str, path: str, edited: list[str]) -> str | None:
        condition = self._index.condition(scope, path)
        if condition in ("missing", "interrupted"):
            return f"{LOST_FILE}{path}"
        if condition == "edited":
            edited.append(path)
        return None

    def _of_held(self, path: str, ours: str, edited: list[str]) -> str | None:
        """Return why an edited file that was kept can be written now."""
        absolute = Path(self._index.absolute(path))
        try:
            there = sha256_of(absolute)  # not `digest`: this run may write it
        except OSError:
            return f"{LOST_FILE}{path}"
        if there == ours:
            return None
        if there in self._index.known_sha256(absolute):
            return f"{KEPT_NO_MORE}{path}"
        edited.append(path)
        return None

    def _of_mark(self, path: str, mark: Sequence[Any], edited: list[str]) -> str | None:
        if mark[0] == LIMITED:
            return None
        if mark[0] == WRITTEN:
            return self._of_output(mark[1], path, edited)
        if mark[0] == HELD:
            return self._of_held(mark[1], mark[2], edited)
        if mark[0] == LISTED:
            folder = path.removesuffix("/")
            same = all(
                self._listings.get(_listing_key(folder, given)) == was for given, was in mark[1:]
            )
            return None if same else f"folder changed: {folder}"
        if mark[0] == ROWS:
            held = self._stores.holds(Path(self._index.absolute(mark[1])), mark[2])
            return None if held == mark[3] else f"{LOST_ROWS}{mark[1]}"
        if mark[0] == STORE:
            content = self._stores.content(Path(self._index.absolute(path)))
            return None if content == mark[1] else f"store changed: {path}"
        if mark[0] == AWAY:
            is_there = os.path.lexists(self._index.absolute(path))
            return f"there again: {path}" if is_there else None
        if self._is_as_read(path, mark):
            return None
        is_there = os.path.lexists(self._index.absolute(path))
        return f"file changed: {path}" if is_there else f"file is gone: {path}"

    def _is_as_read(self, stored: str, mark: Sequence[Any]) -> bool:
        path = self._index.absolute(stored)
        size, mtime_ns, sha256, ctime_ns, inode = mark
        try:
            stamp = _stamp_of(path)
            if stamp == (size, mtime_ns, ctime_ns, inode):
                return True
            return bool(stamp[0] == size and self.digest(path) == sha256)
        except OSError:
            return False


def _stamp_of(path: str) -> tuple[int, int, int, int]:
    return content_stamp(os.stat(path))  # noqa: PTH116 - 10,000 times in a run


def _listings_of(entry: Entry) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the folders that an item listed, with their scan parameters."""
    for path, mark in entry.marks(LISTED).items():
        folder = path.removesuffix("/")
        yield from ((_listing_key(folder, given), (folder, given)) for given, _ in mark[1:])


def _stores_of(entry: Entry) -> Iterator[str]:
    """Yield the stores that an item searched, or has rows in."""
    for path, mark in entry.marks(ROWS, STORE).items():
        yield mark[1] if mark[0] == ROWS else path


def _listing_key(folder: str, given: str) -> str:
    return f"{folder}\n{given}"


def _listing_digest(folder: str, given: str, roots: Roots, owned: frozenset[Path]) -> str:
    """Return the digest of a folder's listing; empty where it cannot be listed. Blocking."""
    try:
        params = FilesScanParams.model_validate({**json.loads(given), "root": folder})
        files, _ = scan_folder(params, Path(folder), roots.allowed, owned)
    except (OSError, ValueError, StepError):
        return ""
    return _digest_of((file.relpath, file.sha256) for file in files)


def _digest_of(files: Iterable[tuple[str, str | None]]) -> str:
    return part_digest(sorted(files))
