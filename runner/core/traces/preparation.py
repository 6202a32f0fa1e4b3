"""Preparation of verifying: look at all that some traces need, at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.records import astuple, replace
from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.label_choices import LabelList
from paddock.runner.answers.offered_labels import label_texts
from paddock.runner.answers.text_vectors import unit_matrix
from paddock.steps.base import Roots

from .dependencies import (
    ChosenLabels,
    FileDependency,
    FolderListed,
    NarrowedLabels,
    RowsKept,
    StoreSearched,
    Trace,
)
from .world import LabelVectors, PreparedWorld, World, scan_digest

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundStep


async def prepare(
    world: World,
    traces: Collection[Trace],
    hashes: Mapping[str, str],
    roots: Roots,
    choices: Mapping[str, tuple[BoundStep, LabelList]],
) -> PreparedWorld:
    """Look at the outputs of these items and at all that they depend on; return their world.

    `hashes` are those that the items have now, by key. `choices` are the lists that are known
    before any item, by name, each with the step that chooses.

    Raises:
        EngineError: the labels that are new to a list cannot be embedded.
    """
    dependencies = [dep for trace in traces for dep in trace.dependencies]
    folders = [dep for dep in dependencies if isinstance(dep, FolderListed)]
    unread = {(dep.folder, scan_params) for dep in folders for scan_params, _ in dep.listings}
    unread -= world.seen.listed
    owned = world.index.owned(roots.base) if unread else frozenset()  # the loop's tasks add
    stores = {dep.path for dep in dependencies if isinstance(dep, StoreSearched)}
    stores |= {dep.store for dep in dependencies if isinstance(dep, RowsKept)}

    def look() -> None:
        reasons = world.seen.reasons  # of what is as it was none: of 100,000 files that is most
        for trace in traces:
            for dep in (*trace.outputs, *trace.dependencies):
                if not isinstance(dep, FileDependency):
                    continue
                if (reason := dep.find_change(world)) is not None:
                    reasons[dep] = reason
                elif reasons:
                    reasons.pop(dep, None)
        for folder, scan_params in unread:
            place = world.index.absolute(folder)
            world.seen.listings[folder, scan_params] = scan_digest(place, scan_params, roots, owned)
            world.seen.listed.add((folder, scan_params))

    if traces:
        await in_left_thread(look)
    for path in sorted(stores):
        place = Path(world.index.absolute(path))
        await world.rows_at(place).probe(place)
    # Of an item that changed, or chose labels: how it was done
    chose = any(isinstance(dep, ChosenLabels | NarrowedLabels) for dep in dependencies)
    for trace in traces:
        if chose or trace.entry.hash != hashes.get(trace.entry.key):
            trace.past.read()
    if not choices:
        return PreparedWorld(*astuple(replace(world, lists={}, label_vectors={})))
    vectors: dict[str, LabelVectors] = {}
    narrowed = [t for t in traces if any(isinstance(d, NarrowedLabels) for d in t.dependencies)]
    for name, (step, labels) in choices.items():
        former = (trace.past.lists(trace.entry.key).get(name) for trace in narrowed)
        before = {id(old): old for old in former if old is not None}  # most have the same
        new = labels.new_to(before.values())
        if new and world.embed_labels is not None:
            embedded = await world.embed_labels(step, label_texts(new))
            if embedded is not None:
                vectors[name] = LabelVectors([*new], embedded[0], unit_matrix(embedded[1]))
    lists = {name: labels for name, (_, labels) in choices.items()}
    return PreparedWorld(*astuple(replace(world, lists=lists, label_vectors=vectors)))
