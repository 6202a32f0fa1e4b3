"""What changed since an item was done: its files, the pipeline's words, models, inputs.

Compares the same parts that a plan compares, for one item and without running anything. What other
steps gave is not computed anew: only whether they have newer results is told.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.runner import made
from paddock.runner.binding.bound import BoundBlock, BoundNode, BoundPlan
from paddock.runner.body import blocks_of, plans_of, steps_of, written
from paddock.runner.evidence import LISTED, ROWS, STORE, is_of_a_file
from paddock.runner.freshness import CONTENT, older_for, reasons
from paddock.runner.ledger.outputs import sha256_of
from paddock.runner.spec_changes import compared

from .find import Trace
from .origin import Change, FileState, ReadFile

MOST_LINES = 40


def state_of(path: str, sha256: str) -> FileState:
    """Tell whether a file is as it was; one that cannot be read is gone."""
    try:
        return "same" if sha256_of(Path(path)) == sha256 else "changed"
    except OSError:
        return "gone"


def source_of(trace: Trace, base: Path) -> ReadFile | None:
    """Give the document that an item is."""
    if trace.made is None:
        return None
    source, _ = made.read(trace.made.made)
    if source is None:
        return None
    path = str(base / source.path)
    return ReadFile(path, source.sha256, state_of(path, source.sha256))


def reads_of(trace: Trace, base: Path) -> tuple[ReadFile, ...]:
    """Give the other files that went into it."""
    marks = marks_of(trace).items()
    return tuple(
        read_as_marked(str(base / path), mark) for path, mark in marks if is_of_a_file(mark)
    )


def looked_in(trace: Trace, base: Path) -> tuple[str, ...]:
    """Give the folders that were listed for it alone, and the stores that it searched."""
    marks = marks_of(trace).items()
    return tuple(str(base / path) for path, mark in marks if mark[0] in (LISTED, STORE))


def kept_in(trace: Trace, base: Path) -> tuple[str, ...]:
    """Give the stores in which it has rows."""
    return tuple(str(base / mark[1]) for mark in marks_of(trace).values() if mark[0] == ROWS)


def marks_of(trace: Trace) -> Mapping[str, Sequence[Any]]:
    """Give what an item read, listed, searched and keeps, as its entry marks it."""
    if trace.entry is None or not trace.entry.reads:
        return {}
    marks: dict[str, Sequence[Any]] = json.loads(trace.entry.reads)
    return marks


def read_as_marked(path: str, mark: Sequence[Any]) -> ReadFile:
    """Tell whether a file is as a mark says."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - as `work` has it
    except OSError:
        return ReadFile(path, str(mark[2]), "gone")
    if [stat.st_size, stat.st_mtime_ns] == list(mark[:2]):
        return ReadFile(path, str(mark[2]), "same")
    return ReadFile(path, str(mark[2]), state_of(path, str(mark[2])))


def node_of(bound: BoundPlan, step: str) -> BoundNode | None:
    """Find a block or a step, nested ones and those of inner pipelines too (`clean.each`)."""
    return _node(bound.nodes, step)


def _node(nodes: Sequence[BoundNode], step: str) -> BoundNode | None:
    for node in nodes:
        if node.id == step:
            return node
        if isinstance(node, BoundBlock):
            found = _node(node.body, step)
        elif node.inner is not None and step.startswith(f"{node.id}."):
            found = _node(node.inner.nodes, step.removeprefix(f"{node.id}."))
        else:
            continue
        if found is not None:
            return found
    return None


def owner_of(bound: BoundPlan, node: BoundNode) -> BoundPlan:
    """Give the pipeline that a block or a step stands in: this one, or one that a step runs."""
    for plan in plans_of(bound):
        if any(one is node for one in (*steps_of(plan.nodes), *plan.nodes, *blocks_of(plan.nodes))):
            return plan
    return bound


def changed_words(
    trace: Trace,
    node: BoundNode,
    before: Mapping[str, Any],
    parts: Mapping[str, str],
    older: Mapping[str, Collection[str]],
) -> Iterator[Change]:
    """Yield what the pipeline, its models and its inputs say now that they did not say then."""
    entry = trace.entry
    if entry is not None:
        recorded = json.loads(entry.parts)
        was = {name: recorded[name] for name in recorded if _is_looked_at(name, parts)}
        names = older_for(was, parts, older, is_done=entry.state == "done")
        lines = tuple(_differences(before, json.loads(written(node)))) if before else ()
        then = compared(before, json.loads(written(node)), node.id) if before else None
        said = reasons(names, was, parts, then.words if then is not None else {})
        for number, words in enumerate(said):
            yield Change(words, lines if number == 0 else ())
        return
    if before and _digest(before) != _digest(json.loads(written(node))):
        yield Change("the step changed", tuple(_differences(before, json.loads(written(node)))))


def _is_looked_at(name: str, parts: Mapping[str, str]) -> bool:
    """Tell whether a part can be known without running other steps."""
    if name == CONTENT or name.startswith("steps."):
        return False
    return name in parts or name.endswith((".prompt", ".parameters", ".version"))


def _digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that were taken out of a pipeline's words, and those that came."""
    lines = [
        line
        for line in difflib.unified_diff(_lines(before), _lines(now), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"… {len(lines) - MOST_LINES} more lines"


def _lines(spec: Mapping[str, Any]) -> list[str]:
    """Lay a spec out, a line for each line of a text, so that a difference is easy to read."""
    lines: list[str] = []
    for kind in ("blocks", "steps"):
        for name, step in sorted(spec.get(kind, {}).items()):
            for field, value in sorted(_fields(step)):
                texts = value.splitlines() if isinstance(value, str) else [_plain(value)]
                lines += [f"{name}.{field}: {text}" for text in texts]
    return lines


def _fields(step: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in step.items():
        if isinstance(value, Mapping):
            yield from value.items()
        elif value is not None:
            yield name, value


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
