"""Actions on the console: run or allow a pipeline; stop or continue a run.

Each action calls what the command of that name calls, and returns the address of the page that
shows the result. A run that is started here has the person's name in the ledger as what started
it; everything is logged. Functions block; a thread calls them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.system.records import Struct, field
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.input_values import PATH_TYPES, Input
from paddock.pipelines.plan import Plan, read_plan
from paddock.runner.bind.bind import bind_written_starts
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.sub_pipelines import SharedPlans
from paddock.runner.bind.trust.consent import consent_words, digests_to_agree, refuse_unconsented
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.bind.trust.permissions import (
    NotPermitted,
    permission_names,
    permission_needs,
    refuse_unpermitted,
)
from paddock.runner.ledger.run_history import PastRun
from paddock.runner.render.graph_model import box_text, last_run_steps, pipeline_boxes
from paddock.runner.render.html_page import render
from paddock.runner.settings import STATE_FOLDER, Settings, read_settings

from .arguments import recorded_inputs
from .console_run_pages import NotHere, PageParts, RunPages, again_offer, pipeline_address, run_path
from .detached_run import CONSOLE_TRIGGER, DetachedRunRequest, DetachedRuns, stop_refusal, stop_run
from .exit_status import CommandError

_INPUT = "input."
"""Before the name of an input, in a form."""
Form = Mapping[str, str]

log = logging.getLogger("paddock.console")


class ConsoleSources(Struct, frozen=True):
    folders: Callable[[], Iterable[Path]]
    """Of pipelines, with what is below."""
    settings: Settings
    up_status: Callable[[], Mapping[str, Any]] | None = None
    """Of `paddock up`, a copy that does not change; called in the event loop."""
    pause: Callable[[Path, str, bool], bool] | None = None
    """Of `paddock up`: hold back a pipeline, or a trigger of it, or no longer; in a thread."""
    own_state: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    """The state of the service that serves the pages, which alone is shown; called in its loop."""
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings for runs."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class PipelineState(Struct, frozen=True):
    """A pipeline that can be bound, and what it may do here."""

    plan: Plan
    within: Mapping[Path, Plan]
    """The pipelines that its steps run, by file."""
    file: Path
    starts: Sequence[BoundPlan]
    """As the file starts it: by its defaults, and with the inputs of its triggers."""
    settings: Settings
    consents: Consents
    needed_consents: frozenset[str]
    """Digests of all that it wants besides files and models."""

    @property
    def needed_consents_id(self) -> str:
        """What a person has looked at when they allow it."""
        return hashlib.sha256(json.dumps(sorted(self.needed_consents)).encode()).hexdigest()

    def refusal(self) -> PipelineError | None:
        """Return why a run would be refused: permissions of the settings first, then consent."""
        own = self.settings.address.url
        try:
            refuse_unpermitted(self.starts[0], self.settings.allow, own, is_notifying=False)
            refuse_unconsented(self.starts[0], self.starts, own, self.consents, self.file)
        except PipelineError as error:
            return error
        return None


class ConsoleActions:
    def __init__(self, sources: ConsoleSources, runs: RunPages) -> None:
        self._sources = sources
        self._settings = sources.settings
        self._runs = runs
        self._detached: dict[Path, DetachedRuns] = {}
        self._ending: set[tuple[Path, str, int | None]] = set()
        """Runs that were told to end at once: ledger, name and process."""
        self._turn = threading.Lock()

    def state_of(self, file: Path) -> PipelineState:
        """Return what a pipeline wants and may do.

        Raises:
            PipelineError: it has faults.
        """
        settings = read_settings(file.parent, flags=self._sources.flags)
        plan, shared = read_plan(file), SharedPlans()
        starts = bind_written_starts(plan, shared)
        consents = Consents(self._settings.state_dir)
        needed = digests_to_agree(starts, settings.address.url, consents)
        return PipelineState(plan, shared.plans, file, starts, settings, consents, needed)

    def run(self, by: str, form: Form, file: Path) -> str:
        inputs = {
            name.removeprefix(_INPUT): value
            for name, value in form.items()
            if name.startswith(_INPUT)
        }
        order = DetachedRunRequest(str(file), inputs, trigger=f"{CONSOLE_TRIGGER} by {by}")
        return self._started(order)

    def allow(self, by: str, form: Form, file: Path) -> str:
        state = self.state_of(file)
        if form.get("asks") != state.needed_consents_id:
            raise CommandError(
                "The pipeline wants something else now than the page has shown.\n"
                "  Go back, load the page again, and look at what it wants."
            )
        state.consents.agree(file, state.needed_consents)
        log.info("%s: allowed by %s", file, by)
        return pipeline_address(file)

    def pause(self, by: str, form: Form, file: Path) -> str:
        """Hold back the runs of a pipeline or a trigger, or, with `resume`, no longer."""
        is_paused, trigger = "resume" not in form, form.get("trigger", "")
        try:
            pause = self._sources.pause
            is_served = pause is not None and pause(file, trigger, is_paused)
        except Exception as error:  # of the queue's file, or it is late
            raise CommandError(str(error) or "The queue of `paddock up` is busy.") from error
        if not is_served:
            raise CommandError("`paddock up` serves no such trigger of this pipeline.")
        what = f"{trigger} of {file}" if trigger else file
        log.info("%s: %s by %s", what, "paused" if is_paused else "resumed", by)
        return pipeline_address(file)

    def stop(self, by: str, form: Form, past: PastRun) -> str:
        is_now = "now" in form
        run = past.place.state.resolve(), past.row.run, past.row.pid
        with self._turn:
            if stop_refusal(past):
                self._ending.discard(run)
            if is_now and run in self._ending:  # a second signal would end the process hard
                return run_path(past)
            stop_run(past, now=is_now)
            if is_now:
                self._ending.add(run)
        how = "at once" if is_now else "after its items in flight"
        log.info("%s: run %s is stopped %s by %s", past.row.pipeline, past.row.run, how, by)
        return run_path(past)

    def again(self, by: str, form: Form, past: PastRun) -> str:
        file, inputs = recorded_inputs(past, None, {})
        for name, text, leads_out in () if "outside" in form else again_offer(past)[1]:
            if leads_out:
                raise CommandError(
                    f"Input '{name}' of run '{past.row.run}' leads out of {file.parent}: {text}.\n"
                    "  Go back and tick that it may."
                )
        only = (form["only"],) if "only" in form else ()
        trigger = f"{CONSOLE_TRIGGER} by {by}"
        return self._started(
            DetachedRunRequest(
                str(file.absolute()), inputs, only, None, True, trigger, is_again=True
            )
        )

    def _started(self, order: DetachedRunRequest) -> str:
        """Start a run; return the address of its page as soon as it has begun."""
        file = Path(order.file)
        folder = self.shown_folder(file)
        with self._turn:
            if (runs := self._detached.get(folder)) is None:
                most, own = self._settings.unattended.max_runs, self._sources
                runs = DetachedRuns(folder, own.flags, most, CONSOLE_TRIGGER, own.environ)
                self._detached[folder] = runs
        name = runs.start(order)
        runs.close()  # what a run says is in the ledger, too
        log.info("%s: run %s is started: %s", file, name, order.trigger)
        return self._runs.address_of(file.parent / STATE_FOLDER, name)

    def shown_folder(self, file: Path) -> Path:
        """Return the folder of those that are shown in which a pipeline is; inputs begin there."""
        for folder in self._sources.folders():
            if file.resolve().is_relative_to(folder.resolve()):
                return folder.resolve()
        raise NotHere(f"'{file}' is outside of the folders that are shown.")


def pipeline_page(
    actions: ConsoleActions, file: Path, last: PastRun | None, served: Mapping[str, Any] | None
) -> PageParts:
    """Return the page of a pipeline; `served`: its state under `paddock up`."""
    try:
        state = actions.state_of(file)
    except PipelineError as error:
        return PageParts(file.name, render("console_faults.html", file=file, error=str(error)))
    own, refusal = state.settings.address.url, state.refusal()
    required = [need for bound in state.starts for need in permission_needs(bound, own)]
    body = render(
        "console_pipeline.html",
        file=file,
        pipeline=state.starts[0].pipeline,
        address=pipeline_address(file),
        last=last,
        run=run_path,
        permissions=permission_names(required) if required else "",
        whats=consent_words(required, state.starts, state.consents),
        not_permitted=refusal if isinstance(refusal, NotPermitted) else None,
        consents_id=state.needed_consents_id,
        has_consent=state.needed_consents <= state.consents.agreed(file),
        served=served,
        why_not="" if refusal is None else "It is not allowed what it wants: see above.",
        fields=[
            (f"{_INPUT}{declared.name}", declared, *_input_words(declared, actions, file))
            for declared in state.starts[0].pipeline.inputs.values()
        ],
        boxes=pipeline_boxes(state.plan, last_run_steps(last), state.within),
        box_text=box_text,
    )
    return PageParts(file.name, body)


def _input_words(declared: Input, actions: ConsoleActions, file: Path) -> tuple[str, Sequence[str]]:
    """Return the note of an input, and its possible values; left empty, it has its default."""
    notes: list[str] = [declared.type]
    if declared.has_default and not declared.is_secret:
        notes.append(f"by default {json.dumps(declared.default, ensure_ascii=False, default=str)}")
    if declared.type in PATH_TYPES:
        notes.append(f"what is entered here begins at {actions.shown_folder(file)}")
    words = " ".join(filter(None, (declared.description, "; ".join(notes))))
    return words, ("true", "false") if declared.type == "bool" else [*map(str, declared.values)]
