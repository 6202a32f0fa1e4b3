"""What comes before an item in its pipeline, and whether it is up to date: asked of a plan.

A file that was made of a block's results knows nothing of the documents behind them: only a plan
does. It is made where there is something to ask, once for each pipeline with the same inputs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError
from paddock.pipelines.errors import PipelineError
from paddock.runner.binding.bound import BoundBlock, BoundNode, BoundPlan
from paddock.runner.body import ids
from paddock.runner.freshness import canonical
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.report import PlanItem
from paddock.runner.settings import Settings

from .origin import Change

_OLD = frozenset(("new", "changed", "stale", "deleted"))
_MOST_NAMES = 3


class Before:
    """The plans that were asked for."""

    def __init__(self) -> None:
        self._plans: dict[str, Sequence[PlanItem] | str] = {}

    def changes(
        self,
        bound: BoundPlan,
        step: str,
        given: Mapping[str, Any],
        settings: Settings,
        told: Collection[str] = (),
    ) -> list[Change]:
        """Tell which blocks and steps before one have work to do.

        `told` are steps of which is known already what changed.
        """
        names = [name for name in before(bound, step) if name not in told]
        if not names:
            return []
        items = self._planned(bound.file, given, settings)
        if isinstance(items, str):
            return [Change(f"what comes before it cannot be looked at: {items}")]
        return [
            Change(f"'{name}', which comes before it, is not up to date: {words}")
            for name in names
            for words in _words([one for one in items if _is_of(one, name)])
        ]

    def _planned(
        self, file: Path, given: Mapping[str, Any], settings: Settings
    ) -> Sequence[PlanItem] | str:
        name = canonical([str(file), dict(given)])
        if name not in self._plans:
            self._plans[name] = _plan(file, given, settings)
        return self._plans[name]


def _plan(file: Path, given: Mapping[str, Any], settings: Settings) -> Sequence[PlanItem] | str:
    """Give the items of a plan; a sentence where there can be none."""
    from paddock.runner import pools
    from paddock.runner.verbs import plan_async

    try:
        pool = pools.LookedUp(settings)
        return asyncio.run(plan_async(file, given, settings=settings, pool=pool)).items
    except PipelineError as error:
        return error.faults[0].message
    except (EngineError, LedgerError, OSError) as error:
        return str(error)


def before(bound: BoundPlan, step: str) -> tuple[str, ...]:
    """Name the blocks and the steps with entries from which something comes to a step, in order."""
    found: set[str] = set()
    waiting = [_top(bound, step)]
    while waiting:
        new = bound.edges.get(waiting.pop(), frozenset()) - found
        found |= new
        waiting += new
    return tuple(node.id for node in bound.nodes if node.id in found and _has_entries(node))


def _has_entries(node: BoundNode) -> bool:
    return isinstance(node, BoundBlock) or bool(node.kind.roles) or node.inner is not None


def _top(bound: BoundPlan, step: str) -> str:
    """Give the top-level block or step that something stands in."""
    for node in bound.nodes:
        within = (node.id, *(ids(node.body) if isinstance(node, BoundBlock) else ()))
        if any(step == one or step.startswith(f"{one}.") for one in within):
            return node.id
    return step


def _is_of(item: PlanItem, name: str) -> bool:
    return item.state in _OLD and (item.step == name or item.step.startswith(f"{name}."))


def _words(items: Sequence[PlanItem]) -> Iterator[str]:
    """Say what has to be done; nothing for a step that only waits for others."""
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        why = items[0].why or items[0].state
        if not why.startswith("it reads '"):
            yield why
        return
    if items:
        names = [f"{one.key} ({one.state})" for one in items[:_MOST_NAMES]]
        n_more = len(items) - len(names)
        yield ", ".join(names) + (f" and {n_more:,} more" if n_more else "")
