"""What changed since an output was made, in the words of `paddock why`.

A run says why it would do an item again ("folder changed"). Of an output that is there, `why` says
what became of its document, of what its item read, and of the output itself. All reasons of a run,
and all states in the ledger, become such changes here; nothing is compared.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from paddock.runner.core.traces.dependencies import current_paths
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why

from .path_lineage import LineageChange
from .recorded_items import ItemOutput

MAX_DIFFERENCE_LINES = 40
_CHANGED_OR_GONE = {
    Why.FILE: (Why.READ_CHANGED, Why.READ_GONE),
    Why.FILE_GONE: (Why.READ_CHANGED, Why.READ_GONE),
    Why.FOLDER: (Why.LISTED_CHANGED, Why.LISTED_GONE),
    Why.STORE: (Why.SEARCHED_CHANGED, Why.SEARCHED_GONE),
    Why.ROWS_LOST: (Why.ROWS_CHANGED, Why.ROWS_GONE),
}
"""For a reason of a run about a path: what is said here where the path is there, and is gone."""
NO_LONGER_APPLIES = {
    Outdated.SKIPPED: Why.OUTDATED_SKIPPED,
    Outdated.EXCLUDED: Why.OUTDATED_EXCLUDED,
    Outdated.GONE: Why.OUTDATED_GONE,
}
"""Why an output no longer applies, as a plan has found; of all else `OUTDATED` is said."""


def dependency_wording(
    reasons: Iterable[Reason], index: OutputIndex, subject: str
) -> Iterator[LineageChange]:
    """Yield what became of what an item depended on; `subject` names the item.

    Lost and edited outputs are left out, since `Origin.condition` has that.
    """
    for reason in reasons:
        if reason.why in _CHANGED_OR_GONE:
            (path,) = reason.about
            changed, gone = _CHANGED_OR_GONE[reason.why]
            is_there = os.path.lexists(index.absolute(str(path)))
            yield LineageChange((changed if is_there else gone)(subject, path))
        elif not reason.is_loss:
            yield LineageChange(reason)


def rule_wording(
    reasons: Iterable[Reason], node: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[LineageChange]:
    """Yield what became of an item's rule; behind the first reason about a step its difference.

    `then` and `now` are specs of the rule, of which the step or block `node` is the outermost; of a
    rule whose spec is not known, `then` is empty.
    """
    before, after = _spec_lines(then), _spec_lines(now)
    for reason in reasons:
        is_of_node = reason.why in (Why.STEP, Why.KEY, Why.READ_OF_ITEM)
        step = node if is_of_node else str(reason.about[0]) if reason.about else ""
        lines = before.pop(step, []), after.pop(step, [])
        yield LineageChange(reason, tuple(_difference(*lines)) if then else ())


def no_longer_written(output: ItemOutput) -> LineageChange:
    """Return why a path is no output of its item as that was done last."""
    entry = output.item.entry
    if entry is None:
        why = Why.WRITTEN_NO_MORE()
    elif entry.state == ItemState.WAITING:
        why = Why.EARLIER_ANSWER(entry.run)
    elif entry.state == ItemState.FAILED:
        why = Why.EARLIER_TRY(entry.run)
    elif entry.state in (ItemState.SKIPPED, ItemState.QUARANTINED):
        why = Why.ITEM_ENDED(entry.run, entry.state)
    elif output.n_rows is None and (paths := sorted(current_paths(entry))):
        why = Why.ITEM_WRITES(entry.run, ", ".join(paths))
    else:
        why = Why.ITEM_WRITES_NOTHING(entry.run)
    return LineageChange(why)


def _difference(before: list[str], now: list[str]) -> Iterator[str]:
    found = difflib.unified_diff(before, now, lineterm="", n=0)
    lines = [line for line in found if not line.startswith(("---", "+++", "@@"))]
    yield from lines[:MAX_DIFFERENCE_LINES]
    if len(lines) > MAX_DIFFERENCE_LINES:
        yield f"… {len(lines) - MAX_DIFFERENCE_LINES} more lines"


def _spec_lines(spec: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return a spec as lines by step, one for each line of a text, for a readable diff."""
    found: dict[str, list[str]] = {}
    for kind in ("blocks", "steps"):
        for name, step in spec.get(kind, {}).items():
            given = ((f, v if isinstance(v, Mapping) else {f: v}) for f, v in step.items())
            fields = [pair for f, pairs in given if step[f] is not None for pair in pairs.items()]
            lines = found.setdefault(name, [])
            for field, value in sorted(fields, key=itemgetter(0)):
                is_text = isinstance(value, str)
                texts = value.splitlines() if is_text else [json.dumps(value, ensure_ascii=False)]
                lines += [f"{name}.{field}: {text}" for text in texts]
    return found
