"""Text of `paddock plan`: items, model calls, their cost."""

from __future__ import annotations

from collections.abc import Iterator

from paddock.engine.system import units
from paddock.engine.system.text import counted, listed
from paddock.runner.progress import printing
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.plan_report import PlanItem, PlanReport
from paddock.runner.progress.report import BLOCKED_REMEDY, HELD_REMEDY, not_taken_in_words

MAX_NAMED_ITEMS = 5  # in each group; `--json` has them all

WAITING_TEXT = "a person has to decide"
HELD_TEXT = "outputs were edited, or others wrote them, and are kept"
TAKEN_TEXT = "another pipeline took over outputs with `--take`"

_WORK_STATES = (*WORK, ItemState.DELETED)


def plan_text(report: PlanReport) -> str:
    """Return the items in groups by step, state and reason, then the estimated cost."""
    to_do = [item for item in report.items if item.state in _WORK_STATES]
    n_open = sum(item.is_undecided for item in to_do)
    head = f"{report.pipeline}: nothing to do"
    if to_do:
        n_items = counted(sum(item.state != "skipped" for item in report.items), "item")
        n_sure = f"{len(to_do) - n_open:,} to " if n_open else ""
        head = f"{report.pipeline}: {n_sure}{len(to_do):,} of {n_items} to do"
    elif report.has_work:
        head = f"{report.pipeline}: what there is to do is only known during the run"
    lines = [printing.printable_line(head), *_group_lines(report)]
    lines += [printing.printable_message(note) for note in (*report.notes, *report.remarks)]
    lines += filter(None, [report.filed.in_words(), not_taken_in_words(report.not_taken)])
    remedies = {ItemState.HELD: HELD_REMEDY, ItemState.BLOCKED: BLOCKED_REMEDY}
    lines += (remedies[state] for state in remedies if any(i.state is state for i in report.items))
    if report.has_work:
        parts, hint = [], ""
        if report.calls is not None:
            parts.append(_calls_text(report, report.calls))
        elif report.loads:
            parts.append("model calls, how many is not known yet")
        if report.tokens is not None:
            parts.append(f"about {report.tokens:,} tokens")
        if report.loads is not None:
            parts.append(counted(report.loads, "model load"))
        if report.seconds is not None:
            about = "" if report.seconds < 0.1 else "about "  # else "under 0.1 s"
            parts.append(f"{about}{units.duration(report.seconds)}")
        elif report.calls:
            hint = " How long that is, the run tells after its first document."
        cost = (
            f"That would take {', '.join(parts)}.{hint}" if parts else "The cost is not known yet."
        )
        lines += [cost, *map(printing.printable_line, report.advice)]
    return "\n".join(lines)


def _group_lines(report: PlanReport) -> Iterator[str]:
    """Yield one line for the items of a step with the same state and reason."""
    groups: dict[tuple[str, ItemState, str], list[PlanItem]] = {}
    for item in report.items:
        # The reasons of these name outputs and times, which would split the group.
        common = {ItemState.HELD: HELD_TEXT, ItemState.WAITING: WAITING_TEXT}
        common[ItemState.FRESH] = TAKEN_TEXT if item.reasons else ""
        why = common.get(item.state, item.why or "")
        groups.setdefault((item.step, item.state, why), []).append(item)
    width = max((len(step) for step, _, _ in groups), default=0)
    before = ""
    for (step, state, why), items in groups.items():
        shown = "" if step == before else step
        is_counted = state in ("fresh", "unsampled") or items[0].is_undecided
        what = counted(len(items), "item") if is_counted else _item_names(items)
        line = f"  {shown.ljust(width)}  {state:<11}  {what}"
        because = f"  ({printing.printable_message(why)})" if why else ""
        yield printing.printable_line(line) + because
        before = step


def _item_names(items: list[PlanItem]) -> str:
    if len(items) == 1 and items[0].key in ("", items[0].step):
        return "as a whole"
    return listed([item.key for item in items], MAX_NAMED_ITEMS)


def _calls_text(report: PlanReport, calls: int) -> str:
    """Return the number of calls, and how many of each model where there are several."""
    bound = "" if report.calls_are == "exact" else f"{report.calls_are} "
    is_bound = report.calls_are == "at most"
    of = [
        f"{_call_range(report.least_models.get(ref, 0) if is_bound else n, n)} of {ref}"
        for ref, n in report.models.items()
        if report.models.keys() - {ref}
    ]
    each = f" ({', '.join(of)})" if of else ""
    likely, least = report.likely_calls, report.least_calls
    if likely in (None, calls):
        some = f"{least:,} to " if is_bound and least else bound
        return f"{some}{counted(calls, 'model call')}{each}"
    some = f"{least:,} to " if is_bound and least not in (None, likely) else ""
    again = f"{bound}{calls:,} if answers are asked for again"
    return f"{some}{counted(likely or 0, 'model call')}{each} ({again})"


def _call_range(least: int, most: int) -> str:
    if least >= most:
        return f"{most:,}"
    return f"{least:,} to {most:,}" if least else f"at most {most:,}"
