"""Which files a run takes that a watch began: only those that the watch has found at rest.

A run lists its folder anew, so it also meets files that are being written at this moment, or that
have a temporary name. They are left for the run that the watch begins when they have settled.
No clock decides: the watch has noted in the ledger what it has handed on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..binding.bound import BoundPlan  # noqa: TID252 - the same class in either way of importing
from ..ledger.ledger import Ledger  # noqa: TID252 - the same class in either way of importing
from .filter import Filter
from .names import is_temporary_path
from .spec import UNKNOWN, Identity, WatchSpec
from .specs import specs_of

TRIGGER = "watch"


def is_of_watch(trigger: str) -> bool:
    """Tell whether a watch began a run."""
    return trigger.split(maxsplit=1)[:1] == [TRIGGER]


class Settled:
    """Tells of each file whether it has settled. Reads the ledger once for each watch."""

    def __init__(self, bound: BoundPlan, ledger: Ledger) -> None:
        self._specs = specs_of(bound)
        self._ledger = ledger
        self._rows: dict[str, Mapping[str, Identity]] = {}
        self._filters: dict[str, Filter] = {}

    async def read(self) -> None:
        """Learn what the watches have handed on so far."""
        for spec in self._specs:
            self._rows[spec.name] = await self._ledger.ask(self._ledger.watched, spec.name)
            self._filters[spec.name] = Filter(spec)

    def is_left(self, item: Any) -> bool:
        """Tell whether an item is a file below a watch that has not come to rest yet."""
        path = item.get("path") if isinstance(item, Mapping) else None
        if not isinstance(path, str):
            return False
        return any(self._is_left_by(spec, path) for spec in self._around(path))

    def _around(self, path: str) -> Sequence[WatchSpec]:
        return [spec for spec in self._specs if path.startswith(f"{spec.root}{os.sep}")]

    def _is_left_by(self, spec: WatchSpec, path: str) -> bool:
        relpath = path.removeprefix(f"{spec.root}{os.sep}").replace(os.sep, "/")
        if is_temporary_path(relpath):
            return True
        if not self._filters[spec.name].wants(relpath):
            return False  # none that this watch would ever hand on
        row = self._rows[spec.name].get(relpath)
        return row != UNKNOWN and row != _identity(path)


def _identity(path: str) -> Identity | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - many times in a run
    except OSError:
        return None  # it is gone: whoever reads it says so
    return facts.st_size, facts.st_mtime_ns
