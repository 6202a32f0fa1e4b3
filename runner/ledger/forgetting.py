"""Forgetting: remove at once all that a ledger knows of a document, since a person asks for it.

Its decisions, and so the rules made of them, questions, replies, results and texts. The rows go in
one transaction; objects that a kill leaves behind it go with `paddock clean`. No output is removed:
its row stays while the file does, so that a plan finds it outdated and no scan takes it for a
document.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from paddock.engine.system import file_locks
from paddock.engine.system.records import Struct
from paddock.runner.settings import read_settings
from paddock.steps.effects import is_output_there

from .database import queries
from .database.ledger_tables import Execute
from .entries import HANDED_OVER, ScopeOwner, whole_file
from .event_log import verify_again
from .ledger import Ledger
from .lineage_store import LineageStore
from .retention import RetentionLimits, Sweeper, open_sweeper
from .reviews.review_store import ReviewStore
from .reviews.reviews import Review
from .run_history import LedgerFolder, open_for_reading
from .run_locks import Locked
from .run_store import RunStore, run_status

LOCK_WAIT_S = 10.0


class DocumentItem(Struct, frozen=True):
    """An item that has a document."""

    scope: str
    key: str
    pipeline: str
    name: str
    path: str
    """Where the document lay, as the ledger stores paths."""
    content: str
    """Its digest: a document is known by it, under whatever names."""
    target: str | None
    """Where it went."""

    @property
    def names(self) -> tuple[str, ...]:
        """Where it lies; others; its key, of the first with its name `a.txt#1` as in `a.txt#2`."""
        key = self.key if "#" in self.key else f"{self.key}#1"
        return self.target or self.path, self.path, self.name, Path(self.path).name, self.key, key


def document_items(ledger: Ledger, file: str | None) -> list[DocumentItem]:
    """Return the items of a ledger that have documents, or those of one pipeline's."""
    found = list[DocumentItem]()
    for scope, key, of_file, name, path, sha256, target, *made in ledger.rows(queries.DOCUMENTS):
        if file in (None, pipeline := whole_file(of_file)):
            lineage = {} if sha256 else ledger.load_value(*made) or {}
            content = sha256 or (lineage.get("source") or {}).get("sha256") or path
            found.append(DocumentItem(scope, key, pipeline, name, path, content, target))
    return found


class Forgetting(Struct, frozen=True):
    """What goes with the items of a document."""

    places: frozenset[tuple[str, str]]
    """Scope and key of these, and of what was done within them."""
    nested: frozenset[str]
    """Scopes within them."""
    reviews: tuple[Review, ...]
    outputs: tuple[str, ...]
    """Stored paths of files that were made of it. They stay, known as outputs."""

    @classmethod
    def of(cls, ledger: Ledger, items: Collection[DocumentItem]) -> Forgetting:
        places, nested = {(item.scope, item.key) for item in items}, set[str]()
        owners = [ScopeOwner.of(*row) for row in ledger.rows(queries.SCOPES)]
        around = {o.scope_id: (o.file, json.dumps(o.folders[:1]), *o.outer) for o in owners}
        within = {(*around[scope], key) for scope, key in places}
        for scope, keys in around.items():
            if any(keys[:n] in within for n in range(3, len(keys) + 1)):
                nested.add(scope)
                rows = ledger.rows(queries.KEYS_OF_SCOPE, scope=scope)
                places.update((scope, key) for (key,) in rows)
        reviews_of = ReviewStore(ledger).of_scope
        reviews = [r for scope, key in sorted(places) for r in reviews_of(scope, [key]).values()]
        written = (out for out in ledger.outputs(with_moved=False) if out.size != HANDED_OVER)
        paths = {out.path for out in written if (out.scope, out.key) in places}
        base = ledger.folder.parent
        outputs = [p for p in sorted(paths) if is_output_there(os.path.join(base, p))]  # noqa: PTH118 - a place of a package is no path
        return cls(frozenset(places), frozenset(nested), tuple(reviews), tuple(outputs))


def forget(place: LedgerFolder, items: Collection[DocumentItem]) -> None:
    """Remove all that a ledger knows of the items of a document.

    No run may be at work, and none begins meanwhile: one in PostgreSQL may, if it waited for its
    turn when this began, or is of another machine.

    Raises:
        LedgerError: a run works on the folder (`Locked`), or the ledger cannot be used.
    """
    url, nothing_older = read_settings(place.folder).ledger_url, RetentionLimits(0.0, 0.0)
    with (
        without_runs(place) as ledger,
        suppress(FileNotFoundError),
        open_sweeper(place.state, url, nothing_older, overwrites=True) as sweeper,
    ):
        _remove(ledger, items, sweeper)
        sweeper.database.drop_kept()
        sweeper.sweep()


@contextmanager
def without_runs(place: LedgerFolder) -> Iterator[Ledger]:
    """Open a ledger for reading while no run is at work on its folder, and none begins.

    Raises:
        LedgerError: a run works on the folder (`Locked`), or the ledger cannot be used.
    """
    busy = "works on this folder: nothing was changed."
    try:
        with open_for_reading(place) as ledger, ExitStack() as stack:
            ledger_lock = file_locks.lock_now(place.state / "ledger.lock", wait_s=LOCK_WAIT_S)
            stack.enter_context(ledger_lock)  # no run opens the ledger
            for row in RunStore(ledger).running():
                if run_status(row, ledger) == "running":
                    raise Locked(f"Run '{row.run}' {busy} Wait.")
            for lock in (place.state / "locks").glob("*.lock"):  # none that has opened it begins
                stack.enter_context(file_locks.lock_now(lock))
            yield ledger
    except file_locks.LockTaken:
        raise Locked(f"{place.state}: another process {busy} Wait.") from None


def _remove(ledger: Ledger, items: Collection[DocumentItem], sweeper: Sweeper) -> None:
    forgetting, lineage, hashes = Forgetting.of(ledger, items), LineageStore(ledger), set[str]()
    for scope, key in forgetting.places:
        hashes.update(lineage.calls_of(scope, key))
        made = lineage.of_item(scope, key)
        steps = made.made["steps"] if made else ()
        hashes.update(call[0] for step in steps for call in step.get("calls", ()))
    hashes -= {*sweeper.needed_calls(forgetting.places)}
    listed = sweeper.database.listed_keys
    drop_calls = queries.DROP_CALLS.format(listed=listed)
    ids = [f'"{review.id}"' for review in forgetting.reviews]

    def remove(execute: Execute) -> None:
        for scope, key in sorted(forgetting.places):
            for statement in queries.FORGET_ITEM:
                execute(statement, {"scope": scope, "key": key})
            sweeper.drop_missing_outputs(scope, key, execute)
        for scope in forgetting.nested:
            for statement in queries.DROP_SCOPE:
                execute(statement, {"scope": scope})
        for item in items:
            execute(queries.FORGET_MOVE, {"path": item.path, "content": item.content})
        verify_again(execute, listed, ids)
        execute(drop_calls, {"keys": json.dumps(sorted(hashes))})
        execute(queries.DROP_UNUSED_SPECS, {})

    sweeper.database.in_transaction(remove)
