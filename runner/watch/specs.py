"""From a bound pipeline to what its watches look at."""

from __future__ import annotations

from pathlib import Path

from paddock.runner.binding.bound import BoundPlan

from .spec import WatchSpec


def specs_of(bound: BoundPlan) -> tuple[WatchSpec, ...]:
    """Give what each entry of `on.watch` looks at."""
    file = _absolute(bound)
    return tuple(
        WatchSpec(
            name=f"{file.name}:{_stored(watch.root, bound.roots.base)}",
            root=watch.root,
            include=tuple(watch.keys.include),
            exclude=tuple(watch.keys.exclude),
            settle_s=watch.keys.settle,
            batch_s=watch.keys.batch,
            reconcile_s=watch.keys.reconcile,
            prunes=watch.keys.deletes == "prune",
            is_hot=watch.keys.claim == "move",
            ignored=(*watch.own, file),
        )
        for watch in bound.watches
    )


def _absolute(bound: BoundPlan) -> Path:
    return bound.roots.base / bound.file.name


def _stored(root: Path, base: Path) -> str:
    """Write a root as the ledger does: a folder that is moved as a whole stays the same watch."""
    return root.relative_to(base).as_posix() if root.is_relative_to(base) else str(root)
