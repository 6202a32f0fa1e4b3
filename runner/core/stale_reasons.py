"""Whether an item is stale, and the text of the reason.

The recorded spec tells which parameters differ. All is pure but `PastItems`, which reads ledgers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from paddock.pipelines.checking.check import Check
from paddock.pipelines.expressions import Expression, ExpressionError, Reference, Value
from paddock.pipelines.label_choices import CHOOSE
from paddock.runner.bind.bound import BoundNode, canonical_spec
from paddock.runner.bind.label_changes import LABELS, Labels
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.progress.report import State
from paddock.steps.python_step import is_function_reference

from .dependencies import LIMITED
from .edited_outputs import is_loss
from .fingerprints import (
    CONTENT,
    CONTEXT,
    KEYED,
    LOOP,
    PART_CHARS,
    PATH,
    READERS,
    SUFFIX,
    TEXTS,
    TIME,
    changed_parts,
    given_parameters,
    item_content,
    ordered_digest,
    without_time,
)

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
    is_left_out: bool = False
    """Whether the item has work to do, and this run is not asked to do it."""

    @property
    def is_work(self) -> bool:
        """Whether the item must run."""
        return self.state in ("new", "changed", "stale")

    @property
    def is_remade(self) -> bool:
        """Whether only outputs are missing."""
        return self.state == "stale" and is_loss(self.why)


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


def stale_parts(
    before: Mapping[str, str],
    now: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None,
    entry: Entry,
) -> list[str]:
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
    was, is_now = before.get(name), now.get(name, "")
    if is_now.startswith(KEYED):  # none was recorded, or one by another key
        is_by_other_key = (
            was and was.startswith(KEYED) and was[:-PART_CHARS] != is_now[:-PART_CHARS]
        )
        return was is None or is_by_other_key or was in (older or {}).get(is_now, ())
    if older is None or name.startswith(("inputs.", "steps.")):
        return False
    if name.endswith(CONTEXT):
        has_fitted = entry.state == "done" and not entry.marks(LIMITED)
        return has_room(was, now.get(name), is_more_enough=has_fitted)
    if name.endswith(READERS):
        # Installing OCR asks for files that could not be read, not for all of them again.
        more_can_be_read = {*(was or "").split("\n")} - {""} < {*is_now.split("\n")}
        return was is None or (entry.has_result and more_can_be_read)
    return name.endswith(".version") and was in older.get(is_now, ())


def has_room(was: str | None, now: str | None, *, is_more_enough: bool) -> bool:
    """Return whether a context is as large as it was, or larger where that is enough.

    >>> has_room("2048 of 4096", "3072 of 4096", is_more_enough=True)
    True
    >>> has_room("2048 of 4096", "2048 of 8192", is_more_enough=False)
    True
    >>> has_room(" of 4096", " of 8192", is_more_enough=False)
    False
    >>> has_room(None, "2048 of 4096", is_more_enough=True)  # None: it was the default
    False
    """
    size_was, _, default_was = (was or "").partition(" of ")
    size_now, _, default_now = (now or "").partition(" of ")
    was_tokens = size_was.removesuffix(" of") or default_was or default_now
    now_tokens = size_now.removesuffix(" of") or default_now or default_was
    if not was_tokens or not now_tokens:
        return False
    return was_tokens == now_tokens or (is_more_enough and int(was_tokens) < int(now_tokens))


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
    names = frozenset(names)
    for name in sorted(names, key=_rank):
        place, _, what = name.rpartition(".")
        if place in names:  # of `escalate`, which came, went or is another
            continue
        if name == CONTENT:
            found["content changed"] = None
        elif name in _ITEM_PARTS:
            # What is no part of one of both was not read, but for an ending that the key has.
            if name == SUFFIX or (name in before and name in now):
                found[_ITEM_PARTS[name]] = None
        elif what not in _PART_NAMES or name.startswith(("inputs.", "steps.", "secrets.")):
            found[f"value changed: {name}"] = None
        elif (came := _came_or_went(place, before, now)) is not None:
            found[came] = None
        else:
            reasons = words[name] if name in words else (_PART_NAMES[what],)
            found.update(dict.fromkeys(f"{reason} (step '{place}')" for reason in reasons))
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
    SUFFIX: "the ending of its name changed",
}
_PART_NAMES = {
    "prompt": "prompt changed",
    "schema": "schema changed",
    "check": "checks changed",
    "evidence": "sources of its evidence changed",
    "confidence": "`confidence` changed",
    "escalate": "`escalate` changed",
    "escalate_also": "`escalate.also` changed",
    "review": "`review.when` changed",
    "also": "`review.also` changed",
    "model": "model changed",
    "parameters": "parameters changed",
    "ctx": "`ctx` of its model changed",
    "servers": "what its servers are given changed",
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
        f"{name}.{part}": tuple(reasons)
        for kind in ("blocks", "steps")
        for name in {**then[kind], **now[kind]}
        for part, reasons in _text_diff(then[kind].get(name), now[kind].get(name)).items()
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
    others: list[str] = []
    for name in changed_parts(then, now):
        if name == "servers":
            others += _tools_diff(then.get(name), now.get(name))
        elif name not in ("with", "reply"):
            others.append(f"`{name}` changed")
    for name in changed_parts(given_parameters(then), given_parameters(now)):
        if name in TEXTS:
            texts.append("template changed" if name == "template" else "prompt changed")
        else:
            others.append(f"`{name}` changed")
    evidence = [(spec.get("reply") or {}).get("evidence") or {} for spec in (then, now)]
    if not others and "with" in now:
        others = ["`params` of its model changed"]
    words = {"parameters": others}
    if texts:
        words["prompt"] = list(dict.fromkeys(texts))
    if all(evidence) and changed_parts(*evidence) == ["rules"]:
        words["evidence"] = ["the rules by which evidence is found changed"]
    if is_function_reference(uses := str(now.get("uses", ""))):
        file = uses.rpartition(":")[0]
        words["version"] = [f"code of {file}, or of what it imports, changed"]
    if ("examples" in given_parameters(then)) != ("examples" in given_parameters(now)):
        words["model"] = []  # the embedding model came or went with it
    reply_then, reply_now = then.get("reply") or {}, now.get("reply") or {}
    for part, names in (("schema", ("schema",)), ("check", ("check", "repair"))):
        if reply_then and reply_now:
            is_same_reply = not {*names}.intersection(changed_parts(reply_then, reply_now))
        else:
            is_same_reply = (reply_then.get(names[0]) or None) == (reply_now.get(names[0]) or None)
        if is_same_reply:
            words[part] = []  # only the other half of `reply` came or went
    return words


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
    for name, written in spec["blocks"].items():
        sources = [written.get("key")]
        if name != block:
            listed = str(written.get("for_each", "")).partition(" in ")[2]
            sources += [listed, written.get("where"), written.get("if")]
        for source in sources:
            yield from _expression_references(source)
        yield from _value_references(written.get("returns"), bare=True)
    for written in spec["steps"].values():
        for name in ("if", "escalate", "review"):
            yield from _expression_references(written.get(name))
        yield from _value_references(written.get("with"))
        yield from _value_references(written.get("returns"), bare=True)
        yield from _reply_references(written.get("reply") or {})


def _reply_references(reply: Mapping[str, Any]) -> Iterator[Reference]:
    for check in reply.get("check") or ():
        with suppress(ExpressionError):
            yield from Check.of(check).references
    for source in (reply.get("evidence") or {}).get("from") or ():
        yield from _expression_references(source)
    for choice in _choices_in(reply.get("schema")):
        yield from _expression_references(choice.get("choose"))


def _choices_in(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the fields of a schema that are chosen from a list, as written."""
    if isinstance(schema, Mapping) and isinstance(schema.get(CHOOSE), Mapping):
        yield schema[CHOOSE]
    held = schema.values() if isinstance(schema, Mapping) else schema
    for inner in held if isinstance(schema, Mapping | list) else ():
        yield from _choices_in(inner)


