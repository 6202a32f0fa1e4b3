"""Where a block's items would write, looked at before the first of them begins.

Two items with the same file, or a folder that cannot be written, are a fault before anything is
computed. Only paths that are known beforehand are looked at; the others are caught when they are
about to be written (`outputs`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.steps.places import nearest, refusal_to_write

from .binding.bound import BoundBlock, BoundStep
from .body import ids
from .ledger.outputs import SAME_FILE_REMEDY, Index
from .scope import Scope
from .work import BlockWork, Work

_PATHS = {"files.write": "path", "embed": "store"}
"""The parameter of each step that names what it writes."""


def refuse_targets(block: BoundBlock, items: BlockWork, scope: Scope, work: Work) -> None:
    """Compare the files that the items to do would write, and look at their folders.

    Raises:
        PipelineError: two files are the same, or none of the folders can be written.
    """
    todo = [item for item in items.items if item.verdict.is_work]
    if not todo:
        return
    index = work.index
    for step, path in _known_paths(block):
        taken: dict[str, str] = {}
        folders: dict[str, None] = {}
        for item in todo:
            written = _written(path, item.seen(block, scope), index)
            if written is None:
                continue
            if step.uses == "embed":
                folders[written] = None
                continue
            folders[os.path.dirname(written)] = None  # noqa: PTH120 - for 10,000 items
            other = taken.setdefault(written, item.key)
            if other == item.key:
                other = index.owner(items.scope, item.key, written) or item.key
            if other != item.key:
                raise PipelineError([_same_file(step, item.key, other, index.stored(written))])
        refused = {one: why for one in folders if (why := refusal_to_write(Path(one))) is not None}
        if not refused or len(refused) < len(folders):
            continue  # one document's folder stops no other: the step will refuse it
        folder, why = next(iter(refused.items()))
        if len(todo) > 1 or nearest(Path(folder)).is_dir():
            raise PipelineError([_not_writable(step, folder, why, path, work)])


def _not_writable(step: BoundStep, folder: str, why: str, path: Value, work: Work) -> Fault:
    what = f"step '{step.id}' cannot write to '{folder}': {why}."
    types = work.bound.input_types
    named = (read[1] for read in sorted(path.references) if read[0] == "inputs" and read[1:])
    name = next((name for name in named if types.get(name) in ("dir", "path")), None)
    other = f"`-i {name}=DIR` names another folder" if name else "change the step to another folder"
    return Fault(what, f"No item was begun. Let it be written, or {other}.", step.mark)


def _known_paths(block: BoundBlock) -> Iterator[tuple[BoundStep, Value]]:
    """Give the paths that depend on nothing that has to run first."""
    inner = set(ids(block.body))
    for step in block.body:
        if not isinstance(step, BoundStep) or step.uses not in _PATHS or step.if_ is not None:
            continue
        written = step.params.value.data.get(_PATHS[step.uses])
        if written is None:
            continue
        path = Value.of(written)
        if not any(
            read[0] == "steps" and read[1:2] and read[1] in inner for read in path.references
        ):
            yield step, path


def _written(path: Value, scope: Scope, index: Index) -> str | None:
    """Give the absolute path; None where it cannot be told, which the step itself will say."""
    try:
        text = path.render(scope)
    except ExpressionError:
        return None
    return os.path.normpath(index.absolute(text)) if isinstance(text, str) else None


def _same_file(step: BoundStep, key: str, other: str, path: str) -> Fault:
    first, second = sorted((key, other))
    what = f"'{first}' and '{second}' would write the same file '{path}'."
    return Fault(what, SAME_FILE_REMEDY, step.mark)
