"""Lay out what a run would do, and why, for a person."""

from __future__ import annotations

from collections.abc import Iterator

from paddock.runner.display import console
from paddock.runner.report import HELD_REMEDY, PlanItem, PlanReport, State

N_KEYS = 5  # named of each group; `--json` has them all

HELD = "outputs were edited, or are not ours, and are kept"

_WORK: tuple[State, ...] = ("new", "changed", "stale", "deleted")


def plan_text(report: PlanReport) -> str:
    """Write the groups by step, state and reason, then what the work would cost."""
    n_to_do = sum(item.state in _WORK for item in report.items)
    head = f"{report.pipeline}: nothing to do"
    if n_to_do:
        n_items = sum(item.state != "skipped" for item in report.items)
        head = f"{report.pipeline}: {n_to_do:,} of {console.counted(n_items, 'item')} to do"
    elif report.has_work:
        head = f"{report.pipeline}: what there is to do shows only during the run"
    lines = [console.clean(head), *_groups(report)]
    lines += [console.message(note) for note in (*report.notes, *report.remarks)]
    if any(item.state == "held" for item in report.items):
        lines.append(HELD_REMEDY)
    if report.has_work:
        lines += [_cost(report), *map(console.clean, report.advice)]
    return "\n".join(lines)


def _groups(report: PlanReport) -> Iterator[str]:
    """Write one line for the items of a step that are in the same state for the same reason."""
    groups: dict[tuple[str, State, str], list[PlanItem]] = {}
    for item in report.items:
        # Each held item names its own outputs; so does a run, and `--json`.
        why = HELD if item.state == "held" else item.why or ""
        groups.setdefault((item.step, item.state, why), []).append(item)
    width = max((len(step) for step, _, _ in groups), default=0)
    before = ""
    for (step, state, why), items in groups.items():
        shown = "" if step == before else step
        what = console.counted(len(items), "item") if state == "fresh" else _names(items)
        line = f"  {shown.ljust(width)}  {state:<11}  {what}"
        because = f"  ({console.message(why)})" if why and state != "fresh" else ""
        yield console.clean(line) + because
        before = step


def _names(items: list[PlanItem]) -> str:
    if len(items) == 1 and items[0].key in ("", items[0].step):
        return "as a whole"
    names = ", ".join(item.key for item in items[:N_KEYS])
    more = len(items) - N_KEYS
    return f"{names} and {more:,} more" if more > 0 else names


def _cost(report: PlanReport) -> str:
    """Write calls, tokens, model loads and time; what nobody can know yet is left out."""
    parts = []
    if report.calls is not None:
        bound = "" if report.calls_are == "exact" else f"{report.calls_are} "
        parts.append(f"{bound}{console.counted(report.calls, 'model call')}")
    if report.tokens is not None:
        parts.append(f"about {report.tokens:,} tokens")
    if report.loads is not None:
        parts.append(console.counted(report.loads, "model load"))
    if report.seconds is not None:
        length = console.duration(report.seconds)
        parts.append(length if length.startswith("under") else f"about {length}")
    if not parts:
        return "How much that costs is not known yet."
    return f"That would take {', '.join(parts)}."
