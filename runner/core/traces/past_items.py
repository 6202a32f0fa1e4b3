"""How items were last done, by the recorded specs of their rules, and what changed since.

All is pure but `PastItems.read`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, field
from paddock.pipelines.expressions import Expression, ExpressionError, Reference, Value, loop_parts
from paddock.pipelines.label_choices import CHOOSE
from paddock.pipelines.reply_check import Check
from paddock.runner.bind.bound import BoundNode
from paddock.runner.bind.plan_walks import steps_of
from paddock.runner.bind.specs import whole_spec
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.registry import is_function_reference

from .block_items import item_content
from .parts import (
    CONTENT,
    RULE_PARTS,
    Details,
    Part,
    Values,
    VersionPart,
    change_reasons,
    ordered_digest,
)

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger

LABELS = "labels"
"""In a recorded spec, the lists of labels that its items were chosen from, by name."""
WholeSpec = Mapping[str, Mapping[str, Any]]
"""As `whole_spec` has it: `{"blocks": {id: …}, "steps": {id: …}}`."""


class SpecChanges(Struct, frozen=True):
    """Differences between the recorded spec of an item and today's, as far as that is known."""

    has_item: bool = False
    """Whether it was a block, whose items are read by a name."""
    attributes: frozenset[str] | None = None
    """Attributes of the item that were read then; None: all."""
    details: Details = field(default_factory=dict)
    has_other_key: bool = False
    """Whether the block's `key`, which reads the item too, is another expression."""

    def content_then(self, item: Any) -> str | None:
        """Return the digest that today's item would have had then; None: that is not known."""
        if not self.has_item:
            return None
        return ordered_digest(item_content(item, self.attributes))

    def reasons(
        self, parts: Sequence[Part], before: Values, now: Values, item: Any
    ) -> tuple[Reason, ...]:
        """Return why the item is stale by parts that differ.

        The content only changed where the part that was read then did.
        """
        others = (part for part in parts if part is not CONTENT)
        reasons = tuple(change_reasons(others, before, now, self.details))
        if CONTENT in parts and self.content_then(item) != before.get(CONTENT.name):
            return (Why.CONTENT(), *reasons)
        rest = Why.KEY() if self.has_other_key else Why.READ_OF_ITEM()
        return reasons or (rest,)


def compare_specs(then: WholeSpec, node: BoundNode) -> SpecChanges:
    now, block = whole_spec(node), node.id
    details = dict(_code_within([node])) | {
        f"{name}.{what}": reasons
        for kind in ("blocks", "steps")
        for name in then[kind].keys() & now[kind].keys()
        for what, part in RULE_PARTS.items()
        if (reasons := part.details(then[kind][name], now[kind][name])) is not None
    }
    written = then["blocks"].get(block)
    if written is None:
        return SpecChanges(details=details)
    var, _ = loop_parts(written)
    read = [path for path in spec_references(then, block) if path[0] == var]
    is_whole = any(len(path) == 1 for path in read)
    attributes = None if is_whole else frozenset(name for _, name, *_ in read)
    has_other_key = written.get("key") != now["blocks"].get(block, {}).get("key")
    return SpecChanges(True, attributes, details, has_other_key)


def _code_within(
    nodes: Iterable[BoundNode], place: str = ""
) -> Iterator[tuple[str, Sequence[Reason]]]:
    """Yield what changed of functions of pipelines that steps run, whose specs are not recorded."""
    for step in steps_of(nodes):
        if place and is_function_reference(step.uses):
            yield f"{place}{step.id}.{VersionPart.what}", [Why.CODE(step.uses.rpartition(":")[0])]
        if step.inner is not None:
            yield from _code_within(step.inner.nodes, f"{place}{step.id}.")


def spec_references(spec: WholeSpec, block: str = "") -> Iterator[Reference]:
    """Yield the references of a recorded spec; texts that no longer compile are left out.

    `block`: its items are known, so what they are listed by is left out.
    """
    sources: list[Any] = []
    for name, written in spec.get("blocks", {}).items():
        sources.append(written.get("key"))
        if name != block:
            sources += [loop_parts(written)[1], written.get("where"), written.get("if")]
        yield from Value.scan(written.get("returns"), bare=True)[0].references
    for written in spec.get("steps", {}).values():
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
    if isinstance(schema, Mapping) and isinstance(schema.get(CHOOSE), Mapping):
        yield schema[CHOOSE]
    values = schema.values() if isinstance(schema, Mapping) else schema
    for inner in values if isinstance(schema, Mapping | list) else ():
        yield from _choices_in(inner)


_PastSpec = tuple[SpecChanges, Mapping[str, Mapping[str, str]]]
"""What changed since, and the lists of labels."""


class PastItems(Struct, eq=False):
    """How the items of a block, or a step, were last done; it is asked after `read`."""

    _ledger: Ledger
    _scope_id: str
    _node: BoundNode | None
    """Their rule now; None: it is as it was."""
    _specs: Mapping[str, str] | None = None
    """Key → digest of the spec with which an item was done."""
    _texts: dict[str, str | None] = field(default_factory=dict)
    """Texts of specs by their digests."""
    _known: dict[str, _PastSpec] = field(default_factory=dict)
    """By that digest."""

    def read(self) -> None:
        if self._specs is None:
            origins = LineageStore(self._ledger)
            self._specs = origins.specs_of(self._scope_id)
            for digest in {*self._specs.values()}:
                self._texts[digest] = origins.spec(digest)

    def changes(self, key: str) -> SpecChanges:
        return self._of(key)[0]

    def lists(self, key: str) -> Mapping[str, Mapping[str, str]]:
        return self._of(key)[1]

    def _of(self, key: str) -> _PastSpec:
        assert self._specs is not None, self._scope_id
        digest = self._specs.get(key, "")
        if digest not in self._known:
            text = self._texts.get(digest)
            then, changes = json.loads(text) if text else {}, SpecChanges()
            if text and self._node is not None:
                changes = compare_specs(then, self._node)
            self._known[digest] = changes, then.get(LABELS, {})
        return self._known[digest]
