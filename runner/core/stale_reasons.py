"""Whether an item is stale by its parts, and why.

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
from paddock.runner.bind.bound import BoundNode, canonical_spec, steps_of
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.python_step import is_function_reference

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

LABELS = "labels"
"""In a recorded spec, the lists of labels that its items were chosen from, by name."""
_NO_DETAILS: Mapping[str, Sequence[Reason]] = MappingProxyType({})


def stale_parts(
    before: Mapping[str, str],
    now: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None,
    entry: Entry,
    *,
    is_limited: bool,
) -> list[str]:
    """Return the parts that differ so that a result would not be as good.

    `older`: by the version of a step, those whose results are as good; None: none is, and neither
    is what was read before more could be read. `is_limited`: a context was too small for a step.
    """
    names = changed_parts(before, now)
    return [n for n in names if not _is_compatible(before, now, n, older, entry, is_limited)]


def _is_compatible(
    before: Mapping[str, str],
    now: Mapping[str, str],
    name: str,
    older: Mapping[str, Collection[str]] | None,
    entry: Entry,
    is_limited: bool,
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
        has_fitted = entry.state == "done" and not is_limited
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


def part_reasons(
    names: Sequence[str],
    before: Mapping[str, str],
    now: Mapping[str, str],
    item: Any,
    since: SpecChanges,
) -> tuple[Reason, ...]:
    """Return every difference. The content only changed where the part that was read then did."""
    others = (name for name in names if name != CONTENT)
    reasons = tuple(change_reasons(others, before, now, since.details))
    if CONTENT in names and since.content_then(item) != before.get(CONTENT):
        return (Why.CONTENT(), *reasons)
    rest = Why.KEY() if since.has_other_key else Why.READ_OF_ITEM()
    return reasons or (rest,)


def change_reasons(
    names: Iterable[str],
    before: Mapping[str, str],
    now: Mapping[str, str],
    details: Mapping[str, Sequence[Reason]] = _NO_DETAILS,
) -> list[Reason]:
    """Return each difference once, in the order: prompt, model, parameters, version, values.

    `details` says, by the part, what of it changed, as far as that is known.
    """
    found: dict[Reason, None] = {}
    names = frozenset(names)
    order = {what: number for number, what in enumerate(_PART_NAMES)}
    for name in sorted(names, key=lambda n: (order.get(n.rpartition(".")[2], len(order)), n)):
        place, _, what = name.rpartition(".")
        if place in names:  # of `escalate`, which came, went or is another
            continue
        if name == CONTENT:
            found[Why.CONTENT()] = None
        elif name in _ITEM_PARTS:
            # What is no part of one of both was not read, but for an ending that the key has.
            if name == SUFFIX or (name in before and name in now):
                found[_ITEM_PARTS[name]()] = None
        elif what not in _PART_NAMES or name.startswith(("inputs.", "steps.", "secrets.")):
            found[Why.VALUE(name)] = None
        else:  # of a step that is new or gone there is one reason; a block has no version
            version, parameters = f"{place}.version", f"{place}.parameters"
            came = version in now and not {version, parameters} & before.keys()
            went = version in before and not {version, parameters} & now.keys()
            if came or went:
                found[(Why.STEP_NEW if came else Why.STEP_REMOVED)(place)] = None
                continue
            reasons = details[name] if name in details else (_PART_NAMES[what](),)
            found.update(dict.fromkeys(reason.of_step(place) for reason in reasons))
    return list(found)


_ITEM_PARTS = {LOOP: Why.PLACE_IN_LIST, PATH: Why.PATH, TIME: Why.TIME, SUFFIX: Why.SUFFIX}
_PART_NAMES = {
    "prompt": Why.PROMPT,
    "schema": Why.SCHEMA,
    "check": Why.CHECKS,
    "evidence": Why.EVIDENCE,
    "confidence": Why.CONFIDENCE,
    "escalate": Why.ESCALATE,
    "escalate_also": Why.ESCALATE_ALSO,
    "review": Why.REVIEW_WHEN,
    "also": Why.REVIEW_ALSO,
    "model": Why.MODEL,
    "parameters": Why.PARAMETERS,
    "ctx": Why.CONTEXT,
    "servers": Why.SERVERS,
    "version": Why.VERSION,
    "readers": Why.READERS,
}


Spec = Mapping[str, Mapping[str, Any]]
"""As `canonical_spec` has it: `{"blocks": {id: …}, "steps": {id: …}}`."""


@dataclass(frozen=True, slots=True)
class SpecChanges:
    """Differences between the recorded spec of an item and today's, as far as that is known."""

    has_item: bool = False
    """Whether it was a block, whose items are read by a name."""
    attributes: frozenset[str] | None = None
    """Attributes of the item that were read then; None: all."""
    details: Mapping[str, Sequence[Reason]] = field(default_factory=dict)
    """Part of the hash → what of it changed; the reasons lack their step."""
    has_other_key: bool = False
    """Whether the block's `key`, which reads the item too, is another expression."""

    def content_then(self, item: Any) -> str | None:
        """Return the digest that today's item would have had then; None: that is not known."""
        if not self.has_item:
            return None
        return ordered_digest(item_content(item, without_time(self.attributes)))