def _expression_references(source: Any) -> frozenset[Reference]:
    try:
        return Expression.of(source).references if source else frozenset()
    except ExpressionError:
        return frozenset()


def _value_references(data: Any, *, bare: bool = False) -> frozenset[Reference]:
    return Value.scan(data, bare=bare)[0].references


class PastItems:
    """How the items of a scope were last done, read from the ledger at first use."""

    def __init__(self, ledger: Ledger, scope: str, node: BoundNode) -> None:
        self._ledger, self._scope, self._node = ledger, scope, node
        self._specs: Mapping[str, str] | None = None
        """Key → digest of the spec with which an item was done."""
        self._changes: dict[str, SpecChanges | None] = {}
        self._lists: dict[str, Mapping[str, Labels]] = {}
        """By the same digest, the lists of labels that the items were chosen from."""

    def had_other_key(self, key: str) -> bool:
        """Return whether the block's `key` has changed since an item was done."""
        changes = self._changes_since(key)
        return changes is not None and changes.has_other_key

    def of(self, key: str, item: Any) -> PastItem:
        """Return how an item was last done; `item` is its value now."""
        changes = self._changes_since(key)
        if changes is None:
            return PastItem()
        read = without_time(changes.attributes)
        content = ordered_digest(item_content(item, read)) if changes.has_item else None
        return PastItem(content, changes.words, changes.has_other_key)

    def lists(self, key: str) -> Mapping[str, Labels]:
        """Return the lists that an item was chosen from, by name."""
        self._changes_since(key)
        return self._lists.get((self._specs or {}).get(key, ""), {})

    def _changes_since(self, key: str) -> SpecChanges | None:
        origins = LineageStore(self._ledger)
        if self._specs is None:
            self._specs = origins.specs_of(self._scope)
        digest = self._specs.get(key)
        if digest is None:
            return None
        if digest not in self._changes:
            text = origins.spec(digest)
            then = None if text is None else json.loads(text)
            now = json.loads(canonical_spec(self._node))
            found = None if then is None else compare_specs(then, now, self._node.id)
            self._changes[digest] = found
            self._lists[digest] = (then or {}).get(LABELS, {})
        return self._changes[digest]
