"""Refuse a write to the file of another pipeline, or to a forbidden place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.input_values import FOLDER_TYPES
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.output_index import other_pipelines_output
from paddock.steps.paths import nearest_existing, write_refusal

from ..expected_paths import ExpectedPaths, forecast_place, output_paths
from ..run_context import RunContext
from ..traces.block_work import ItemWork


def refuse_forbidden_paths(
    context: RunContext, todo: Sequence[ItemWork], paths: Sequence[ExpectedPaths]
) -> None:
    """Refuse items that would write another pipeline's file, or into folders that are not writable.

    Raises:
        PipelineError: a file is another pipeline's, or none of the folders can be written.
    """
    for known in paths:
        step, texts = known.step, known.texts
        folders: Iterable[str] = [texts[item.key] for item in todo if item.key in texts]
        if known.effect.is_claimed:
            refuse_other_pipelines(context, step, folders)
            if not known.effect.is_path:
                continue
            folders = map(os.path.dirname, folders)
        refusals = [(folder, write_refusal(Path(folder))) for folder in dict.fromkeys(folders)]
        if not refusals or any(why is None for _, why in refusals):
            continue  # one document's folder stops no other: its step fails
        folder, why = refusals[0]
        is_folder = nearest_existing(Path(folder)).is_dir()  # else a file there gives way
        if is_folder or (len(todo) > 1 and not known.effect.is_claimed):
            types = context.bound.input_types
            read = (
                r[1] for r in sorted(known.effect.value.references) if r[0] == "inputs" and r[1:]
            )
            name = next((name for name in read if types.get(name) in FOLDER_TYPES), None)
            other = f"`-i {name}=DIR` names another" if name else "change the step to another"
            what = f"step '{step.id}' cannot write to '{folder}': {why}."
            remedy = f"No item was begun. Make it writable, or {other} folder."
            raise PipelineError.of(what, remedy, step.mark)


def refuse_written_by_others(context: RunContext, scope: Scope) -> None:
    """Refuse top-level steps that would write what another pipeline does, before the first runs.

    Raises:
        PipelineError: an output belongs to another pipeline.
    """
    base, index = str(context.bound.roots.base), context.index
    for step, effect in output_paths(context.bound.nodes):
        text = forecast_place(effect, scope, base) if effect.is_claimed else None
        # What was taken over is refused where the step has work to do
        if text and not (step.has_trace and index.owners.taken_by(index.stored(text))):
            refuse_other_pipelines(context, step, [text])


def note_possible_refusal(
    context: RunContext, body: Sequence[BoundNode], scopes: Iterable[Scope]
) -> None:
    """Note a step that would write what another pipeline does, unless its `if` is false."""
    base = str(context.bound.roots.base)
    for scope in scopes if not context.options.takes_over else ():
        for step, effect in output_paths(body, conditional=True):
            with suppress(ExpressionError):
                if step.if_ is not None and not step.if_.evaluate(scope):
                    continue
            text = forecast_place(effect, scope, base)
            stored = "" if text is None else context.index.stored(text)
            if stored and (other := context.index.owners.other_owner(stored)) is not None:
                error = other_pipelines_output(stored, other)
                context.stats.note(f"'{step.id}' may fail: {error.reason} {error.remedy}")
                return


def refuse_other_pipelines(context: RunContext, step: BoundStep, paths: Iterable[str]) -> None:
    if context.options.takes_over:
        return
    for stored in map(context.index.stored, paths):
        if (other := context.index.owners.other_owner(stored)) is not None:
            error = other_pipelines_output(stored, other)
            raise PipelineError.of(error.reason, error.remedy, step.mark)
