"""The lines that end a run: waiting, failed and written items, cost."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.text import counted, listed
from paddock.pipelines.yaml_source import to_yaml
from paddock.runner.progress import printing
from paddock.runner.progress.item_states import LISTED, OF_LIST, OF_RUN, WAITS
from paddock.runner.progress.report import (
    BLOCKED_REMEDY,
    HELD_REMEDY,
    ItemReport,
    Report,
    outdated_in_words,
    sums_by_outcome,
)


def closing_lines(report: Report, *, fail_hint: str, file: str = "") -> tuple[str, ...]:
    """Return the lines that close a run: what was written, waits, is held, failed, and the cost."""
    lines, counts = [_written_line(report)], report.counts
    if n := counts.get("unsampled", 0):
        what = counted(n, "item is", "items are")
        lines.append(f"{what} not in the sample; a run of all does {'it' if n == 1 else 'them'}.")
    if n := counts.get("skipped", 0):
        wrong = [item for item in report.items if item.state == "skipped" and item.error]
        names = f", {len(wrong):,} of them with an error: {_item_names(wrong)}" if wrong else ""
        lines.append(f"{counted(n, 'item was', 'items were')} skipped{names}.")
    for state, wait in WAITS.items():
        if n := counts.get(state, 0):
            command = f"paddock review {shlex.quote(file) if file else ''}".rstrip()
            how = f": `{printing.printable_line(command)}`." if wait.is_for_people else ""
            lines.append(f"{n:,} {wait.verb(n)}{how or f'. {BLOCKED_REMEDY}'}")
    if held := [item for item in report.items if item.state == "held"]:
        what = f"Held {counted(len(held), 'item')}: {_item_names(held)}."
        lines.append(f"{what} Outputs were edited, or others wrote them, and are kept.")
        lines.append(f"  {HELD_REMEDY}")
    lines += filter(None, [report.filed.in_words()])
    if words := outdated_in_words(len(report.outdated)):
        lines.append(f"{words}; `--prune` removes what was not edited.")
    bad = report.not_done
    log = f" Details: {printing.printable_line(report.log)}" if report.log else ""
    if report.message:
        lines.append(printing.printable_message(report.message) + log)
    elif bad:
        lead = "Still not done" if all(item.is_known for item in bad) else "Not done"
        lines.append(f"{lead}: {_item_names(bad)}. {fail_hint}{log}".rstrip())
    elif not any(item.has_failed for item in report.items):
        lines.append("Nothing failed.")
    calls = counted(report.calls, "model call")
    if report.cached_calls:
        calls += f" and {report.cached_calls:,} from the ledger"
    saved = f"saved: {counted(counts.get('fresh', 0), 'item')} fresh"
    if n_prompt := report.tokens.get("prompt", 0):
        n_reused = report.tokens.get("prompt_reused", 0)
        saved += f", {n_reused:,} of {n_prompt:,} prompt tokens reused"
    return *lines, f"Took {units.duration(report.seconds)}, {calls}; {saved}."


def _written_line(report: Report) -> str:
    if not report.written:
        return "Wrote no new files."
    folders = sorted({os.path.dirname(path) for path in report.written})  # noqa: PTH120 - texts
    where = os.path.commonpath(folders) if len(folders) > 1 else folders[0]
    shown = os.path.relpath(where)
    shown = where if shown.startswith(os.pardir) else shown
    if len(report.written) == 1:
        shown = os.path.join(shown, os.path.basename(report.written[0]))  # noqa: PTH118, PTH119
        return f"Wrote {printing.printable_line(os.path.normpath(shown))}."
    shown = "in this folder" if shown == os.curdir else f"under {printing.printable_line(shown)}"
    return f"Wrote {counted(len(report.written), 'file')} {shown}."


def _item_names(items: Sequence[ItemReport]) -> str:
    return listed([printing.printable_line(item.key or item.step) for item in items], 3)


def print_closing(report: Report, file: str, *, is_apart: bool) -> None:
    """Print how a run ended, to stderr if stdout is for its result; no `file`: it is not kept."""
    hint = (
        f"`paddock plan {shlex.quote(file)}` shows why; `--retry-failed` retries." if file else ""
    )
    write = printing.print_err if is_apart else printing.print_out
    write("\n".join(closing_lines(report, fail_hint=hint, file=file)))


def returned_text(value: Any) -> str:
    """Return the printed value of `returns`: text as it is, data as YAML; `--json` has it whole."""
    text = value if isinstance(value, str) else to_yaml(_with_outcomes(value))
    return text.removesuffix("\n")


def _with_outcomes(value: Any) -> Any:
    """Return a value in which a block's `counts` are by what became of its items.

    >>> counts = dict.fromkeys((*OF_LIST, *OF_RUN), 0) | {"done": 3, "new": 2, "stale": 1}
    >>> _with_outcomes({"counts": counts})
    {'counts': {'done': 3}}
    """
    if isinstance(value, list):
        return [_with_outcomes(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {*OF_LIST, *OF_RUN}:
        return sums_by_outcome({state: value[state] for state in LISTED})
    return {name: _with_outcomes(inner) for name, inner in value.items()}
