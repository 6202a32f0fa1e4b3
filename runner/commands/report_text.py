"""Write the lines that close a run: what was written, held and failed, what it took and saved."""

from __future__ import annotations

import os
from collections.abc import Iterator

from paddock.runner.display import console
from paddock.runner.report import HELD_REMEDY, Report


def closing(report: Report, *, fail_hint: str) -> tuple[str, ...]:
    """Write three lines: what was written, what failed, what it took; one more for what is held."""
    return _written(report), *_held(report), _failed(report, fail_hint), _took(report)


def _held(report: Report) -> Iterator[str]:
    held = [item for item in report.items if item.state == "held"]
    if not held:
        return
    names = ", ".join(console.clean(item.key or item.step) for item in held[:3])
    more = f" and {len(held) - 3:,} more" if len(held) > 3 else ""
    what = f"Held {console.counted(len(held), 'item')}: {names}{more}."
    yield f"{what} Outputs were edited, or are not ours, and are kept."
    yield f"  {HELD_REMEDY}"


def _written(report: Report) -> str:
    if not report.written:
        return "Wrote nothing new."
    folders = sorted({os.path.dirname(path) for path in report.written})  # noqa: PTH120 - texts
    where = os.path.commonpath(folders) if len(folders) > 1 else folders[0]
    shown = os.path.relpath(where)
    shown = where if shown.startswith(os.pardir) else shown
    if len(report.written) == 1:
        shown = os.path.join(shown, os.path.basename(report.written[0]))  # noqa: PTH118, PTH119
        return f"Wrote {console.clean(os.path.normpath(shown))}."
    shown = "in this folder" if shown == os.curdir else f"under {console.clean(shown)}"
    return f"Wrote {console.counted(len(report.written), 'file')} {shown}."


def _failed(report: Report, hint: str) -> str:
    bad = [item for item in report.items if item.state in ("quarantined", "failed")]
    log = f" Details: {console.clean(report.log)}" if report.log else ""
    if report.message:
        return console.message(report.message) + log
    if not bad:
        return "Nothing failed."
    names = ", ".join(console.clean(item.key or item.step) for item in bad[:3])
    more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
    lead = "Still not done" if all(item.is_known for item in bad) else "Not done"
    return f"{lead}: {names}{more}. {hint}{log}"


def _took(report: Report) -> str:
    parts = [f"Took {console.duration(report.seconds)}"]
    calls = console.counted(report.calls, "model call")
    if report.cached_calls:
        calls += f" and {report.cached_calls:,} from the ledger"
    parts.append(calls)
    n_fresh = report.counts.get("fresh", 0)
    n_reused = report.tokens.get("prompt_reused", 0)
    n_prompt = report.tokens.get("prompt", 0)
    saved = f"saved: {console.counted(n_fresh, 'item')} fresh"
    if n_prompt:
        saved += f", {n_reused:,} of {n_prompt:,} prompt tokens reused"
    return ", ".join(parts) + f"; {saved}."