def compare_specs(then: Spec, node: BoundNode) -> SpecChanges:
    """Compare the spec that an item was done with and that of its block, or step, now."""
    now, block = json.loads(canonical_spec(node)), node.id
    details = dict(_code_within([node])) | {
        f"{name}.{part}": reasons
        for kind in ("blocks", "steps")
        for name in {**then[kind], **now[kind]}
        for part, reasons in _details(then[kind].get(name), now[kind].get(name)).items()
    }
    written = then["blocks"].get(block)
    if written is None:
        return SpecChanges(details=details)
    var = str(written.get("for_each", "")).partition(" in ")[0]
    read = [path for path in _references(then, block) if path[0] == var]
    is_whole = any(len(path) == 1 for path in read)
    attributes = None if is_whole else frozenset(name for _, name, *_ in read)
    has_other_key = written.get("key") != now["blocks"].get(block, {}).get("key")
    return SpecChanges(True, attributes, details, has_other_key)


def _code_within(nodes: Iterable[BoundNode], place: str = "") -> Iterator[tuple[str, list[Reason]]]:
    """Yield what changed of functions of pipelines that steps run, whose specs are not recorded."""
    for step in steps_of(nodes):
        if place and is_function_reference(step.uses):
            yield f"{place}{step.id}.version", [Why.CODE(step.uses.rpartition(":")[0])]
        if step.inner is not None:
            yield from _code_within(step.inner.nodes, f"{place}{step.id}.")


