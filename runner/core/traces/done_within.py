"""Items that are older than what was done within them: a run ended between.

Nothing else shows it where documents were filed: what the item lists is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.plan_walks import all_steps, callable_names
from paddock.runner.ledger.database import queries

from .block_work import ItemWork
from .scopes import PipelineScopes


def newest_within(
    block: BoundBlock, keys_around: Sequence[str], scopes: PipelineScopes
) -> Mapping[str, float]:
    """Return by key when the last item within an item was done, where documents are filed there."""
    nested = list[BoundStep]()
    for node in block.body:
        if isinstance(node, BoundBlock):
            nested += all_steps(node.body)
        elif node.inner is not None:
            nested += all_steps(node.inner.nodes)
    if not any(step.takes_document for step in nested):
        return {}
    names, n_around = {*callable_names(block.body)}, len(keys_around)
    newest: dict[str, float] = {}
    for scope_id, name, keys in scopes.known():
        if name in names and keys[:n_around] == tuple(keys_around) and len(keys) > n_around:
            ((at,),) = scopes.index.ledger.rows(queries.LAST_DONE, scope=scope_id)
            newest[keys[n_around]] = max(newest.get(keys[n_around], 0.0), at or 0.0)
    return newest


def is_older(item: ItemWork, newest: Mapping[str, float]) -> bool:
    """Return whether an item that would stay as it is was done before what is within it."""
    at = None if item.entry is None or not item.verdict.is_up_to_date else item.entry.at
    return at is not None and at < newest.get(item.key, 0.0)
