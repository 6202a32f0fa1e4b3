"""Changes since an output was made, in the words of `paddock why`.

A run says why it would do an item again ("folder changed"). Of an output that is there, `why` says
what became of its document, of what its item read, and of the output itself. All reasons of a run,
and all states in the ledger, become such changes here; nothing is compared.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from paddock.runner.core.traces.dependencies import current_paths
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why

from .path_lineage import LineageChange
from .recorded_items import ItemOutput

MAX_DIFFERENCE_LINES = 40
_CHANGED = {
    Why.FILE: Why.READ_CHANGED,
    Why.FILE_GONE: Why.READ_GONE,
    Why.FOLDER: Why.LISTED_CHANGED,
    Why.STORE: Why.SEARCHED_CHANGED,
    Why.ROWS_LOST: Why.ROWS_CHANGED,
}
"""What is said here for a reason of a run about a path."""
_GONE = {Why.FOLDER: Why.LISTED_GONE, Why.STORE: Why.SEARCHED_GONE, Why.ROWS_LOST: Why.ROWS_GONE}
"""The same where the path is no longer there, which these reasons do not say."""
NO_LONGER_APPLIES = {
    Outdated.SKIPPED: Why.OUTDATED_SKIPPED,
    Outdated.EXCLUDED: Why.OUTDATED_EXCLUDED,
    Outdated.GONE: Why.OUTDATED_GONE,
}
"""Why an output no longer applies, as a plan has found; of all else `OUTDATED` is said."""


def dependency_changes(
    reasons: Iterable[Reason], subject: str, is_there: Callable[[str], bool]
) -> Iterator[LineageChange]:
    """Yield the changes of an item's dependencies; `subject` names the item.

    Lost and edited outputs are left out, since `Origin.condition` has them. `is_there` is called
    with a stored path.
    """
    for reason in reasons:
        if reason.why in _CHANGED:
            (path,) = reason.about
            is_gone = reason.why in _GONE and not is_there(str(path))
            yield LineageChange((_GONE if is_gone else _CHANGED)[reason.why](subject, path))
        elif not reason.is_loss or reason.why in (Why.OUTPUT_REPLACED, Why.OUTPUT_HANDED_OVER):
            yield LineageChange(reason)


def rule_changes(
    reasons: Iterable[Reason], node: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[LineageChange]:
    """Yield the changes of an item's rule; behind the first reason about a step its difference.

    `then` and `now` are specs of the rule, of which the step or block `node` is the outermost; of a
    rule whose spec is not known, `then` is empty.
    """
    before, after, shown = _spec_lines(then), _spec_lines(now), set[str]()
    for reason in reasons:
        is_of_node = reason.why in (Why.STEP, Why.KEY, Why.READ_OF_ITEM)
        step = node if is_of_node else str(next(iter(reason.about), ""))
        is_first = step not in shown
        shown.add(step)
        lines = (before.get(step, []), after.get(step, [])) if then and is_first else ([], [])
        yield LineageChange(reason, tuple(_difference(*lines)))


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
    elif output.written.n_rows is None and (paths := sorted(current_paths(entry))):
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
    found: dict[str, list[str]] = {}
    for name, step in (spec.get("blocks", {}) | spec.get("steps", {})).items():
        lines = found[name] = []
        for field, value in sorted(_fields(step), key=itemgetter(0)):
            is_text = isinstance(value, str)
            texts = value.splitlines() if is_text else [json.dumps(value, ensure_ascii=False)]
            lines += [f"{name}.{field}: {text}" for text in texts]
    return found


def _fields(step: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of a step by their names, those within another by their own."""
    for name, value in step.items():
        if isinstance(value, Mapping):
            yield from value.items()
        elif value is not None:
            yield name, value
