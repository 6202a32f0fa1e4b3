"""From a bound pipeline to what its watches look at."""

from __future__ import annotations

from ..binding.bound import BoundPlan  # noqa: TID252 - the same class in either way of importing
from .spec import WatchSpec


def specs_of(bound: BoundPlan) -> tuple[WatchSpec, ...]:
    """Give what each entry of `on.watch` looks at."""
    file = bound.roots.base / bound.file.name
    return tuple(
        WatchSpec(
            name=watch.name,
            root=watch.root,
            include=tuple(watch.keys.include),
            exclude=tuple(watch.keys.exclude),
            settle_s=watch.keys.settle,
            batch_s=watch.keys.batch,
            reconcile_s=watch.keys.reconcile,
            file=str(file),
            is_hot=watch.keys.claim == "move",
            ignored=(*watch.own, file),
        )
        for watch in bound.watches
    )
