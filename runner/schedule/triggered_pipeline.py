"""A pipeline that starts by itself: its validated file, triggers, inputs, concurrency group."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from paddock.engine.system.records import SelectiveFields, Struct
from paddock.pipelines import model, yaml_source
from paddock.pipelines import plan as plans
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.model import Pipeline
from paddock.pipelines.plan import Plan
from paddock.pipelines.triggers import ConcurrencyKeys, OnKeys, ScheduleKeys
from paddock.runner.bind import inputs
from paddock.runner.bind.bind import (
    bind,
    bind_without_inputs,
    bind_written_starts,
    document_folders,
)
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.trust import consent, permissions
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.core.other_runs.group_names import group_name, has_turns
from paddock.runner.settings import Settings
from paddock.runner.workers.order import FROM_PREFECT, Order

from .start_decisions import RunRule
from .time_windows import TimeWindow

_LOOKS_TRIGGERED = re.compile(r"^on\s*:", re.MULTILINE), re.compile(r"^steps\s*:", re.MULTILINE)
_RANKS = {"interactive": 0, "normal": 1, "batch": 2}


class TriggeredPipeline(SelectiveFields, Struct, frozen=True):
    hidden = ("bound",)
    uncompared = ("bound",)

    file: Path
    """Absolute."""
    text: str
    """The file's text when it was validated; its runs use this."""
    pipeline: Pipeline
    bound: BoundPlan | None = None
    """With every input's default; None when only callers start it, and must provide some."""
    max_attempts: int = 1
    """How often a watch tries a file."""
    is_open: bool = False
    """Whether other machines can reach the address of its webhooks."""

    @property
    def key(self) -> str:
        return str(self.file)

    @property
    def version(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def schedules(self) -> list[ScheduleKeys]:
        return self.pipeline.on.schedule if self.pipeline.on else []

    @property
    def concurrency(self) -> ConcurrencyKeys:
        return self.pipeline.concurrency or ConcurrencyKeys.model_validate({})

    @property
    def rule(self) -> RunRule:
        return RunRule(
            window=self.window,
            on_conflict=self.concurrency.on_conflict,
            rank=_RANKS[self.concurrency.priority],
            latest_only=frozenset(timed.key for timed in self.schedules if timed.catch_up != "all"),
            has_turns=has_turns(self.concurrency),
        )

    @property
    def window(self) -> TimeWindow | None:
        """Its time window; one that names no zone is in that of the schedules, which is one."""
        written = self.pipeline.on.window if self.pipeline.on else None
        if written is None:
            return None
        zones = {timed.timezone for timed in self.schedules}
        name = zones.pop() if zones else None
        return TimeWindow.of(written, ZoneInfo(name) if name else None)

    def inputs(self, given_inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return every input's value; paths are absolute.

        Raises:
            PipelineError: one is missing, unknown or of the wrong kind.
        """
        base = self.file.parent
        read = inputs.read_inputs(self.pipeline, given_inputs, base=base, cwd=base)
        if read.faults:
            raise PipelineError(read.faults)
        return read.values

    def inputs_from_elsewhere(self, given_inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the inputs that a remote caller has provided, and no others.

        The caller may only name folders within the pipeline's own: what a person opens by `-i
        folder=`, a call cannot.

        Raises:
            PipelineError: one is missing, unknown, of the wrong kind, or leads elsewhere.
        """
        values = self.inputs(given_inputs)
        if faults := inputs.outside_path_faults(
            self.pipeline, given_inputs, values, self.file.parent, "the pipeline's folder"
        ):
            raise PipelineError(faults)
        return {name: values[name] for name in given_inputs}

    def refusal(self, order: Order, triggers: Collection[str]) -> str:
        """Return why the pipeline, as its file is now, does not take an order; empty: it does.

        `triggers` are the keys of its triggers.
        """
        if order.trigger not in (*triggers, FROM_PREFECT):
            return f"its {order.trigger} is no more."
        try:  # what a caller was promised came from elsewhere
            checked = self.inputs_from_elsewhere if order.is_promised else self.inputs
            checked(order.inputs)
        except PipelineError as error:
            return error.faults[0].message
        return ""

    def group(self, given_inputs: Mapping[str, Any]) -> str:
        """Return the concurrency group of a run with these inputs.

        Raises:
            PipelineError: an input is wrong, or the name cannot be rendered.
        """
        return group_name(self.pipeline, self.file, self.inputs(given_inputs))


def read_triggered_pipeline(
    file: Path,
    text: str,
    settings: Settings,
    *,
    was_pipeline: bool = False,
    consents: Consents | None = None,
    agrees: bool = False,
) -> TriggeredPipeline | None:
    """Read a file's text; None: nothing starts it by itself, or it is no pipeline.

    Args:
        file: where it is.
        text: what it holds.
        settings: those of its folder.
        was_pipeline: it was a pipeline before, so that one without `steps` is saved by half.
        consents: what a person has agreed to for each file; None: all that is allowed.
        agrees: a person agrees now to what each file asks for, as far as it is allowed.

    Raises:
        PipelineError: it is meant to be one, and has faults.
        NotAgreed: it asks for more than a person has agreed to.
    """
    if not was_pipeline and not looks_triggered(text):
        return None
    document = yaml_source.parse_yaml(text, str(file))
    names = document.data.keys() if isinstance(document.data, dict) else set()
    if was_pipeline and "steps" not in names:
        remedy = "Save the complete file; or remove `on`, or the file, to end its service."
        raise PipelineError.of("there are no `steps` any more.", remedy, document.mark(()))
    if not {"on", "steps"} <= names:
        return None
    plan = plans.plan_with_faults(model.parse_pipeline(document))
    on = plan.pipeline.on
    if on is None or not on.starts_runs:
        bind_without_inputs(plan)
        return None
    if all(entry.has_callers for entry in on.built_in) and any(_missing_inputs(plan.pipeline)):
        starts = bind_written_starts(plan)
        bound, whole = None, starts[0]
        if consents is not None:
            permissions.refuse_unpermitted(whole, settings.allow, settings.address.url)
    else:
        bound = whole = _bind_alone(plan, on, file, settings)
        starts = bind_written_starts(plan)
    if consents is not None:
        own = settings.address.url
        if agrees and (needed := consent.digests_to_agree(starts, own, consents, whole)):
            consents.agree(file, needed)
        consent.refuse_unconsented(whole, starts, own, consents, file)
    return TriggeredPipeline(file, text, plan.pipeline, bound)


def work_folders(file: Path, text: str) -> tuple[Path, ...] | None:
    """Return the folders where the documents of a pipeline arrive or are written.

    It need not be under `paddock up`: a pipeline that is run by hand has such folders too. Empty
    when the text is no pipeline; None: it is a faulty one.
    """
    if not _LOOKS_TRIGGERED[1].search(text):
        return ()
    try:
        return document_folders(file, text)
    except Exception:  # its errors are reported where it is read as a pipeline
        return None


def looks_triggered(text: str) -> bool:
    return all(pattern.search(text) for pattern in _LOOKS_TRIGGERED)


def _bind_alone(plan: Plan, on: OnKeys, file: Path, settings: Settings) -> BoundPlan:
    """Bind a pipeline whose triggers must give every input that has no default.

    Raises:
        PipelineError: every fault and missing permission.
    """
    first, *others = [entry.given_inputs for entry in on.built_in if not entry.has_callers] or [{}]
    always = {name: value for name, value in first.items() if all(name in own for own in others)}
    if missing := [*_missing_inputs(plan.pipeline, always)]:
        raise PipelineError([*plan.pipeline.faults, *plan.faults, *missing])
    bound = bind(plan, always, cwd=file.parent, default_models=settings.default_models)
    permissions.refuse_unpermitted(bound, settings.allow, settings.address.url)
    return bound


def _missing_inputs(pipeline: Pipeline, given: Collection[str] = ()) -> Iterator[Fault]:
    for name, spec in pipeline.inputs.items():
        if spec.is_required and not spec.has_default and name not in given:
            what = f"input '{name}' has no value, and the pipeline starts by itself."
            mark = pipeline.document.key_mark(spec.at)
            yield Fault(what, "Add a default, or `inputs` under `on.schedule`.", mark)
