"""Text of `paddock runs`, `logs` and `why`: past runs, journals, origins of outputs."""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system import units
from paddock.engine.system.text import counted, shorten
from paddock.runner.progress import printing
from paddock.runner.progress.item_states import BAD
from paddock.runner.progress.journal import JournalProgress
from paddock.runner.progress.report import counts_text, effects_in_words, outdated_in_words
from paddock.steps.paths import printable

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import ItemRow
    from paddock.runner.ledger.run_history import PastRun
    from paddock.runner.lineage.path_lineage import (
        LineageCall,
        LineageFile,
        LineageStep,
        Origin,
        PathLineage,
    )
    from paddock.runner.render.reviewed_answers import ReviewRecord

RUNS_HEAD = ("RUN", "PIPELINE", "STATUS", "STARTED", "TOOK", "ITEMS", "BY", "")
_MAX_DETAIL_CHARS = 60


def runs_table(found: Iterable[PastRun], known: dict[Path, JournalProgress]) -> str:
    """Return a table of runs; `known` is kept between calls."""
    lines: list[tuple[str, ...]] = [RUNS_HEAD]
    own_hosts = (None, socket.gethostname())
    for past in found:
        row, is_over = past.row, past.status in ("completed", "quarantined")
        by = row.trigger + (f" on {row.host}" if row.host not in own_hosts else "")
        by += f" (start {row.attempt})" if row.attempt > 1 else ""
        what, message = _shortened(row.pipeline), "" if is_over else past.message or ""
        what += "" if past.file.exists() else f" ('{printable(row.file)}' is gone)"
        times = units.ago(time.time() - row.started), run_time_text(past)
        result = open_progress_text(past, known) or run_result_text(past)
        lines.append((row.run, what, past.outcome, *times, result, by, _shortened(message)))
    return printing.table(lines)


def run_time_text(past: PastRun) -> str:
    if past.status == "running":
        return units.duration(max(0.0, time.time() - past.row.started))
    return units.duration(past.row.ended - past.row.started) if past.row.ended else ""


def run_progress_text(progress: JournalProgress, now: float | None) -> str:
    """Return how far a run is, how fast, and how long it takes yet; `now` is None if it died."""
    n_ended, n_all = progress.update()
    parts = [f"{n_ended:,} of {n_all:,}"] if n_all else []
    parts += [f"{n:,} {state}" for state, n in sorted(progress.not_done.items())]
    if now is None:
        return ", ".join(parts)
    if (speed := progress.speed()) is not None:
        parts.append(f"{units.speed(speed)} tokens/s")
    if progress.is_stopping:
        parts.append("stopping after items in flight")
    elif (left_s := progress.seconds_left(now)) is not None:
        parts.append(f"about {units.duration(max(1.0, left_s))} to go")
    elif n_ended < n_all:
        parts.append("time to go not known yet")
    return ", ".join(parts)


def open_progress_text(past: PastRun, known: dict[Path, JournalProgress]) -> str:
    """Return how far a run is that goes on or died, else nothing; `known` is kept between calls."""
    if past.status not in ("running", "died"):
        known.pop(past.journal, None)
        return ""
    progress = known.setdefault(past.journal, JournalProgress(past.journal))
    return run_progress_text(progress, time.time() if past.status == "running" else None)


def run_result_text(past: PastRun) -> str:
    summary = past.summary
    if not summary:
        return ""
    n_done: Sequence[int] = summary.get("done") or (0, 0, 0)
    if counts := counts_text(summary.get("counts") or {}):
        words = outdated_in_words(n_done[3] if len(n_done) > 3 else 0)
        return ", ".join(filter(None, (counts, words)))
    return effects_in_words(past.status, *n_done)


