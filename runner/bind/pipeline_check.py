"""Check a pipeline file: every fault, and what its author should know.

Must be quick: it opens no ledger, loads no model, and imports nothing of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.config.mail_server import undeliverable_mail

from .advice import advice_on
from .bind import bind_for_comparison
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
