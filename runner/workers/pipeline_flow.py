"""A pipeline as a Prefect flow, whose parameters are the pipeline's inputs.

Called, served, deployed or used as a sub-flow it is the same run as `paddock run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import json
import keyword
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Pause, PrefectException
from prefect.flow_engine import AsyncFlowRunEngine
from prefect.logging import get_run_logger
from prefect.states import Failed, Running
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.engine import propose_state
from pydantic import Field, SecretStr, WithJsonSchema

from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import Struct, asdict, replace
from paddock.engine.system.text import one_line
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.input_values import PATH_TYPES, Input
from paddock.pipelines.plan import read_plan
from paddock.pipelines.typed_rows import TypedRows
from paddock.runner import api
from paddock.runner.bind.inputs import read_inputs
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.drain import StopGate, stop_on_signals
from paddock.runner.progress.prefect_view import (
    FLOW_MODULE,
    last_state,
    prefect_name,
    wish_of_state,
)
from paddock.runner.progress.report import Report

from .flow_names import ORDER, quoted_path
from .run_in_flow import current_flow_run, send_what_is_shown, wait_for_server

BY_PATH = {"entrypoint_type": EntrypointType.MODULE_PATH}
FLOW_OPTIONS = ("retries", "retry_delay_seconds", "timeout_seconds", "flow_run_name")
HOOKS = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
PREFECT_OPTIONS = RunOptions(trigger="Prefect")
RESERVED = (*keyword.kwlist, "return_state", "wait_for")  # no flow can have such a parameter
_AGAIN = {"type": "boolean", "title": "retry_failed", "default": False,
          "description": "Try quarantined items again"}  # fmt: skip
ORDER_PARAMETER = inspect.Parameter(
    ORDER,
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        dict[str, Any] | None,
        WithJsonSchema({"type": "object", "properties": {"retry_failed": _AGAIN}}),
    ],
)
UNVERIFIED = (
    "This order was not verified. Such runs are carried out by `paddock up`, not by a worker of "
    "Prefect's."
)


class PipelineRunFailed(Exception):
    """The run ended in a red state; `report` has everything."""

    def __init__(self, report: Report) -> None:
        super().__init__(last_state(report).message)
        self.report = report


class PipelineFlow(Flow[..., Any]):
    """A flow whose runs are a pipeline's."""

    secret_inputs: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    """Inputs that are no parameters, since no flow can have parameters of these names."""
    options = RunOptions()

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters as Prefect stores them: secret ones as `***`, and no frames."""
        hidden = dict.fromkeys(self.secret_inputs & parameters.keys(), "***")
        frames = (name for name in parameters if hasattr(parameters[name], "__arrow_c_stream__"))
        hidden |= dict.fromkeys(frames, "rows of a frame")
        shown = {name: value for name, value in parameters.items() if name != ORDER or value}
        return super().serialize_parameters({**shown, **hidden})

    def with_options(self, *args: Any, **options: Any) -> PipelineFlow:
        flow_copy: Any = super().with_options(*args, **options)
        flow_copy.__class__ = PipelineFlow  # Prefect's own makes a plain flow
        flow_copy.parameters, flow_copy.__signature__ = self.parameters, inspect.signature(self)
        return flow_copy  # type: ignore[no-any-return]

    def to_deployment(self, *args: Any, **options: Any) -> Any:
        """Make a deployment that any Prefect worker can load, by the pipeline's path.

        Raises:
            ValueError: it has what no worker can load.
        """
        self._refuse_unloadable(options)
        return self._loaded_by_path(super().to_deployment(*args, **options | BY_PATH))

    async def ato_deployment(self, *args: Any, **options: Any) -> Any:
        self._refuse_unloadable(options)
        deployment = self._loaded_by_path(await super().ato_deployment(*args, **options | BY_PATH))
        with contextlib.suppress(PrefectException, httpx.HTTPError):  # the first one, or no server
            async with get_client() as client:
                name = f"{deployment.flow_name}/{deployment.name}"
                known = await client.read_deployment_by_name(name)
            paused = [timed.schedule for timed in known.schedules if not timed.active]
            # A person's pause outlasts a restart of `serve`
            for timed in deployment.schedules or ():
                timed.active = timed.active and timed.schedule not in paused
        return deployment

    def _loaded_by_path(self, deployment: Any) -> Any:
        """Add the flow's options to the entrypoint by which a worker loads it (`__getattr__`)."""
        of_runs = {
            name: value
            for name in RunOptions.__struct_fields__
            if (value := getattr(self.options, name)) != getattr(PREFECT_OPTIONS, name)
        }
        of_flow = {name: getattr(self, name) for name in FLOW_OPTIONS if getattr(self, name)}
        if of_runs or of_flow:
            sample = of_runs.get("sample")
            of_runs |= {} if sample is None else {"sample": asdict(sample)}
            options = quote(json.dumps([of_runs, of_flow], default=sorted), safe="")
            deployment.entrypoint += f"?{options.replace('.', '%2E')}"
        return deployment

    def _refuse_unloadable(self, options: Mapping[str, Any]) -> None:
        if "entrypoint_type" in options and "job_variables" not in options:
            return  # `serve` of this flow, which runs the object itself
        hooks = [kind for kind in HOOKS if getattr(self, f"{kind}_hooks")]
        what = hooks or [name for name in ("text",) if self.options.text is not None]
        what += ["flow_run_name"] if callable(self.flow_run_name) else []
        if what:
            raise ValueError(
                f"a deployment cannot carry {' and '.join(map(repr, what))}: its runs load the "
                f"flow by the pipeline's path. Use `serve` of the flow, or make the flow in a "
                f"module of your own and use `Flow.from_source(source, 'flows.py:name')`."
            )