def run_heading(past: PastRun) -> str:
    row, summary, took = past.row, past.summary, run_time_text(past)
    started = datetime.fromtimestamp(row.started).astimezone()
    where = f" on {row.host}" if row.host else ""
    lines = [
        f"run {row.run} of {row.pipeline} ({past.file})",
        f"  {past.outcome}, by {row.trigger}{where}, {started:%Y-%m-%d %H:%M:%S}"
        + (f", {took}" if took else "")
        + (f", start {row.attempt}" if row.attempt > 1 else ""),
    ]
    if summary:
        calls = counted(int(summary.get("calls") or 0), "model call")
        lines.append("  " + "; ".join(part for part in (run_result_text(past), calls) if part))
    if past.message:
        lines.append(f"  {printing.printable_message(past.message)}")
    return "\n".join(printing.printable_line(line) for line in lines)


def journal_line(event: Mapping[str, Any]) -> str:
    try:
        at = f"{datetime.fromisoformat(str(event.get('time'))).astimezone():%H:%M:%S.%f}"[:-3]
    except ValueError:
        at = " " * 12
    return printing.printable_line(f"{at}  {_journal_text(event)}")


def is_failure(event: Mapping[str, Any]) -> bool:
    return event.get("event") == "item" and event.get("state") in BAD


def ledger_item_line(row: ItemRow) -> str:
    entry = row.entry
    state = "deleted" if entry.is_deleted else entry.state
    words = f"{row.step}: {entry.key} {state}" if entry.key != row.step else f"{row.step}: {state}"
    return printing.with_cause(words, entry.error)


def _journal_text(event: Mapping[str, Any]) -> str:
    kind = event.get("event")
    if kind == "step":
        if event.get("items") == 1 and not event.get("fresh"):
            return f"{event.get('step')}: started"
        fresh = f", {event['fresh']:,} fresh" if event.get("fresh") else ""
        n = event.get("items")
        items = counted(n, "item") if isinstance(n, int) else "items"
        return f"{event.get('step')}: {items}{fresh}"
    if kind == "item":
        key = f" {event['key']}" if event.get("key") else ""
        text = f"{event.get('step')}:{key} {event.get('state')}"
        if event.get("error"):
            return f"{text}: {printing.printable_message(str(event['error']))}"
        if event.get("state") != "done":
            return text
        text += f" in {units.duration(float(event.get('seconds') or 0))}"
        if not event.get("calls"):
            return text
        calls = counted(int(event["calls"]), "call")
        return f"{text}, {calls}, {int(event.get('tokens') or 0):,} tokens"
    if kind == "note":
        return printing.printable_message(str(event.get("text")))
    if kind == "ended":
        return f"ended: {event.get('outcome') or event.get('status')}"
    if kind == "left_out":
        return f"{event.get('lines'):,} more lines were left out"
    return str(kind)


def _shortened(text: str) -> str:
    return shorten(text.partition("\n")[0], _MAX_DETAIL_CHARS)


SHOWN_LINES, SHOWN_CHARS = 6, 400
_LABEL_WIDTH = 10
_CONDITION_TEXT = {
    "same": "unchanged",
    "edited": "edited by hand since",
    "missing": "deleted since",
    "interrupted": "as a run had written it that was killed before it could record it",
}
FILE_STATE_TEXT = {"same": "unchanged", "changed": "changed since", "gone": "deleted since"}


def lineage_text(answer: PathLineage, *, is_full: bool) -> str:
    """Return one origin in full, or several in a few lines each."""
    lines: list[str] = []
    if answer.read_by:
        lines.append(f"{_short_path(answer.path)} was read for these outputs:")
        lines += [f"  {printing.printable_line(use)}" for use in answer.read_by]
        if answer.n_more:
            lines.append(f"  and {answer.n_more:,} more")
    elif len(answer.origins) == 1:
        lines += _origin_lines(answer.origins[0], is_full=is_full)
    else:
        for origin in answer.origins:
            changes = [_CONDITION_TEXT[origin.condition]] if origin.condition != "same" else []
            changes += [printing.printable_line(change.what) for change in origin.changes]
            lines += [
                _origin_head(origin),
                _labelled("from", f"{printing.printable_line(origin.item)}, run '{origin.run}'"),
                _labelled("since", "; ".join(changes) or "nothing changed"),
            ]
        if answer.n_more:
            lines.append(
                f"and {answer.n_more:,} more; `paddock why` with one name shows all of it."
            )
    return "\n".join(lines)


