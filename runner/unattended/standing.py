"""A pipeline that stands ready: its file's text as it was found sound, and what starts it.

Knows no Prefect and no clock. A file that asks for nothing by itself is none, nor is a YAML file
of another kind; a faulty one raises every fault at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from paddock.engine.request import Role
from paddock.pipelines import model, source
from paddock.pipelines import plan as plans
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.plan import Plan
from paddock.pipelines.tree import Pipeline
from paddock.pipelines.triggers import Concurrency, Schedule, Webhook
from paddock.runner import asks, consent
from paddock.runner.binding import given
from paddock.runner.binding.bind import bind, check, checked, folders_of
from paddock.runner.binding.bound import BoundPlan
from paddock.runner.settings import Settings
from paddock.runner.turns import rendered

from .consents import Consents
from .dispatch import Rule
from .schedules import Timed
from .windows import Window

_LOOKS_MEANT = re.compile(r"^on\s*:", re.MULTILINE), re.compile(r"^steps\s*:", re.MULTILINE)
_RANKS = {"interactive": 0, "normal": 1, "batch": 2}


@dataclass(frozen=True)
class Standing:
    """One pipeline under `paddock up`."""

    file: Path
    """Absolute."""
    text: str
    """What the file held when it was found sound; its runs are of this."""
    pipeline: Pipeline
    schedules: tuple[Timed, ...] = ()
    bound: BoundPlan | None = field(default=None, repr=False, compare=False)
    """With every input's default; None where webhooks alone start it, and have to give some."""
    agreed: frozenset[str] = frozenset()
    """What a person has agreed to for its file: digests as `runner.asks` makes them."""

    @property
    def key(self) -> str:
        """Name it among the others, as long as its file stays where it is."""
        return str(self.file)

    @property
    def version(self) -> str:
        """A hash of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def webhooks(self) -> tuple[Webhook, ...]:
        """The addresses whose calls start it."""
        return tuple(self.pipeline.on.webhook) if self.pipeline.on else ()

    @property
    def concurrency(self) -> Concurrency:
        """How its runs share the machine."""
        return self.pipeline.concurrency or Concurrency.model_validate({})

    @property
    def rule(self) -> Rule:
        """What the dispatcher has to know of it."""
        return Rule(
            window=self.window,
            on_conflict=self.concurrency.on_conflict,
            rank=_RANKS[self.concurrency.priority],
            catch_up={timed.key: timed.catch_up for timed in self.schedules},
        )

    @property
    def window(self) -> Window | None:
        """When it may work; on the clock of its schedules where these agree on one."""
        written = self.pipeline.on.window if self.pipeline.on else None
        if written is None:
            return None
        zones = {timed.timezone for timed in self.schedules}
        name = zones.pop() if len(zones) == 1 else None
        return Window.of(written, ZoneInfo(name) if name else None)

    def inputs(self, given_inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Give every input's value; paths are absolute.

        Raises:
            PipelineError: one is missing, unknown or of the wrong kind.
        """
        base = self.file.parent
        read = given.read(self.pipeline, given_inputs, base=base, cwd=base)
        if read.faults:
            raise PipelineError(read.faults)
        return read.values

    def inputs_from_elsewhere(self, given_inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of inputs that a caller from elsewhere has given, and of no others.

        Such a caller names folders within the pipeline's own alone: what a person opens by
        `-i folder=` no stranger opens by a call.

        Raises:
            PipelineError: one is missing, unknown, of the wrong kind, or leads elsewhere.
        """
        values, declared = self.inputs(given_inputs), self.pipeline.inputs
        base = self.file.parent.resolve()
        faults = [
            Fault(f"input '{name}' leads outside the pipeline's folder.", "")
            for name in given_inputs
            if declared[name].type in ("dir", "path")
            and not Path(values[name]).resolve().is_relative_to(base)
        ]
        if faults:
            raise PipelineError(faults)
        return {name: values[name] for name in given_inputs}

    def group(self, given_inputs: Mapping[str, Any]) -> str:
        """Name the group that a run with these inputs belongs to.

        Raises:
            PipelineError: an input is wrong, or the name cannot be made.
        """
        inputs = self.inputs(given_inputs)
        written = self.concurrency.group
        if written is None:
            places = {n: inputs[n] for n, one in self.pipeline.inputs.items()
                      if one.type in ("dir", "path")}  # fmt: skip
            return json.dumps([self.key, places], sort_keys=True)
        return str(self.rendered(written, {"inputs": inputs}, ("concurrency", "group")))

    def rendered(self, written: Any, scope: Mapping[str, Any], at: tuple[str | int, ...]) -> Any:
        """Fill in what stands at `at` outside of the steps.

        Raises:
            PipelineError: it cannot be filled in.
        """
        return rendered(self.pipeline, written, scope, at)


def read_standing(
    file: Path,
    text: str,
    settings: Settings,
    *,
    has_stood: bool = False,
    consents: Consents | None = None,
    agrees: bool = False,
) -> Standing | None:
    """Read a file's text; None: nothing starts it by itself, or it is no pipeline.

    Args:
        file: where it is.
        text: what it holds.
        settings: those of its folder.
        has_stood: it was a pipeline before, so that one without `steps` is saved by half.
        consents: what a person has agreed to for each file; None: all that is allowed.
        agrees: a person agrees now to what each file asks for, as far as it is allowed.

    Raises:
        PipelineError: it is meant to be one, and has faults.
    """
    if not has_stood and not looks_meant(text):
        return None
    document = source.parse(text, str(file))
    names = document.data.keys() if isinstance(document.data, dict) else set()
    if has_stood and "steps" not in names:
        remedy = "Save the whole of it; or remove `on`, or the file, and it is left alone."
        raise PipelineError([Fault("there are no `steps` any more.", remedy, document.mark(()))])
    if not {"on", "steps"} <= names:
        return None
    plan = plans.examine(model.examine(document))
    on = plan.pipeline.on
    if on is None or not (on.schedule or on.watch or on.webhook):
        check(plan)
        return None
    stored = list(_stored(plan.pipeline))
    if stored:
        raise PipelineError([*plan.pipeline.faults, *plan.faults, *stored])
    if not (on.schedule or on.watch) and any(_missing(plan.pipeline)):
        whole = checked(plan)
        if consents is not None:
            consent.refuse(whole, settings.allow, settings.address.url)
        agreed = _agreed(whole, file, settings, consents, agrees=agrees)
        return Standing(file, text, plan.pipeline, agreed=agreed)
    bound = _bound(plan, file, settings)
    agreed = _agreed(bound, file, settings, consents, agrees=agrees)
    return Standing(file, text, plan.pipeline, tuple(map(_timed, on.schedule)), bound, agreed)


def _agreed(
    bound: BoundPlan, file: Path, settings: Settings, consents: Consents | None, *, agrees: bool
) -> frozenset[str]:
    """Return what a person has agreed to for a file.

    Raises:
        NotAgreed: it asks for more.
    """
    own = settings.address.url
    asked = asks.asks_of(bound, own)
    if consents is None or not asked:
        return asked
    if agrees:
        consents.agree(file, asked)
    agreed = consents.agreed(file)
    asks.refuse_unagreed(bound, own, agreed, file)
    return agreed


def work_folders(file: Path, text: str) -> tuple[Path, ...]:
    """Return the folders where the documents of a pipeline arrive or are written.

    It need not stand under `paddock up`: one that is run by hand works in folders too. None where
    the text is no pipeline, or cannot be read as one.
    """
    if not _LOOKS_MEANT[1].search(text):
        return ()
    try:
        return folders_of(plans.examine(model.examine(source.parse(text, str(file)))))
    except Exception:  # what is wrong with it is shown where it is read as a pipeline
        return ()


def looks_meant(text: str) -> bool:
    """Return whether a text is meant as a pipeline that starts by itself."""
    return all(pattern.search(text) for pattern in _LOOKS_MEANT)


def _bound(plan: Plan, file: Path, settings: Settings) -> BoundPlan:
    """Find every fault, and what is not allowed; what starts by itself must need no inputs."""
    missing = list(_missing(plan.pipeline))
    if missing:
        raise PipelineError([*plan.pipeline.faults, *plan.faults, *missing])
    models: dict[Role, str] = {"chat": settings.chat_model, "embed": settings.embed_model}
    bound = bind(plan, {}, cwd=file.parent, default_models=models)
    consent.refuse(bound, settings.allow, settings.address.url)
    return bound


def _missing(pipeline: Pipeline) -> Iterator[Fault]:
    """Name the inputs that nobody gives to a run which starts by itself."""
    for name, one in pipeline.inputs.items():
        if one.is_required and not one.has_default:
            what = f"input '{name}' has no value, and the pipeline is to start by itself."
            mark = pipeline.document.key_mark(one.at)
            yield Fault(what, "Give it a default.", mark)


def _stored(pipeline: Pipeline) -> Iterator[Fault]:
    """Name the secret inputs that a webhook would write into the queue."""
    for index, webhook in enumerate(pipeline.on.webhook if pipeline.on else ()):
        for name in webhook.inputs:
            if name in pipeline.inputs and pipeline.inputs[name].is_secret:
                what = f"input '{name}' is secret, and what a webhook gives is stored in the queue."
                mark = pipeline.mark(("on", "webhook", index, "inputs", name))
                yield Fault(what, "Read it from `secrets` instead.", mark)


def _timed(schedule: Schedule) -> Timed:
    return Timed(schedule.cron, schedule.timezone, schedule.catch_up)