def flow(path: str | Path, options: RunOptions | None = None) -> PipelineFlow:
    """Return a pipeline as a Prefect flow, to be called, served, deployed or used as a sub-flow.

    Calling it returns the run's `Report`, or raises `PipelineRunFailed` at a red state.

    Raises:
        PipelineError: the YAML is wrong.
    """
    return _refusing_left_out(flow_of(Path(path), options or PREFECT_OPTIONS))


def _refusing_left_out(of_pipeline: PipelineFlow) -> PipelineFlow:
    what = "has a name that no Prefect flow can have"
    left_out = of_pipeline.left_out
    if faults := [Fault(f"the input '{name}' {what}.", "rename it") for name in left_out]:
        raise PipelineError(faults)
    return of_pipeline


def __getattr__(name: str) -> PipelineFlow:
    """Return the flow that a deployment's entrypoint names: a path, and options behind a `?`.

    For Prefect an entrypoint is an attribute of a module. `_loaded_by_path` writes the options.
    """
    if "/" not in name:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    path, _, options = name.partition("?")
    of_runs, of_flow = json.loads(unquote(options) or "[{}, {}]")
    for option, value in of_runs.items():
        if option == "sample":
            of_runs[option] = ItemSample(**value)
        elif isinstance(value, list):
            of_runs[option] = frozenset(value)
    return flow(unquote(path), replace(PREFECT_OPTIONS, **of_runs)).with_options(**of_flow)


RunPipeline = Callable[
    [Path, Mapping[str, Any], RunOptions, RunEnvironment], Coroutine[Any, Any, Report]
]
"""Runs a pipeline with the given inputs, as `run_async` does."""


