"""How the items of a scope were last done: with which spec, and from which lists of labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paddock.runner.bind.bound import BoundNode, canonical_spec
from paddock.runner.bind.label_changes import LABELS, Labels
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore

from .fingerprints import item_content, ordered_digest, without_time
from .stale_reasons import PastItem, SpecChanges, compare_specs


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
