"""Order: one run that a trigger, a person or Prefect asks of `paddock up`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from paddock.engine.system.records import SelectiveFields, Struct, field
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.progress.report import Report

OrderState = Literal["waiting", "running", "suspended", "ended"]
OrderEnd: TypeAlias = Literal[
    "", "completed", "quarantined", "budget", "interrupted", "suspended", "skipped", "cancelled",
    "failed", "crashed",
]  # fmt: skip
"""How a run ended, as in a report, or `skipped`, `crashed`, `cancelled` by a person; or not yet."""

FROM_PREFECT = "Prefect"
"""Trigger of an order that a person, or an automation, gave in Prefect."""


class Order(SelectiveFields, Struct, frozen=True):
    hidden = ("inputs",)

    id: str
    """Names it in every log. It is its runs' `job` in the ledger."""
    key: str
    """The same for the same demand of the pipeline, which is one order however often it is put."""
    pipeline: str
    """The file's absolute path."""
    trigger: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    files: tuple[FileVersion, ...] = ()
    """Of a watch: the files as they have settled, which are the ones that its run takes."""
    gone: tuple[str, ...] = ()
    """Of a watch: files that were handled once and have been deleted since."""
    retry_failed: bool = False
    is_promised: bool = False
    """A caller was told that it runs: it waits when its pipeline is gone, others are skipped."""
    signature: str | None = None
    """What no other order of the pipeline has."""
    created_at: float = 0.0
    due_at: float = 0.0

    state: OrderState = "waiting"
    message: str = ""
    """Why it waits, or how it ended."""
    not_before: float = 0.0
    """When to look at it again."""
    attempt: int = 1
    """The number of starts since the run's last progress, from 1."""
    mark: str = ""
    """Of the process that carries it out."""
    run: str = ""
    """Its last run's name in the ledger."""
    is_stopped: bool = False
    """It was at work when `paddock up` was asked to end: a killed process is no crash."""
    flow_run: str = ""
    end: OrderEnd = ""
    ended_at: float = 0.0
    is_told: bool = False
    is_handled: bool = False


class OrderOutcome(Struct, frozen=True):
    """How an order ended, as `paddock up` needs it: the ledger has it all."""

    report: Report | None = None
    message: str = ""
    """The error that ended the run, if there is no report."""
    is_shown: bool = False
    is_cancelled: bool = False
    """A person ended it in Prefect."""
