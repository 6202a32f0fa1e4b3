"""Check a pipeline file: every fault, and what its author should know.

Must be quick: it opens no ledger, loads no model, and imports nothing of a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.model import Pipeline, parse_pipeline
from paddock.pipelines.plan import Plan, plan_with_faults, read_plan
from paddock.pipelines.validation import FaultCollector
from paddock.pipelines.yaml_source import YamlDocument, parse_yaml
from paddock.runner.config.mail_server import mail_server_faults

from . import variations
from .advice import advice_on
from .bind import bind_with_faults
from .bound import BoundPlan
from .checks import requirements
from .variations import Change


class ValidateReport(Struct, frozen=True):
    file: str
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    """Warnings, one sentence each; for people."""

    @property
    def ok(self) -> bool:
        return not self.faults

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "faults": [fault.as_json() for fault in self.faults]}


def validate(path: str | Path) -> ValidateReport:
    """Check a pipeline and return every fault; touches no model and no document."""
    try:
        bound = bind_for_comparison(read_plan(Path(path)))
        requirements.refuse_missing(bound)
        notes = tuple(advice_on(bound))
        if bound.pipeline.on is not None and bound.pipeline.on.notify:
            # Few pipelines notify, and to read the settings takes as long as to check a file
            from paddock.runner.settings import read_settings

            smtp_url = read_settings(bound.file.parent).unattended.smtp_url
            notes += mail_server_faults(bound.pipeline.on.notify, smtp_url)
        return ValidateReport(str(path), notes=notes)
    except PipelineError as error:
        return ValidateReport(str(path), error.faults)


def bind_for_comparison(plan: Plan) -> BoundPlan:
    """Bind a plan as `bind_without_inputs` does; `compare` and `gold` must be sound too.

    Raises:
        PipelineError: with every fault; those of values under `compare` where there is no other.
    """
    bound, checks = bind_with_faults(plan)
    if plan.pipeline.compare is not None or plan.pipeline.gold is not None:
        variations.check_varied_names(plan.pipeline, checks)
        if not checks.faults:
            _check_variations(plan.pipeline, checks)
    checks.raise_faults()
    return bound


def _check_variations(pipeline: Pipeline, checks: FaultCollector) -> None:
    """Bind a sound pipeline with each value under `compare`, all others being the first ones."""
    if pipeline.compare is None:
        return
    written = {name: value for name, value in pipeline.document.data.items() if name != "compare"}
    varied = variations.dimensions(pipeline.compare, pipeline)
    first = [changes[0] for changes in varied]
    variants = [first] if first else []
    for place, changes in enumerate(varied):
        variants += ([*first[:place], change, *first[place + 1 :]] for change in changes[1:])
    for variant in variants:
        data = variations.changed(written, variant)
        document = parse_yaml(json.dumps(data), pipeline.document.file)
        named = " ".join(f"'{change.name}'" for change in variant)
        _, of_variant = bind_with_faults(plan_with_faults(parse_pipeline(document)))
        for fault in of_variant.faults:
            what = f"with {named}: {fault.message}"
            if fault.mark is not None and fault.mark.file != document.file:  # a varied pipeline's
                checks.include([replace(fault, message=what)])
            elif (change := _at_fault(document, variant, fault)) is None:
                checks.add(("compare",), what, fault.remedy, is_key=True)
            else:
                at = ("compare", change.option, change.target)
                checks.add(at, fault.message, fault.remedy, is_key=True)


def _at_fault(document: YamlDocument, variant: Iterable[Change], fault: Fault) -> Change | None:
    """Return the change in whose value a fault is; None: what it does is wrong elsewhere.

    The document is one line of JSON, so that columns tell.
    """
    if fault.mark is None:
        return None
    for change in variant:
        key, value = document.key_mark(change.at), document.mark(change.at)
        span = document.span(change.at)
        end = value.column if span is None else value.column + span.end - span.start
        if min(key.column, value.column) <= fault.mark.column < end:
            return change
    return None
