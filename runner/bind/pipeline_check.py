"""Check a pipeline file: every fault, and what its author should know.

Must be quick: it opens no ledger, loads no model, and imports nothing of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.model import parse_pipeline
from paddock.pipelines.plan import Plan, plan_with_faults, read_plan
from paddock.pipelines.yaml_source import YamlDocument
from paddock.runner.config.mail_server import undeliverable_mail

from . import variations
from .advice import advice_on
from .bind import bind_with_faults
from .bound import BoundPlan
from .checks import requirements


@dataclass(frozen=True, slots=True)
class ValidateReport:
    """The faults of a file."""

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
            notes += undeliverable_mail(bound.pipeline.on.notify, smtp_url)
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
            variations.check_variations(plan.pipeline, checks, _faults_in)
    checks.raise_faults()
    return bound


def _faults_in(document: YamlDocument) -> Sequence[Fault]:
    _, checks = bind_with_faults(plan_with_faults(parse_pipeline(document)))
    return checks.faults
