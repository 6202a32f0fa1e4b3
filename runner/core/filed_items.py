"""Filed items: their documents were moved away by a step, or by a hot folder's watch.

Filed is not deleted: the entries stay, and `rows` of `files.write` gets their results with those of
this run, whatever becomes of the files. All else that reads a block's results, such as a digest,
gets this run's alone, and is left as it is where nothing is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry

from .dependencies import AWAY

FILED_STATES = frozenset(("done", "skipped"))
"""States of an item that was done before its document was moved away."""


class ItemResults(list[Any]):
    """A block's results of this run; `with_filed`: with those of filed items, by key."""

    def __init__(self, results: Iterable[Any], with_filed: Sequence[Any]) -> None:
        super().__init__(results)
        self.with_filed = with_filed

    @classmethod
    def of(
        cls, results: Sequence[Any], keys: Sequence[str], filed: Mapping[str, Any]
    ) -> ItemResults:
        """Return a block's results, which its items have in the order of `keys`."""
        pairs = (*filed.items(), *zip(keys, results, strict=True))
        whole = sorted(pairs, key=lambda pair: pair[0]) if filed else pairs
        return cls(
            (result for result in results if result is not None),
            [result for _, result in whole if result is not None],
        )


def is_filed(entry: Entry, *, is_hot: bool) -> bool:
    """Return whether an item that the list no longer has was done, and its document moved away."""
    return entry.state in FILED_STATES and (is_hot or bool(entry.marks(AWAY)))


def with_filed_rows(step: BoundStep, scope: Scope) -> Mapping[str, Scope]:
    """Return the scope of each parameter of a step that sees the rows of filed items, too."""
    if step.uses != "files.write" or "rows" not in step.written:
        return {}
    steps = {
        name: {**outputs, "results": outputs["results"].with_filed}
        for name, outputs in scope["steps"].items()
        if isinstance(outputs.get("results"), ItemResults)
    }
    return {"rows": Scope({**scope, "steps": {**scope["steps"], **steps}})} if steps else {}


def reads_new_items(node: BoundNode) -> frozenset[tuple[str, ...]]:
    """Return what a node reads, but for what sees filed items, too."""
    if not isinstance(node, BoundStep) or node.uses != "files.write":
        return node.references
    of_rows = {path: read for path, read in node.params.value.places().items() if path[0] == "rows"}
    others = (read for path, read in node.params.value.places().items() if path not in of_rows)
    templates = (template.references for template in node.params.templates.values())
    condition = () if node.if_ is None else (node.if_.references,)
    return frozenset().union(*others, *templates, *condition)
