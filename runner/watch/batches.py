"""How the run of a watch's order ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from typing import cast, get_args

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import WAITS
from paddock.runner.workers.order import OrderEnd


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How the run of an order ended."""

    run: str
    status: OrderEnd
    failed: Mapping[str, str] = field(default_factory=dict)
    """Items that failed, key → reason; in a block over files the key is the `relpath`."""
    again: Mapping[str, int] = field(default_factory=dict)
    """Items that the next run tries again, key → failures in a row; 0: none is counted."""
    message: str = ""
    """Why the run as a whole failed."""
    waiting: Collection[str] = frozenset()
    """Items that wait for a person's decision."""

    @property
    def is_through(self) -> bool:
        """Whether the run looked at every file."""
        return self.status in ("completed", "quarantined")


def batch_outcome(
    ledger: Ledger, run: str, otherwise: OrderEnd = "crashed", message: str = ""
) -> BatchOutcome:
    """Return how a run ended; `otherwise` when the ledger does not know, since it was killed.

    When a run continued one that crashed, the crashed run's rows count as well.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    row = RunStore(ledger).run(run)
    runs = RunStore(ledger).runs_of(row.parent if row is not None and row.parent else run)
    status = otherwise
    if row is not None and row.status in get_args(OrderEnd):
        status, message = cast(OrderEnd, row.status), row.message or ""
    failed: dict[str, str] = {}
    again: dict[str, int] = {}
    waiting: set[str] = set()
    for item in chain.from_iterable(map(RunStore(ledger).items_of, runs)):
        entry = item.entry
        if entry.state in ("quarantined", "failed"):
            failed[entry.key] = entry.error or ""
        if entry.is_tried_again:
            again[entry.key] = entry.n_failures
        if entry.state in WAITS:
            waiting.add(entry.key)
    return BatchOutcome(run, status, failed, again, message, waiting)