def _details(then: Any, now: Any) -> dict[str, list[Reason]]:
    """Return, by part of the hash, which keys of a step or block differ."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return {}
    texts: list[Reason] = []
    others: list[Reason] = []
    for name in changed_parts(then, now):
        if name == "servers":  # the files of its tools that differ, else that its tools do
            was, is_now = then.get(name) or {}, now.get(name) or {}
            changed = changed_parts(was, is_now)
            pairs = [
                (was[n], is_now.get(n) or {})
                for n in changed
                if n in was and n.startswith("files of ")
            ]
            files = (Why.TOOL_FILE(file) for pair in pairs for file in changed_parts(*pair))
            others += files if pairs and len(pairs) == len(changed) else [Why.TOOLS()]
        elif name not in ("with", "reply"):
            others.append(Why.PARAMETER(name))
    for name in changed_parts(given_parameters(then), given_parameters(now)):
        if name in TEXTS:
            texts.append(Why.TEMPLATE() if name == "template" else Why.PROMPT())
        else:
            others.append(Why.PARAMETER(name))
    evidence = [(spec.get("reply") or {}).get("evidence") or {} for spec in (then, now)]
    if not others and "with" in now:
        others = [Why.MODEL_PARAMETERS()]
    details = {"parameters": others}
    if texts:
        details["prompt"] = list(dict.fromkeys(texts))
    if all(evidence) and changed_parts(*evidence) == ["rules"]:
        details["evidence"] = [Why.EVIDENCE_RULES()]
    if is_function_reference(uses := str(now.get("uses", ""))):
        details["version"] = [Why.CODE(uses.rpartition(":")[0])]
    if ("examples" in given_parameters(then)) != ("examples" in given_parameters(now)):
        details["model"] = []  # the embedding model came or went with it
    reply_then, reply_now = then.get("reply") or {}, now.get("reply") or {}
    for part, names in (("schema", ("schema",)), ("check", ("check", "repair"))):
        if reply_then and reply_now:
            is_same_reply = not {*names}.intersection(changed_parts(reply_then, reply_now))
        else:
            is_same_reply = (reply_then.get(names[0]) or None) == (reply_now.get(names[0]) or None)
        if is_same_reply:
            details[part] = []  # only the other half of `reply` came or went
    return details


def _references(spec: Spec, block: str) -> Iterator[Reference]:
    """Yield the references within a block; texts that no longer compile are left out."""
    sources: list[Any] = []
    for name, written in spec["blocks"].items():
        sources.append(written.get("key"))
        if name != block:
            listed = str(written.get("for_each", "")).partition(" in ")[2]
            sources += [listed, written.get("where"), written.get("if")]
        yield from Value.scan(written.get("returns"), bare=True)[0].references
    for written in spec["steps"].values():
        reply = written.get("reply") or {}
        sources += [written.get(name) for name in ("if", "escalate", "review")]
        sources += (reply.get("evidence") or {}).get("from") or ()
        sources += [choice.get("choose") for choice in _choices_in(reply.get("schema"))]
        yield from Value.scan(written.get("with"))[0].references
        yield from Value.scan(written.get("returns"), bare=True)[0].references
        for check in reply.get("check") or ():
            with suppress(ExpressionError):
                yield from Check.of(check).references
    for source in filter(None, sources):
        with suppress(ExpressionError):
            yield from Expression.of(source).references


def _choices_in(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the fields of a schema that are chosen from a list, as written."""
    if isinstance(schema, Mapping) and isinstance(schema.get(CHOOSE), Mapping):
        yield schema[CHOOSE]
    held = schema.values() if isinstance(schema, Mapping) else schema
    for inner in held if isinstance(schema, Mapping | list) else ():
        yield from _choices_in(inner)


class PastItems:
    """How the items of a scope were last done, read from the ledger at first use."""

    def __init__(self, ledger: Ledger, scope: str, node: BoundNode) -> None:
        self._origins, self._scope, self._node = LineageStore(ledger), scope, node
        self._specs: Mapping[str, str] | None = None
        """Key → digest of the spec with which an item was done."""
        self._known: dict[str, tuple[SpecChanges, Mapping[str, Mapping[str, str]]]] = {}
        """By the digest: what changed since, and the lists of labels."""

    def changes(self, key: str) -> SpecChanges:
        """Return what of an item's spec changed since it was done."""
        return self._of(key)[0]

    def lists(self, key: str) -> Mapping[str, Mapping[str, str]]:
        """Return the lists that an item was chosen from, by name."""
        return self._of(key)[1]

    def _of(self, key: str) -> tuple[SpecChanges, Mapping[str, Mapping[str, str]]]:
        if self._specs is None:
            self._specs = self._origins.specs_of(self._scope)
        digest = self._specs.get(key, "")
        if digest not in self._known:
            text = self._origins.spec(digest) if digest else None
            then, changes = json.loads(text) if text else {}, SpecChanges()
            if text:
                changes = compare_specs(then, self._node)
            self._known[digest] = changes, then.get(LABELS, {})
        return self._known[digest]
