"""Lay out where an output came from for a person."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddock.runner.display import console
from paddock.runner.provenance.origin import Answer, Call, Origin, ReadFile, Step

SHOWN_LINES, SHOWN_CHARS = 6, 400
_WIDTH = 10
_CONDITIONS = {
    "same": "as it was written",
    "edited": "edited by hand since",
    "missing": "gone since",
}
_STATES = {"same": "as it was", "changed": "changed since", "gone": "gone since"}


def why_text(answer: Answer, *, is_full: bool) -> str:
    """Give the lines: one origin in full, several in a few lines each."""
    lines: list[str] = []
    if answer.read_by:
        lines.append(f"{_short(answer.path)} is what these were made of:")
        lines += [f"  {console.clean(one)}" for one in answer.read_by]
        if answer.n_more:
            lines.append(f"  and {answer.n_more:,} more")
    elif len(answer.origins) == 1:
        lines += _whole(answer.origins[0], is_full=is_full)
    else:
        lines += [line for origin in answer.origins for line in _brief(origin)]
        if answer.n_more:
            lines.append(f"and {answer.n_more:,} more; `paddock why` with one's name tells all.")
    return "\n".join(lines)


def _brief(origin: Origin) -> Iterator[str]:
    rows = "" if origin.n_rows is None else f", {console.counted(origin.n_rows, 'row')}"
    yield f"{_short(origin.path)}{rows}"
    yield _field("from", f"{_item(origin)}, run '{origin.run}'")
    yield _field("since", "; ".join(_since(origin)) or "nothing changed")


def _whole(origin: Origin, *, is_full: bool) -> Iterator[str]:
    rows = "" if origin.n_rows is None else f", {console.counted(origin.n_rows, 'row')}"
    yield f"{_short(origin.path)}{rows}"
    yield _field("from", f"{_item(origin)} of {_short(str(origin.pipeline))}")
    yield _field("run", f"{origin.run}, {_at(origin.at)}")
    if origin.error:
        yield _field("state", f"{origin.state}: {console.message(origin.error)}")
    if origin.source is not None:
        yield _field("document", _file(origin.source))
    for read in origin.reads:
        yield _field("read", _file(read))
    if origin.looked_in:
        yield _field("looked in", ", ".join(map(_short, origin.looked_in)))
    if origin.made_of and origin.source is None:
        yield _field("made of", ", ".join(f"'{step}'" for step in origin.made_of))
    for step in origin.steps:
        if step.calls or step.checks:
            yield from _step(step, is_full=is_full)
    others = [path for path in origin.outputs if path != origin.path]
    if others:
        yield _field("also wrote", ", ".join(map(_short, others)))
    stores = [path for path in origin.kept_in if path != origin.path]
    if stores:
        yield _field("rows in", ", ".join(map(_short, stores)))
    yield _field("now", _CONDITIONS[origin.condition])
    for note in origin.notes:
        yield _field("note", note)
    yield from _changes(origin)


def _changes(origin: Origin) -> Iterator[str]:
    if not origin.changes:
        seen = "was looked at" if origin.notes else "it was made of"
        yield _field("since", f"nothing that {seen} has changed")
    for change in origin.changes:
        yield _field("since", console.clean(change.what))
        for line in change.detail:
            yield " " * (_WIDTH + 4) + console.clean(line)


def _since(origin: Origin) -> Iterator[str]:
    if origin.condition != "same":
        yield _CONDITIONS[origin.condition]
    for change in origin.changes:
        yield console.clean(change.what)


def _item(origin: Origin) -> str:
    if origin.key == origin.step:
        return f"step '{origin.step}'"
    return f"item '{console.clean(origin.key)}' of '{origin.step}'"


def _step(step: Step, *, is_full: bool) -> Iterator[str]:
    took = "" if step.seconds is None else f", {step.seconds:.1f} s"
    uses = f" ({step.uses})" if step.uses else ""
    n = console.counted(len(step.calls), "call")
    yield _field("step", f"{step.id}{uses}: {n}{took}")
    shown = step.calls if is_full else step.calls[:1]
    for call in shown:
        yield from _call(call, is_full=is_full)
    if len(shown) < len(step.calls):
        yield _inner("", f"and {len(step.calls) - len(shown)} more; --full shows all")
    for check in step.checks:
        yield _inner("check", console.clean(check))


def _call(call: Call, *, is_full: bool) -> Iterator[str]:
    if call.is_gone:
        yield _inner("call", f"{call.kind}; its texts were cleaned away since")
        return
    digest = f", {call.digest[:12]}" if call.digest else ""
    n_in, n_out = (call.usage.get(f"{side}_tokens", 0) for side in ("prompt", "completion"))
    known = ", known from an earlier call" if call.is_known else ""
    yield _inner(call.kind, f"{call.model}{digest}: {n_in} + {n_out} tokens{known}")
    for asked in _asked(call):
        yield from _text("asked", asked, is_full=is_full)
    if call.reply:
        yield from _text("answered", call.reply, is_full=is_full)
    if call.done_reason not in (None, "stop"):
        yield _inner("", f"ended by: {call.done_reason}")


def _asked(call: Call) -> Iterator[str]:
    """Give what was said to a model, or to a tool, turn by turn."""
    messages = call.request.get("messages")
    if isinstance(messages, list):
        for message in messages:
            yield f"[{message[0]}] {message[1]}"
        return
    texts = call.request.get("texts")
    if isinstance(texts, list):
        yield f"{console.counted(len(texts), 'text')}: {texts[0] if texts else ''}"
        return
    yield ", ".join(f"{name}={_plain(value)}" for name, value in call.request.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _text(name: str, text: str, *, is_full: bool) -> Iterator[str]:
    text = console.clean_lines(text if is_full else text[:SHOWN_CHARS])
    is_cut = not is_full and len(text) >= SHOWN_CHARS
    lines = text.splitlines() or [""]
    if not is_full and len(lines) > SHOWN_LINES:
        lines, is_cut = lines[:SHOWN_LINES], True
    yield _inner(name, lines[0])
    for line in lines[1:]:
        yield _inner("", line)
    if is_cut:
        yield _inner("", "…")


def _file(file: ReadFile) -> str:
    return f"{_short(file.path)}, {_STATES[file.state]}"


def _field(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}  {text}"


def _inner(name: str, text: str) -> str:
    return f"  {'':<{_WIDTH}}    {name:<9} {text}".rstrip()


def _short(path: str) -> str:
    """Name a path from the current folder where that is shorter."""
    try:
        near = os.path.relpath(path, Path.cwd())
    except ValueError:
        near = path
    return console.clean(min(near, path, key=len))


def _at(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "?"
