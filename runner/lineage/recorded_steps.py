"""Steps of recorded items: their checks, and their calls with prompts and replies."""

from __future__ import annotations

import json

from paddock.engine.system.records import record
from paddock.runner.core.run_records import CallRecord, read_lineage
from paddock.runner.ledger.entries import CallRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore

from .path_lineage import LineageCall, LineageStep
from .recorded_items import RecordedItem, RecordedItems


@record(frozen=True, slots=True)
class RecordedSteps:
    _ledger: Ledger
    _items: RecordedItems

    def of(self, item: RecordedItem, earlier_run: str | None = None) -> list[LineageStep]:
        """Return the steps of an item with their calls, in the order of running.

        1. Those of its lineage; behind one that runs a pipeline, what that did.
        2. It has none, since it was interrupted, or none of an earlier run is kept: the calls that
           the ledger still has, as one step.
        """
        owner, steps = item.owner, list[LineageStep]()
        if item.lineage is None or earlier_run is not None:  # 2
            hashes = LineageStore(self._ledger).calls_of(owner.scope_id, "/".join(item.keys))
            kept = filter(None, [self._ledger.call(hash_, is_whole=True) for hash_ in hashes])
            calls = [_kept_call(c, c.run, None) for c in kept if earlier_run in (None, c.run)]
            return [LineageStep(owner.step, calls=tuple(calls))] if calls else []
        for step in read_lineage(item.lineage.made)[1]:  # 1
            reply = item.spec.get("steps", {}).get(step.id, {}).get("reply")
            check = reply.get("check") if isinstance(reply, dict) else None
            checks = (check,) if isinstance(check, str) else tuple(map(str, check or ()))
            named = f"{owner.prefix}{step.id}", step.uses, step.model, step.seconds
            calls = [self._call(call, item.run) for call in step.calls]
            steps.append(LineageStep(*named, checks, tuple(calls)))
            for inner in self._items.items_within(owner, step.id, item.keys):
                steps += self.of(inner)
        return steps

    def _call(self, call: CallRecord, run: str) -> LineageCall:
        kept = self._ledger.call(call.hash, is_whole=True)
        if kept is not None:
            return _kept_call(kept, run, call)
        usage = {"prompt_tokens": call.prompt, "completion_tokens": call.completion}
        return LineageCall(
            hash=call.hash, kind=call.kind, is_known=call.is_known, at=call.began,
            seconds=call.seconds, run=run, usage=usage, is_gone=True,
        )  # fmt: skip


def _kept_call(kept: CallRow, run: str, call: CallRecord | None) -> LineageCall:
    """Return a call with its texts; `call`: what the lineage knows of it."""
    is_known, at, seconds = False, kept.at, None
    if call is not None:
        is_known, at, seconds = call.is_known, call.began, call.seconds
    try:
        request = json.loads(kept.request)
    except ValueError:  # a secret that was removed may have stood in its syntax
        request = {"request": kept.request}
    reply = "" if kept.kind == "embed" else kept.reply.decode("utf-8", "replace")
    return LineageCall(
        hash=kept.hash, kind=kept.kind, model=kept.model, digest=kept.digest,
        served_digest=kept.served_digest, is_known=is_known, at=at, seconds=seconds, run=run,
        request=request, reply=reply, done_reason=kept.done_reason,
        usage=kept.usage.get("usage", {}),
    )  # fmt: skip