def _origin_head(origin: Origin) -> str:
    rows = "" if origin.n_rows is None else f", {counted(origin.n_rows, 'row')}"
    return f"{_short_path(origin.path)}{rows}"


def _origin_lines(origin: Origin, *, is_full: bool) -> Iterator[str]:
    yield _origin_head(origin)
    item, pipeline = printing.printable_line(origin.item), _short_path(str(origin.pipeline))
    yield _labelled("from", f"{item} of {pipeline}")
    yield _labelled("run", f"{origin.run}, {_date_text(origin.at)}")
    if origin.error:
        yield _labelled("state", f"{origin.state}: {printing.printable_message(origin.error)}")
    if origin.source is not None:
        yield _labelled("document", _file_text(origin.source))
    for read in origin.reads:
        yield _labelled("read", _file_text(read))
    yield from _labelled_list("looked in", map(_short_path, origin.looked_in))
    if origin.source is None:
        yield from _labelled_list("made of", (f"'{step}'" for step in origin.made_of))
    for step in origin.steps:
        if step.calls or step.checks:
            yield from _step_lines(step, is_full=is_full)
    yield from _review_lines(origin.reviewed)
    for name, how in origin.read_by_rules.items():
        yield _labelled("by a rule", printing.printable_line(f"{name}: {how}"))
    for label, paths in (("also wrote", origin.outputs), ("rows in", origin.kept_in)):
        others = (path for path in paths if path != origin.path)
        yield from _labelled_list(label, map(_short_path, others))
    yield _labelled("now", _CONDITION_TEXT[origin.condition])
    for note in origin.notes:
        yield _labelled("note", note)
    if not origin.changes:
        seen = "was compared" if origin.notes else "it was made of"
        yield _labelled("since", f"nothing that {seen} has changed")
    for change in origin.changes:
        yield _labelled("since", printing.printable_line(change.what))
        for line in change.detail:
            yield " " * (_LABEL_WIDTH + 4) + printing.printable_line(line)


def _labelled_list(label: str, texts: Iterable[str]) -> Iterator[str]:
    if shown := ", ".join(texts):
        yield _labelled(label, shown)


def _step_lines(step: LineageStep, *, is_full: bool) -> Iterator[str]:
    took = "" if step.seconds is None else f", {step.seconds:.1f} s"
    uses = f" ({step.uses})" if step.uses else ""
    n = counted(len(step.calls), "call")
    yield _labelled("step", f"{step.id}{uses}: {n}{took}")
    shown = step.calls if is_full else step.calls[:1]
    for call in shown:
        yield from _call_lines(call, is_full=is_full)
    if others := step.calls[len(shown) :]:
        n_cut = sum(call.done_reason in _CUT_OFF for call in others)
        cut = f", {n_cut} of them not whole" if n_cut else ""
        yield _labelled_inner("", f"and {len(others)} more{cut}; --full shows all")
    for check in step.checks:
        yield _labelled_inner("check", printing.printable_line(check))


def _review_lines(reviewed: ReviewRecord) -> Iterator[str]:
    """Yield what people decided about an item's answers, each answer's fields, and reliability."""
    for answer in reviewed.answers:
        when = f", {_date_text(answer.at)}" if answer.at is not None else ""
        outcome = printing.printable_line(answer.outcome)
        label = "answer" if answer.state == "none" else "review"
        yield _labelled(label, f"'{answer.step}' {outcome}{when}")
        for path, before, after in answer.changes:
            yield _labelled_inner("changed", printing.printable_line(f"{path}: {before} → {after}"))
        for path, value, place in answer.fields:
            found = f"; {place}" if place else ""
            yield _labelled_inner("field", printing.printable_line(f"{path}: {value}{found}"))
        for text in answer.earlier:
            yield _labelled_inner("", printing.printable_line(text))
    for field in reviewed.reliability:
        yield _labelled("", printing.printable_line(field.summary))


