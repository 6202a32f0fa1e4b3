"""Lay out what runs there were and what one did, for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from paddock.runner.display import console
from paddock.runner.history.past import Past
from paddock.runner.ledger.entries import ItemRow
from paddock.runner.report import done_in_words

HEAD = ("RUN", "PIPELINE", "STATUS", "STARTED", "TOOK", "ITEMS", "BY", "")
_DONE = ("new", "changed", "stale")
_MOST_CHARS = 60


def table(rows: Iterable[tuple[Past, str]], now: float, host: str) -> str:
    """Lay out runs; beside each stands how far it is, where it runs."""
    return console.table([HEAD, *(_row(past, progress, now, host) for past, progress in rows)])


def _row(past: Past, progress: str, now: float, host: str) -> tuple[str, ...]:
    row = past.row
    by = row.trigger + (f" on {row.host}" if row.host not in (None, host) else "")
    by += f" (start {row.attempt})" if row.attempt > 1 else ""
    return (
        row.run,
        _short(row.pipeline),
        past.status,
        console.ago(now - row.started),
        took(past, now),
        progress or done(past),
        by,
        _short(past.message or "" if past.status not in ("completed", "quarantined") else ""),
    )


def took(past: Past, now: float) -> str:
    """Say how long a run took, or takes by now."""
    if past.status == "running":
        return console.duration(max(0.0, now - past.row.started))
    return console.duration(past.row.ended - past.row.started) if past.row.ended else ""


def done(past: Past) -> str:
    """Write what a run did; empty where that is not known, or nothing was done."""
    summary = past.summary
    if not summary:
        return ""
    n_written, n_removed, n_acted = summary.get("done") or (0, 0, 0)
    told = counts(summary.get("counts") or {})
    return told or done_in_words(past.status, n_written, n_removed, n_acted)


def counts(counted: Mapping[str, Any]) -> str:
    """Write what became of the items.

    >>> counts({"new": 3, "changed": 1, "fresh": 96, "quarantined": 1, "deleted": 0})
    '4 done, 96 fresh, 1 quarantined'
    """
    done = sum(int(counted.get(state) or 0) for state in _DONE)
    others = ((state, int(counted.get(state) or 0)) for state in counted if state not in _DONE)
    parts = [("done", done), *others]
    return ", ".join(f"{n:,} {state}" for state, n in parts if n)


def head(past: Past, now: float) -> str:
    """Say which run this was, and how it ended."""
    row, summary = past.row, past.summary
    started = datetime.fromtimestamp(row.started).astimezone()
    where = f" on {row.host}" if row.host else ""
    lines = [
        f"run {row.run} of {row.pipeline} ({past.place.folder / row.file})",
        f"  {past.status}, by {row.trigger}{where}, {started:%Y-%m-%d %H:%M:%S}"
        + (f", {took(past, now)}" if took(past, now) else "")
        + (f", start {row.attempt}" if row.attempt > 1 else ""),
    ]
    if summary:
        calls = console.counted(int(summary.get("calls") or 0), "model call")
        lines.append("  " + "; ".join(part for part in (done(past), calls) if part))
    if past.message:
        lines.append(f"  {console.message(past.message)}")
    return "\n".join(console.clean(line) for line in lines)


def line(told: Mapping[str, Any]) -> str:
    """Write one line of a journal."""
    return console.clean(f"{_clock(told.get('time'))}  {_words(told)}")


def is_bad(told: Mapping[str, Any]) -> bool:
    """Tell whether a journal's line is about something that went wrong."""
    return told.get("event") == "item" and told.get("state") in ("failed", "quarantined")


def item(row: ItemRow) -> str:
    """Write one item as the ledger has it, where there is no journal any more."""
    entry = row.entry
    state = "deleted" if entry.gone else entry.state
    words = f"{row.step}: {entry.key} {state}" if entry.key != row.step else f"{row.step}: {state}"
    return console.clean(words) + (f": {console.message(entry.error)}" if entry.error else "")


def _words(told: Mapping[str, Any]) -> str:
    event = told.get("event")
    if event == "step":
        if told.get("items") == 1 and not told.get("fresh"):
            return f"{told.get('step')}: begins"
        fresh = f", {told['fresh']:,} fresh" if told.get("fresh") else ""
        return f"{told.get('step')}: {_counted(told.get('items'))}{fresh}"
    if event == "item":
        return _item(told)
    if event == "note":
        return console.message(str(told.get("text")))
    if event == "ended":
        return f"ended: {told.get('status')}"
    if event == "left_out":
        return f"{told.get('lines'):,} lines more were left out"
    return str(event)


def _item(told: Mapping[str, Any]) -> str:
    name = f"{told.get('step')}: {told['key']}" if told.get("key") else f"{told.get('step')}:"
    words = [f"{name} {told.get('state')}"]
    if told.get("error"):
        words.append(f": {console.message(str(told['error']))}")
    elif told.get("state") == "done":
        words.append(f" in {console.duration(float(told.get('seconds') or 0))}")
        if told.get("calls"):
            calls = console.counted(int(told["calls"]), "call")
            words.append(f", {calls}, {int(told.get('tokens') or 0):,} tokens")
    return "".join(words)


def _clock(at: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(at)).astimezone():%H:%M:%S.%f}"[:-3]
    except ValueError:
        return " " * 12


def _counted(n: Any) -> str:
    return console.counted(n, "item") if isinstance(n, int) else "items"


def _short(text: str) -> str:
    text = text.partition("\n")[0]
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"
