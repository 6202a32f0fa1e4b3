"""Sources of a pipeline's rules, as a run saw them: files, models, kinds of steps.

Where nothing of it differs, a rule is as it was when the run did its items, and no pipeline has to
be bound to know that. Servers, secrets, tables, functions and plug-ins are not covered: a pipeline
with one of these has no record, and is bound.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelSpec
from paddock.engine.system.distribution import DISTRIBUTION, own_version
from paddock.pipelines.yaml_source import text_digest
from paddock.runner.bind.plan_walks import all_plans, all_steps, node_ids
from paddock.runner.ledger.entries import Entry
from paddock.runner.settings import Settings
from paddock.steps.readers.reader import reader_versions
from paddock.steps.registry import BrokenStep, UnknownStep, load_step, step_package
from paddock.steps.tables.table_files import format_versions
from paddock.steps.tools.code_digests import file_content

from .traces.dependencies import NEED_A_RULE, dependencies_of
from .traces.parts import PLACE_IN_LIST, OuterValue, parts_of
from .traces.world import World

if TYPE_CHECKING:
    from .run_context import RunContext

_SURELY_BEFORE_S = 60.0
"""What changed so long before a pipeline was bound is as it was then, whatever clocks say."""

Sources = Mapping[str, Any]
"""JSON."""


def rule_sources(context: RunContext, settings: Settings) -> Sources | None:
    """Return the sources of a run's rules; None: they are not known. Blocks."""
    bound, known = context.bound, context.world.models.known
    plans, steps = [*all_plans(bound)], [*all_steps(bound.nodes)]
    specs = {(spec.ref, spec.n_ctx_tokens) for step in steps for spec in step.models}
    models = {ref: known["", ref] for ref, _ in specs if ("", ref) in known}
    documents = {}
    for plan in plans:
        document = plan.pipeline.document
        documents[(plan.roots.base / Path(document.file).name).resolve()] = document
    if (
        context.options.variant_of
        or bound.secret_inputs
        or "rows" in bound.input_types.values()
        or any(map(os.path.isfile, bound.folder_inputs.values()))
        or any(plan.pools or plan.pipeline.servers or plan.pipeline.secrets for plan in plans)
        or any(step_package(step.uses) != DISTRIBUTION for step in steps)
        or len(models) < len(specs)
    ):
        return None
    world, files = context.world, {}
    try:
        for file in context.protected.parts:
            files[world.index.stored(file)] = world.digest(str(file))
            if file in documents:
                is_as_bound = documents[file].digest == text_digest(file_content(file))
            else:
                is_as_bound = file.stat().st_ctime < bound.moment - _SURELY_BEFORE_S
            if not is_as_bound:
                return None
    except OSError:  # it is gone meanwhile, or was no file
        return None
    contexts = {ref: None if n_ctx else models[ref].n_ctx_tokens for ref, n_ctx in specs}
    return {
        **_environment(settings),
        "files": files,
        "kinds": {step.uses: step.kind.version for step in steps},
        "models": {ref: [models[ref].identity, contexts[ref]] for ref in models},
        "alone": [id_ for node in bound.nodes if bound.is_alone(node) for id_ in node_ids([node])],
    }


def is_decided_alone(sources: Sources, step: str, entry: Entry) -> bool:
    """Return whether the rule, its document and its dependencies decide on a step's item alone.

    So no plan is needed (`BoundPlan.is_alone`), and no value that other steps or a list give.
    """
    if step not in sources["alone"] or dependencies_of(entry, *NEED_A_RULE):
        return False
    parts = parts_of(json.loads(entry.parts))
    roots = {part.root for part in parts if isinstance(part, OuterValue)}
    return PLACE_IN_LIST not in parts and roots <= {"inputs"}


async def are_unchanged(then: Sources, world: World, settings: Settings) -> bool:
    """Return whether rules are made of the same as then. Blocks."""
    now, absolute = _environment(settings), world.index.absolute
    if settings.pool_urls or any(then.get(name) != now[name] for name in now):
        return False
    try:
        if any(world.digest(absolute(file)) != was for file, was in then["files"].items()):
            return False
        if any(load_step(uses).version != was for uses, was in then["kinds"].items()):
            return False
        for ref, (identity, n_ctx_tokens) in then["models"].items():
            model = ModelSpec(ref)
            if identity != await world.models.of(model):
                return False
            if n_ctx_tokens not in (None, await world.models.default_context(model)):
                return False
    except (OSError, EngineError, BrokenStep, UnknownStep):
        return False
    return True


def _environment(settings: Settings) -> Sources:
    return {
        "version": own_version(),
        "readers": [*reader_versions(), *format_versions()],
        "default_models": dict(settings.default_models),
    }
