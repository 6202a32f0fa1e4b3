"""How a run ended, as its ledger tells it: what a watch needs to know of it."""

from __future__ import annotations

from typing import cast, get_args

from ..ledger.ledger import Ledger  # noqa: TID252 - the same class in either way of importing
from .spec import Outcome, Status


def outcome_of(
    ledger: Ledger, run: str, otherwise: Status = "crashed", message: str = ""
) -> Outcome:
    """Read how a run ended; `otherwise` where the ledger does not say, since it was killed.

    `run` may be the name of what several machines did together: then they say of each item how it
    ended, and `otherwise` and `message` of the whole. Of a run that went on with others that
    crashed, those say it as well.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    row = ledger.run(run)
    runs = ledger.runs_of(row.parent if row is not None and row.parent else run)
    status = otherwise
    if row is not None and row.status in get_args(Status):
        status, message = cast(Status, row.status), row.message or ""
    entries = [item.entry for one in runs for item in ledger.items_of(one)]
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
    return Outcome(run, status, failed, again, message)