def flow_of(
    path: Path,
    options: RunOptions,
    environment: RunEnvironment | None = None,
    run_pipeline: RunPipeline = api.run_async,
    is_continued: Callable[[], bool] = lambda: False,
) -> PipelineFlow:
    """Return a pipeline as a Prefect flow, for a caller that follows its runs.

    Args:
        path: the pipeline's file.
        options: those of its runs.
        environment: has what stops its runs; None: each try has its own, for a limit may have
            closed the gate.
        run_pipeline: what a try calls.
        is_continued: returns whether another flow run continues one that stops.

    Raises:
        PipelineError: the YAML is wrong.
    """
    path = path.absolute()
    plan = read_plan(path, options.text)
    pipeline = plan.pipeline
    if faults := [*pipeline.faults, *plan.faults]:
        raise PipelineError(faults)
    shown = {spec.name: spec for spec in pipeline.inputs.values() if spec.name not in RESERVED}
    body = _FlowBody(path, shown, options, environment, run_pipeline, is_continued)

    async def run(**values: Any) -> State[Any]:
        return await body.run(values)

    # 1. A deployment finds the flow by this name, see `__getattr__`.
    run.__module__ = FLOW_MODULE
    run.__name__ = run.__qualname__ = quoted_path(str(path))
    # 2. A flow takes over what its function has: so does a copy that Prefect makes of it.
    run.__dict__ |= {
        "__signature__": body.signature(),
        "options": options,
        "left_out": tuple(name for name in pipeline.inputs if name not in shown),
        "secret_inputs": frozenset(name for name, spec in shown.items() if spec.is_secret),
    }
    lines = (f"    {spec.name}: {one_line(spec.description or '')}" for spec in shown.values())
    run.__doc__ = "\n".join(("Run the pipeline.", "", "Args:", *lines))  # Prefect's forms show it
    of_pipeline = PipelineFlow(
        run,
        name=prefect_name(pipeline.name),
        description=pipeline.description or f"The pipeline {path.name} in {path.parent}",
        version=hashlib.sha256((options.text or path.read_text("utf-8")).encode()).hexdigest()[:16],
        validate_parameters=False,  # the run does, with the messages of `-i`
        persist_result=False,
    )
    # 3. The schema of its parameters is made: from now on calls are checked.
    run.__dict__["__signature__"] = body.signature(is_call=True)
    return of_pipeline


class _FlowBody(Struct, frozen=True):
    """What the runs of a pipeline's flow do. The fields are as in `flow_of`."""

    path: Path
    inputs: Mapping[str, Input]
    """Those that are parameters of the flow."""
    options: RunOptions
    environment: RunEnvironment | None
    run_pipeline: RunPipeline
    is_continued: Callable[[], bool]

    def signature(self, *, is_call: bool = False) -> inspect.Signature:
        """Return the flow's parameters, of which Prefect makes the schema of its forms.

        `is_call`: as calls are checked, without required ones. A run that lacks an input says so
        itself, where Prefect's process would crash.
        """
        of_inputs = [_parameter(spec, self._shown_default(spec)) for spec in self.inputs.values()]
        parameters = [*of_inputs, ORDER_PARAMETER]
        if is_call:
            parameters = [
                p.replace(default=None) if p.default is p.empty else p for p in parameters
            ]
        return inspect.Signature(parameters)

    async def run(self, values: dict[str, Any]) -> State[Any]:
        order = values.pop(ORDER, None) or {}
        return await _run_with_retries(partial(self._try_once, self._changed(values), order))

    def _changed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs that are not as the YAML has them by default, which may have changed.

        What Prefect shows counts, but for inputs that are gone.
        """
        now = {**self.inputs, **read_plan(self.path, self.options.text).pipeline.inputs}
        plain = partial(json.dumps, default=str, sort_keys=True)  # defaults go by value and type
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in values.items()
            if plain(value) != plain(self._shown_default(now[name]))
            and not (value is None and self._shown_default(self.inputs[name]) is None)
        }

    async def _try_once(
        self, inputs: Mapping[str, Any], order: Mapping[str, Any], is_repeated: bool
    ) -> Report:
        if not set(order) <= {"retry_failed"}:
            raise PipelineError.of(UNVERIFIED)
        flow_run, options = current_flow_run(), self.options
        is_process = flow_run is not None and flow_run.deployment_id is not None
        # Prefect's engine has put its own handler in place of that of who called us.
        is_outermost = flow_run is not None and flow_run.parent_task_run_id is None
        takes_signals = is_process or (is_outermost and self.environment is not None)
        around = self.environment or RunEnvironment()
        stop, gate = around.stop, around.stop_gate
        retries_failed = options.retry_failed or is_repeated or order.get("retry_failed")
        by = "Prefect" if is_process and options.trigger == "hand" else options.trigger
        requested = replace(options, retry_failed=bool(retries_failed), trigger=by)
        try:
            with stop_on_signals(stop, gate) if takes_signals else contextlib.nullcontext():
                report = await self.run_pipeline(self.path, inputs, requested, around)
        finally:
            if self.environment is None and not stop.is_set():  # else its caller has the report
                await wait_for_server()
        if stays_open(report, gate, is_continued=self.is_continued()):
            if gate.status == "suspended":
                await _show_suspended()
            raise Pause(gate.message)  # a final state would take its place
        if is_process and report.status == "interrupted":
            report = await with_cancellation(report)
        return report

    def _shown_default(self, declared: Input) -> Any:
        """Return an input's default as a form shows it: a path as a whole, no secret."""
        if declared.is_secret:
            return None
        if declared.type in PATH_TYPES and isinstance(declared.default, str):
            return str(self.path.resolve().parent / declared.default)
        return declared.default


