"""Record an item in the ledger: entry, lineage, rows in stores, what it wrote and filed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from paddock.engine.system import no_links
from paddock.engine.system.files import sha256_of
from paddock.engine.system.records import Struct, asdict, field, replace
from paddock.engine.system.tasks import in_left_thread
from paddock.engine.system.text import canonical_json, ordered_json
from paddock.runner.bind.specs import whole_spec
from paddock.runner.ledger.entries import Entry, LedgerError
from paddock.runner.ledger.item_events import EventKind
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import WAITS, WHOLE, ItemState
from paddock.steps.base import StepError
from paddock.steps.paths import printable

from .failures import RunStopped
from .outputs.vector_rows import reconcile_rows
from .run_records import Lineage, source_of
from .traces.block_items import is_file_value, item_path
from .traces.dependencies import LimitedContext, TakenPath, as_json, by_name
from .traces.parts import CONTENT, parts_hash
from .traces.past_items import LABELS

if TYPE_CHECKING:
    from .item_attempt import ItemAttempt
    from .run_context import RunContext
    from .traces.block_work import ItemEnd, ItemWork

CANCEL_GRACE_S = 2.0
"""How long a cancelled item waits for the ledger, to know whether it is recorded."""
_CLOCK_SLACK_S = 2.0  # a file system's clock goes in steps of up to two seconds
_SMALL_BYTES = 256 * 1024  # read in 0.2 ms, which is less than a thread takes


class ItemRecorder(Struct, frozen=True, eq=False):
    context: RunContext
    _specs: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Block or step, and digests of lists of labels → digest of its spec, once that is recorded."""

    async def record(self, attempt: ItemAttempt, end: ItemEnd) -> None:
        """Record an item's entry, and wait until it is durable.

        1. What it read and keeps in stores is noted; rows that it no longer keeps are dropped.
        2. Its entry is made; if its document changed since it was listed, without a content digest.
        3. It is filed, if its document was moved away.
        4. All that is one commit, with its lineage, and that it is no longer in flight.
        5. Its document is deleted, if a step asked for that.
        """
        context, stats = self.context, self.context.stats
        ledger, secrets = context.ledger, stats.secrets
        item, outputs, error = attempt.work, attempt.outputs, end.report.error
        assert end.state is not None
        attempt.dependencies |= outputs.dependencies  # 1
        if end.state is ItemState.BLOCKED and end.reason is not None:
            attempt.note(TakenPath(str(end.reason.about[0])))
            stats.note(f"{attempt.shown_key or item.key} {WAITS[end.state].singular}: {end.reason}")
        for caller in attempt.callers:
            if caller.is_limited:
                attempt.note(LimitedContext(caller.step))
        try:
            await attempt.note_files(context, list(outputs.read), context.bound.roots)
            place = attempt.scope_id, attempt.key
            rows = await reconcile_rows(context, place, outputs, item.entry, end.state)
        except StepError as failure:
            raise RunStopped(str(failure)) from failure
        attempt.dependencies |= by_name(rows)
        item = await as_of_its_content(item, stats.began_at)  # 2
        text, object_ = ledger.store_value(end.result)
        is_rejected = any(review.state == "rejected" for review in attempt.applied)
        counts = not (
            is_rejected or context.judge.reviews.is_taken_back(attempt.scope_id, item.key)
        )
        if item.was_filed is not None and end.state not in WHOLE and counts:
            text, object_ = item.was_filed.returns, item.was_filed.returns_object
        was = ItemState.HELD if attempt.edited_paths() else item.verdict.state
        entry = Entry(
            key=item.key,
            hash=item.hash,
            parts=item.parts,
            state=end.state.value,
            error=error and secrets.redact(error),
            returns=text,
            returns_object=object_,
            reads=as_json(attempt.dependencies),
            outputs=json.dumps(outputs.written) if outputs.written else None,
            has_inner_failures=attempt.has_inner_failures,
            seconds=end.report.seconds,
            calls=sum(caller.n_calls for caller in attempt.callers),
            tokens=sum(caller.n_tokens for caller in attempt.callers),
            attempts=attempt.n_failures,
            was=was.value if item.is_counted else "",
        )
        document = attempt.document if end.state in WHOLE else None  # 3
        try:  # 4
            ledger.record(attempt.scope_id, entry, stats.run, **self.lineage_of(attempt))
            if document is not None and document.is_filed:
                filed = context.documents.filed(document).columns()
                ledger.append(EventKind.LEFT, attempt.scope_id, item.key, stats.run, **filed)
            outputs.record_written()
            place, is_repeated_crash = (attempt.scope_id, item.key), attempt.is_repeated_crash
            context.suspects.end(*place, is_recorded=True, is_repeated_crash=is_repeated_crash)
            attempt.entry = entry
            await ledger.durable()
        except LedgerError as failure:
            raise RunStopped(str(failure)) from failure
        if document is not None and document.leaves is not None:  # 5
            try:
                await asyncio.to_thread(no_links.remove, document.leaves)
            except OSError as failure:
                why = f"cannot be removed ({failure.strerror or failure})"
                stats.note(f"'{printable(document.leaves)}' {why}")

    async def stands(self, attempt: ItemAttempt) -> bool:
        put, ledger = attempt.entry, self.context.ledger
        if put is None:
            return False
        with contextlib.suppress(LedgerError, TimeoutError):
            async with asyncio.timeout(CANCEL_GRACE_S):
                await ledger.durable()
        # Read back: the entry that failed may have been another item's.
        try:
            entries = ledger.entries(attempt.scope_id, [attempt.key])
        except LedgerError:
            return False
        entry = entries.get(attempt.key)
        return entry is not None and (entry.hash, entry.seconds) == (put.hash, put.seconds)

    def lineage_of(self, attempt: ItemAttempt) -> dict[str, Any]:
        """Return the columns of the end of an item that say what it was made of."""
        context, stats = self.context, self.context.stats
        lineage, node, lists = LineageStore(context.ledger), attempt.node, attempt.lists
        key = (node.id, *(lists[name].digest for name in sorted(lists)))
        if key not in self._specs:
            spec = whole_spec(node)
            text = json.dumps(spec, ensure_ascii=False)
            if lists:  # so that a later run knows which of the labels are new
                labels = {name: dict(found.labels) for name, found in lists.items()}
                text = ordered_json({**spec, LABELS: labels})
            self._specs[key] = lineage.record_spec(stats.secrets.redact(text))
        own_path = attempt.own_path
        stored = own_path and context.index.stored(own_path)
        source = source_of(attempt.work.value, stored)
        made = Lineage(
            source,
            attempt.steps,
            attempt.work.renamed_from,
            None if attempt.work.is_counted else attempt.wrote(),
            tuple(sorted(context.bound.inputs_by_item)),
        )
        inline, object_ = context.ledger.store_value(stats.secrets.redacted(asdict(made)))
        path = None if source is None else source.path
        return {"spec": self._specs[key], "path": path, "made": inline, "made_object": object_}


async def as_of_its_content(item: ItemWork, listed_after: float) -> ItemWork:
    """Return an item; without a content digest if its document changed since it was listed."""
    path = item_path(item.value) if is_file_value(item.value) else None
    with contextlib.suppress(OSError, ValueError):  # what is gone, the next run misses
        if path is None or item.kept is not None:
            return item
        facts = os.stat(path)  # noqa: PTH116 - for each item
        if facts.st_ctime <= listed_after - _CLOCK_SLACK_S:
            return item
        is_small = facts.st_size <= _SMALL_BYTES
        now = sha256_of(path) if is_small else await in_left_thread(sha256_of, path)
        if now != item.value["sha256"]:
            parts = canonical_json(json.loads(item.parts) | {CONTENT.name: ""})
            return replace(item, own_parts=parts, rule_parts="", hash=parts_hash(parts))
    return item