_CUT_OFF = {
    "length": "ended at its limit of tokens",
    "repetition": "ended since it repeated itself",
}
"""Answers that are not whole, by how they ended."""


def _call_lines(call: LineageCall, *, is_full: bool) -> Iterator[str]:
    if call.is_gone:
        yield _labelled_inner("call", f"{call.kind}; its texts were removed by `paddock clean`")
        return
    digest = f", {call.digest[:12]}" if call.digest else ""
    n_in, n_out = (call.usage.get(f"{side}_tokens", 0) for side in ("prompt", "completion"))
    known = ", cached from an earlier call" if call.is_known else ""
    yield _labelled_inner(call.kind, f"{call.model}{digest}: {n_in} + {n_out} tokens{known}")
    for text in request_lines(call):
        yield from _excerpt_lines("asked", text, is_full=is_full)
    if call.reply:
        yield from _excerpt_lines("answered", call.reply, is_full=is_full)
    if call.done_reason not in (None, "stop"):
        yield _labelled_inner("", _CUT_OFF.get(call.done_reason, f"ended by: {call.done_reason}"))


def request_lines(call: LineageCall) -> Iterator[str]:
    messages = call.request.get("messages")
    if isinstance(messages, list):
        for message in messages:
            yield f"[{message[0]}] {message[1]}"
        return
    texts = call.request.get("texts")
    if isinstance(texts, list):
        yield f"{counted(len(texts), 'text')}: {texts[0] if texts else ''}"
        return
    values = ((n, v if isinstance(v, str) else repr(v)) for n, v in call.request.items())
    yield ", ".join(f"{name}={value}" for name, value in values)


def _excerpt_lines(name: str, text: str, *, is_full: bool) -> Iterator[str]:
    text = printing.printable_text(text if is_full else text[:SHOWN_CHARS])
    is_cut = not is_full and len(text) >= SHOWN_CHARS
    lines = text.splitlines() or [""]
    if not is_full and len(lines) > SHOWN_LINES:
        lines, is_cut = lines[:SHOWN_LINES], True
    yield _labelled_inner(name, lines[0])
    for line in lines[1:]:
        yield _labelled_inner("", line)
    if is_cut:
        yield _labelled_inner("", "…")


def _file_text(file: LineageFile) -> str:
    return f"{_short_path(file.path)}, {FILE_STATE_TEXT[file.state]}"


def _labelled(name: str, text: str) -> str:
    return f"  {name:<{_LABEL_WIDTH}}  {text}"


def _labelled_inner(name: str, text: str) -> str:
    return f"  {'':<{_LABEL_WIDTH}}    {name:<9} {text}".rstrip()


def _short_path(path: str) -> str:
    try:
        near = os.path.relpath(path, Path.cwd())
    except ValueError:
        near = path
    return printing.printable_line(min(near, path, key=len))


def _date_text(at: float) -> str:
    return units.local_time(at) if at else "?"


def unknown_path_text(path: str, answer: PathLineage) -> str:
    is_there = Path(path).exists()
    path = printing.printable_line(printable(path))
    what = "no pipeline here has written it or read it"
    if not is_there:
        what = "there is no such file, and no pipeline here has written one of this name"
    if answer.same_as:
        same = _short_path(answer.same_as[0])
        remedy = (
            f"It has the content that was written as '{same}': `paddock why {shlex.quote(same)}`."
        )
    elif answer.near:
        near = ", ".join(f"'{_short_path(path)}'" for path in answer.near)
        remedy = f"Did you mean {near}?"
    else:
        command = f"`paddock why {shlex.quote(path)} FOLDER`"
        remedy = f"Name a pipeline that may have, or its folder: {command}."
    return f"'{path}': {what}.\n  {remedy}"
