"""Two items that would write the same file are a fault before anything is written.

Only paths that are known beforehand are looked at here; the others are caught when they are
about to be written (`outputs`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value

from .binding.bound import BoundBlock, BoundStep
from .body import ids
from .ledger.outputs import SAME_FILE_REMEDY, Index
from .scope import Scope
from .work import BlockWork


def refuse_clashes(block: BoundBlock, work: BlockWork, scope: Scope, index: Index) -> None:
    """Compare the files that the items to do would write.

    Raises:
        PipelineError: two of them are the same.
    """
    todo = [item for item in work.items if item.verdict.is_work]
    if not todo:
        return
    for step, path in _known_paths(block):
        taken: dict[str, str] = {}
        for item in todo:
            written = _written(path, scope.child(block.var, item.item), index)
            if written is None:
                continue
            other = taken.setdefault(written, item.key)
            if other == item.key:
                other = index.owner(work.scope, item.key, written) or item.key
            if other != item.key:
                raise PipelineError([_same_file(step, item.key, other, index.stored(written))])


def _known_paths(block: BoundBlock) -> Iterator[tuple[BoundStep, Value]]:
    """Give the paths that depend on nothing that has to run first."""
    inner = set(ids(block.body))
    for step in block.body:
        if not isinstance(step, BoundStep) or step.uses != "files.write" or step.if_ is not None:
            continue
        path = Value.of(step.params.value.data["path"])
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
