"""How a run ended, as its ledger tells it: what a watch needs to know of it."""

from __future__ import annotations

from typing import cast, get_args

from ..ledger.ledger import Ledger  # noqa: TID252 - the same class in either way of importing
from .spec import Outcome, Status


def outcome_of(ledger: Ledger, run: str, otherwise: Status = "crashed") -> Outcome:
    """Read how a run ended; `otherwise` where the ledger does not say, since it was killed.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    row = ledger.run(run)
    if row is None or row.status not in get_args(Status):
        return Outcome(run, otherwise)
    entries = [item.entry for item in ledger.items_of(run)]
    failed = {
        entry.key: entry.error or ""
        for entry in entries
        if entry.state in ("quarantined", "failed")
    }
    again = frozenset(
        entry.key
        for entry in entries  # done, with attempts: something within it failed and may pass
        if entry.state == "failed" or (entry.state == "done" and entry.attempts)
    )
    status = cast(Status, row.status)  # looked at above
    return Outcome(run, status, failed, again, row.message or "")