async def _run_with_retries(try_once: Callable[[bool], Awaitable[Report]]) -> State[Any]:
    """Run the pipeline inside the current flow run; return the state of its end.

    `try_once` gets whether it is repeated, and then tries quarantined items again in any case.
    Where the flow has retries, failed runs are repeated here: Prefect's engine repeats a flow only
    after an error, which it then raises though a later try has succeeded.

    Raises:
        Pause: the flow run stays open: it is resumed, or another one continues it.
    """
    is_repeated = False
    while True:
        try:
            report = await try_once(is_repeated)
            state = state_of(report)
            message = state.message if state.type is StateType.FAILED else None
        except PipelineError as error:  # for people, whom a traceback tells nothing
            message = " ".join(fault.in_one_line() for fault in error.faults)
            if current_flow_run() is None:
                raise
            if not await _is_tried_again(message):
                get_run_logger().error("%s", message)
                return Failed(message=message, data=error)
        except Exception as error:  # what ended the run, whatever it was, is tried again
            if not await _is_tried_again(str(error) or type(error).__name__):
                raise
        else:
            if message is None or not await _is_tried_again(message):
                break
        is_repeated = True  # else quarantined items are left out, and it is green
    red = {StateType.FAILED: PipelineRunFailed(report), StateType.CANCELLED: None}
    state.data = red.get(state.type, report)
    return state


_TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "path": Path, "dir": Path,
    "list": list[Any],
}  # fmt: skip


def _parameter(declared: Input, default: Any) -> inspect.Parameter:
    kind = SecretStr if declared.is_secret else _TYPES.get(declared.type, Any)
    if declared.type == "enum":
        kind = Annotated[Any, WithJsonSchema({"enum": list(declared.values)})]
    kind = Annotated[kind, Field(ge=declared.min, le=declared.max)]
    # Whether a caller must give the input
    is_missing = declared.is_required and not declared.has_default
    return inspect.Parameter(
        declared.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if is_missing else default,
        annotation=kind if is_missing or default is not None else kind | None,
    )


def stays_open(report: Report, stop_gate: StopGate, *, is_continued: bool) -> bool:
    """Return whether a flow run does not end with its run, which was stopped."""
    is_cancelled = stop_gate.is_closed and stop_gate.status == "interrupted"
    is_stopped = report.status in ("budget", "suspended", "interrupted")
    return is_stopped and (stop_gate.status == "suspended" or (is_continued and not is_cancelled))


async def _show_suspended() -> None:
    flow_run = current_flow_run()
    if flow_run is not None:
        with contextlib.suppress(PrefectException, httpx.HTTPError):
            async with get_client() as client:
                now = (await client.read_flow_run(flow_run.id)).state
                if now is not None and now.is_running():
                    state: State[Any] = State(type=StateType.PAUSED, name="Suspended")
                    await client.set_flow_run_state(flow_run.id, state, force=True)


async def _is_tried_again(message: str) -> bool:
    """Wait until a failed flow run begins again, as its server decides; return whether it does."""
    flow_run = current_flow_run()
    if flow_run is None or not (retries := flow_run.empirical_policy.retries):
        return False
    async with get_client() as client:
        if (await client.read_flow_run(flow_run.id)).run_count > retries:
            return False
        state = await propose_state(client, Failed(message=message), flow_run_id=flow_run.id)
        if state.is_scheduled():
            get_run_logger().warning("%s It is tried again.", message)
            running = await propose_state(client, Running(), flow_run_id=flow_run.id)
            context: Any = FlowRunContext.get()
            engine: Any = AsyncFlowRunEngine(flow=context.flow, flow_run=flow_run)
            await engine.call_hooks(running)
        return state.is_scheduled()


def state_of(report: Report) -> State[Any]:
    state = last_state(report)
    return State(type=StateType(state.type), name=state.name, message=state.message)


def is_pipeline_run() -> bool:
    context = FlowRunContext.get()
    return context is not None and isinstance(context.flow, PipelineFlow)


async def run_as_flow(
    path: Path, inputs: Mapping[str, Any], options: RunOptions, environment: RunEnvironment
) -> Report:
    """Run a pipeline as a flow run: a sub-flow of the current one, if there is one.

    A run that has ended has its report, whether or not Prefect's server could take its state.

    Raises:
        PipelineError: the YAML or an input is wrong.
    """
    pipeline = read_plan(path, options.text).pipeline
    cwd = Path.cwd()
    read = read_inputs(pipeline, inputs, base=path.parent, cwd=cwd)
    if read.faults:
        raise PipelineError(read.faults)
    frames = {name: rows for name, rows in read.values.items() if isinstance(rows, TypedRows)}
    inputs = {**inputs, **{name: frames[name] for name in inputs.keys() & frames}}  # streams end
    reports: list[Report] = []

    async def run_pipeline(*call: Any) -> Report:
        reports.append(await api.run_async(*call))
        return reports[-1]

    of_pipeline = _refusing_left_out(flow_of(path, options, environment, run_pipeline))
    is_outermost = FlowRunContext.get() is None
    try:
        state: State[Any] = await of_pipeline(**inputs, return_state=True)  # type: ignore[misc]
        if is_outermost:  # this process may end at once
            await asyncio.to_thread(send_what_is_shown)
    except (PrefectException, httpx.HTTPError) as error:
        if not reports:
            raise
        message = "Prefect does not show the end of this run of %s, which is %s: %s"
        get_run_logger().warning(message, path, reports[-1].status, error)
        return reports[-1]
    if not reports:
        await state.aresult()  # raises what ended it
    return reports[-1]


async def with_cancellation(report: Report) -> Report:
    """Return the report of a run that was stopped, with what a person did to it in Prefect.

    Prefect passes a cancellation on by the same signal as the end of the process that runs it.
    """
    state, flow_run = None, current_flow_run()
    if flow_run is not None:
        with contextlib.suppress(PrefectException, httpx.HTTPError):
            async with get_client() as client:
                state = (await client.read_flow_run(flow_run.id)).state
    wish = wish_of_state(state.type.value, state.name or "") if state is not None else None
    if wish is None or wish[0] != "stop":
        return report
    message = (report.message or "").replace("Interrupted", wish[1], 1)
    return replace(report, message=message)
