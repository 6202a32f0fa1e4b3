"""Commands on a pipeline file: `paddock validate`, `plan`, `run`.

`run --resume` takes file and inputs of an earlier run from the ledger; `--junit` and `--summary`
write reports for CI, also for a run that could not begin. `validate` and `plan` must start within
half a second: import nothing slow at module level.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.pipelines.errors import Fault
from paddock.pipelines.yaml_source import to_yaml
from paddock.runner import api
from paddock.runner.cli.arguments import (
    HERE,
    ExactOption,
    FailOnOption,
    InputsOption,
    JsonOption,
    JunitOption,
    LocalOption,
    PipelineArgument,
    PipelineFlags,
    ReportOption,
    RetryFailedOption,
    SummaryOption,
    TakeOption,
    YesOption,
    option_values,
    parse_inputs,
    pipeline_file,
    recorded_inputs,
    remove_old_reports,
    require_reports,
    warn_of_model_with_same_name,
)
from paddock.runner.cli.exit_status import DONE, FAILED, WRONG, CommandError
from paddock.runner.cli.run_display import run_observer
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress import printing
from paddock.runner.progress.report import (
    HELD_REMEDY,
    STATES,
    PlanItem,
    PlanReport,
    Report,
    ReviewMode,
    State,
    ValidateReport,
    outdated_in_words,
)
from paddock.runner.settings import read_settings

if TYPE_CHECKING:
    from paddock.runner.ledger.run_history import PastRun
    from paddock.runner.settings import Settings

MAX_NAMED_ITEMS = 5  # in each group; `--json` has them all

WAITING_TEXT = "a person has to decide"
HELD_TEXT = "outputs were edited, or others wrote them, and are kept"

_WORK_STATES: tuple[State, ...] = ("new", "changed", "stale", "deleted")


def plan_text(report: PlanReport) -> str:
    """Return the items in groups by step, state and reason, then the estimated cost."""
    to_do = [item for item in report.items if item.state in _WORK_STATES]
    n_open = sum(item.is_undecided for item in to_do)
    head = f"{report.pipeline}: nothing to do"
    if to_do:
        n_items = counted(sum(item.state != "skipped" for item in report.items), "item")
        n_sure = f"{len(to_do) - n_open:,} to " if n_open else ""
        head = f"{report.pipeline}: {n_sure}{len(to_do):,} of {n_items} to do"
    elif report.has_work:
        head = f"{report.pipeline}: what there is to do is only known during the run"
    lines = [printing.printable_line(head), *_group_lines(report)]
    lines += [printing.printable_message(note) for note in (*report.notes, *report.remarks)]
    if any(item.state == "held" for item in report.items):
        lines.append(HELD_REMEDY)
    if report.has_work:
        lines += [_cost_text(report), *map(printing.printable_line, report.advice)]
    return "\n".join(lines)


def _group_lines(report: PlanReport) -> Iterator[str]:
    """Yield one line for the items of a step with the same state and reason."""
    groups: dict[tuple[str, State, str], list[PlanItem]] = {}
    for item in report.items:
        # The reasons of these name outputs and times, which would split the group.
        common = {"held": HELD_TEXT, "waiting": WAITING_TEXT}
        why = common.get(item.state) or item.why or ""
        groups.setdefault((item.step, item.state, why), []).append(item)
    width = max((len(step) for step, _, _ in groups), default=0)
    before = ""
    for (step, state, why), items in groups.items():
        shown = "" if step == before else step
        is_counted = state in ("fresh", "unsampled") or items[0].is_undecided
        what = counted(len(items), "item") if is_counted else _item_names(items)
        line = f"  {shown.ljust(width)}  {state:<11}  {what}"
        because = f"  ({printing.printable_message(why)})" if why and state != "fresh" else ""
        yield printing.printable_line(line) + because
        before = step


def _item_names(items: list[PlanItem]) -> str:
    if len(items) == 1 and items[0].key in ("", items[0].step):
        return "as a whole"
    names = ", ".join(item.key for item in items[:MAX_NAMED_ITEMS])
    more = len(items) - MAX_NAMED_ITEMS
    return f"{names} and {more:,} more" if more > 0 else names


def _calls_text(report: PlanReport, calls: int) -> str:
    """Return the number of calls, and how many of each model where there are several."""
    bound = "" if report.calls_are == "exact" else f"{report.calls_are} "
    is_bound = report.calls_are == "at most"
    of = [
        f"{_call_range(report.least_models.get(ref, 0) if is_bound else n, n)} of {ref}"
        for ref, n in report.models.items()
        if report.models.keys() - {ref}
    ]
    each = f" ({', '.join(of)})" if of else ""
    likely, least = report.likely_calls, report.least_calls
    if likely in (None, calls):
        some = f"{least:,} to " if is_bound and least else bound
        return f"{some}{counted(calls, 'model call')}{each}"
    some = f"{least:,} to " if is_bound and least not in (None, likely) else ""
    again = f"{bound}{calls:,} if answers are asked for again"
    return f"{some}{counted(likely or 0, 'model call')}{each} ({again})"


def _call_range(least: int, most: int) -> str:
    """Return a model's calls: how many are sure, and how many there may be."""
    if least >= most:
        return f"{most:,}"
    return f"{least:,} to {most:,}" if least else f"at most {most:,}"


def _cost_text(report: PlanReport) -> str:
    """Return the known ones of calls, tokens, model loads and time."""
    parts, untold = [], ""
    if report.calls is not None:
        parts.append(_calls_text(report, report.calls))
    elif report.loads:
        parts.append("model calls, how many is not known yet")
    if report.tokens is not None:
        parts.append(f"about {report.tokens:,} tokens")
    if report.loads is not None:
        parts.append(counted(report.loads, "model load"))
    if report.seconds is not None:
        length = units.duration(report.seconds)
        parts.append(length if length.startswith("under") else f"about {length}")
    elif report.calls:
        untold = " How long that is, the run tells after its first document."
    if not parts:
        return "The cost is not known yet."
    return f"That would take {', '.join(parts)}.{untold}"


def closing_lines(report: Report, *, fail_hint: str, file: str = "") -> tuple[str, ...]:
    """Return the lines that close a run: what was written, waits, is held, failed, and the cost."""
    return (
        _written_line(report),
        *_unsampled_lines(report),
        *_waiting_lines(report, file),
        *_held_lines(report),
        *_outdated_lines(report),
        _failed_line(report, fail_hint),
        _cost_line(report),
    )


def _unsampled_lines(report: Report) -> Iterator[str]:
    n = report.counts.get("unsampled", 0)
    if n:
        does = "it" if n == 1 else "them"
        what = f"{counted(n, 'item')} {'is' if n == 1 else 'are'} not in the sample"
        yield f"{what}; a run of all does {does}."


def _waiting_lines(report: Report, file: str) -> Iterator[str]:
    n = report.counts.get("waiting", 0)
    if n:
        command = printing.printable_line(f"paddock review {file}".rstrip())
        yield f"{n:,} {'waits' if n == 1 else 'wait'} for review: `{command}`."


def _held_lines(report: Report) -> Iterator[str]:
    held = [item for item in report.items if item.state == "held"]
    if not held:
        return
    names = ", ".join(printing.printable_line(item.key or item.step) for item in held[:3])
    more = f" and {len(held) - 3:,} more" if len(held) > 3 else ""
    what = f"Held {counted(len(held), 'item')}: {names}{more}."
    yield f"{what} Outputs were edited, or others wrote them, and are kept."
    yield f"  {HELD_REMEDY}"


def _outdated_lines(report: Report) -> Iterator[str]:
    if words := outdated_in_words(len(report.outdated)):
        yield f"{words}; `--prune` removes what was not edited."


def _written_line(report: Report) -> str:
    if not report.written:
        return "Wrote nothing new."
    folders = sorted({os.path.dirname(path) for path in report.written})  # noqa: PTH120 - texts
    where = os.path.commonpath(folders) if len(folders) > 1 else folders[0]
    shown = os.path.relpath(where)
    shown = where if shown.startswith(os.pardir) else shown
    if len(report.written) == 1:
        shown = os.path.join(shown, os.path.basename(report.written[0]))  # noqa: PTH118, PTH119
        return f"Wrote {printing.printable_line(os.path.normpath(shown))}."
    shown = "in this folder" if shown == os.curdir else f"under {printing.printable_line(shown)}"
    return f"Wrote {counted(len(report.written), 'file')} {shown}."


def _failed_line(report: Report, hint: str) -> str:
    bad = [item for item in report.items if item.state in ("quarantined", "failed")]
    log = f" Details: {printing.printable_line(report.log)}" if report.log else ""
    if report.message:
        return printing.printable_message(report.message) + log
    if not bad:
        return "Nothing failed."
    names = ", ".join(printing.printable_line(item.key or item.step) for item in bad[:3])
    more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
    lead = "Still not done" if all(item.is_known for item in bad) else "Not done"
    return f"{lead}: {names}{more}. {hint}{log}"


def _cost_line(report: Report) -> str:
    parts = [f"Took {units.duration(report.seconds)}"]
    calls = counted(report.calls, "model call")
    if report.cached_calls:
        calls += f" and {report.cached_calls:,} from the ledger"
    parts.append(calls)
    n_fresh = report.counts.get("fresh", 0)
    n_reused = report.tokens.get("prompt_reused", 0)
    n_prompt = report.tokens.get("prompt", 0)
    saved = f"saved: {counted(n_fresh, 'item')} fresh"
    if n_prompt:
        saved += f", {n_reused:,} of {n_prompt:,} prompt tokens reused"
    return ", ".join(parts) + f"; {saved}."


@dataclass(frozen=True, slots=True)
class CiReports:
    """Targets of a run's reports for CI."""

    pipeline: Path
    junit: Path | None
    summary: Path | None

    @property
    def are_wanted(self) -> bool:
        asked = self.junit is not None or self.summary is not None
        return asked or bool(os.environ.get("GITHUB_STEP_SUMMARY"))

    def write(self, ended: Report) -> bool:
        """Write them; print an error and return False if that fails."""
        if not self.are_wanted:
            return True
        from paddock.runner.testing import results

        try:
            results.write_reports(
                [results.run_as_suite(ended, str(self.pipeline))],
                results.run_markdown(ended),
                junit=self.junit,
                summary=self.summary,
            )
        except OSError as error:
            printing.print_err(f"{error.filename}: cannot be written: {error.strerror}.")
            return False
        return True

    @contextmanager
    def written_on_error(self) -> Iterator[None]:
        """Write them also if an error ends the run, or keeps it from beginning."""
        try:
            yield
        except Exception as error:
            at = self.pipeline if self.pipeline.is_dir() else self.pipeline.parent
            name = at.resolve().name
            self.write(Report("", name, "failed", {}, message=str(error) or type(error).__name__))
            raise


def resumed_run(
    name: str, file: Path | None, by_hand: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    """Return a run's pipeline and inputs; inputs of `by_hand` win.

    Raises:
        CommandError: no such run, or its inputs were not recorded.
    """
    return recorded_inputs(_find_run(name, file), file, by_hand)


def _find_run(name: str, file: Path | None) -> PastRun:
    from paddock.runner.ledger.run_history import find_ledgers, runs_named, unknown_run_text

    where = find_ledgers([file if file is not None else Path()])
    found = runs_named(where, name)
    if found.runs:
        return found.runs[0]
    if found.faults:
        raise CommandError(found.faults[0])
    raise CommandError(unknown_run_text(where, name))


EXIT_WORK_TO_DO = 10

_File = Annotated[str, typer.Argument(metavar="FILE", help="A pipeline, or a folder with one.")]


def validate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...", help="Pipelines, or folders with one; this folder by default."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check pipelines and print every fault."""
    reports = [_validate_file(file) for file in files or (HERE,)]
    faults = [fault for report in reports for fault in report.faults]
    for report in reports:
        _print_report(report, shows_ok=not as_json)
    if as_json:
        printing.print_json({"ok": not faults, "faults": [fault.as_json() for fault in faults]})
    elif faults:
        printing.print_err(f"{counted(len(faults), 'fault')}.")
    return WRONG if faults else DONE


def _print_report(report: ValidateReport, *, shows_ok: bool) -> None:
    for fault in report.faults:
        printing.print_err(fault.render())
    if report.ok and shows_ok:
        printing.print_out(f"{report.file}: ok")
    for note in report.notes:
        printing.print_err(printing.printable_message(note))


def _validate_file(file: str) -> ValidateReport:
    """Check one file; return a missing one as a fault, so that the others are checked, too."""
    try:
        return api.validate(pipeline_file(file, "validate"))
    except CommandError as error:
        message, _, remedy = str(error).partition("\n  ")
        return ValidateReport(file, (Fault(message, remedy),))


@dataclass(frozen=True)
class PlanFlags(PipelineFlags):
    """Arguments and options of `paddock plan`."""

    file: _File = HERE
    inputs: InputsOption = None
    detailed_exitcode: Annotated[
        bool,
        typer.Option("--detailed-exitcode", help="Exit with 0: nothing to do, 10: work to do."),
    ] = False


def plan(flags: PlanFlags) -> int:
    """Show what a run would do, and why."""
    path = pipeline_file(flags.file, "plan")
    settings = read_settings(path.parent, flags=flags.given_settings())
    options = RunOptions(sample=flags.item_sample())
    report = api.plan(path, parse_inputs(flags.inputs), options, settings=settings)
    if flags.as_json:
        printing.print_json(report.as_json())
    else:
        printing.print_out(plan_text(report))
    return EXIT_WORK_TO_DO if flags.detailed_exitcode and report.has_work else DONE


@dataclass(frozen=True)
class RunFlags(PipelineFlags):
    """Arguments and options of `paddock run`."""

    file: PipelineArgument = None
    inputs: InputsOption = None
    only: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only this item; can be repeated.")
    ] = None
    force: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Redo this step, even if it is fresh.")
    ] = None
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Do not reuse cached replies of models.")
    ] = False
    retry_failed: RetryFailedOption = False
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Redo items made by an older, compatible step version."),
    ] = False
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Remove outputs that no longer apply, as those of deleted documents."
        ),
    ] = False
    yes: YesOption = False
    take: TakeOption = False
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Continue that run, with its file and inputs.")
    ] = None
    review: Annotated[
        ReviewMode,
        typer.Option(
            help="What to do with answers that wait for a person: ask; or, with no one to ask, "
            "fail, skip or accept."
        ),
    ] = "ask"
    fail_on: FailOnOption = "new"
    local: LocalOption = False
    exact: ExactOption = False
    notify: Annotated[
        bool,
        typer.Option(
            "--notify", help="Send the notifications of `on.notify`, as `paddock up` does."
        ),
    ] = False
    log_json: Annotated[
        bool,
        typer.Option("--log-json", help="Write progress to stderr as one JSON object per line."),
    ] = False
    junit: JunitOption = None
    summary: SummaryOption = None
    report: ReportOption = None

    def pipeline_and_inputs(self) -> tuple[Path, Mapping[str, Any]]:
        """Return the pipeline and its inputs, with `resume` those of an earlier run."""
        given = parse_inputs(self.inputs)
        if self.resume is not None:
            path = None if self.file is None else pipeline_file(self.file, "run")
            return resumed_run(self.resume, path, given)
        return pipeline_file(HERE if self.file is None else self.file, "run"), given

    def options(self) -> RunOptions:
        """Return the run's options.

        Raises:
            CommandError: two of them do not fit each other.
        """
        sample = self.item_sample()
        if sample is not None and (self.only or self.prune):
            name = "--limit" if sample.is_first else "--sample"
            other, why = ("--only", "names the items") if self.only else _PRUNE_LOOKS_AT_ALL
            raise CommandError(
                f"`{name}` and `{other}` are both given.\n  `{other}` {why}: leave one out."
            )
        return RunOptions(
            local=self.local or None,
            only=frozenset(self.only or ()),
            sample=sample,
            force=frozenset(self.force or ()),
            no_cache=self.no_cache,
            retry_failed=self.retry_failed,
            review=self.review,
            refresh=self.refresh,
            prune=self.prune,
            is_confirmed=self.yes,
            takes_over=self.take,
            notify=self.notify,
        )


_PRUNE_LOOKS_AT_ALL = ("--prune", "looks at all items, to remove what none of them makes")


def run(flags: RunFlags) -> int:
    """Run a pipeline; the same command again continues.

    Progress goes to stderr. The value of `returns` is printed on stdout, text as it is and data as
    YAML; the summary of the run then goes to stderr, too.
    """
    junit, summary, report = flags.junit, flags.summary, flags.report
    targets = {"run.html": report, "junit.xml": junit, "summary.md": summary}
    require_reports(targets, option_values(flags.inputs))
    remove_old_reports(report, junit, summary)
    with CiReports(Path(flags.file or HERE), junit, summary).written_on_error():
        return _run(flags)


def _run(flags: RunFlags) -> int:
    path, given = flags.pipeline_and_inputs()
    own = flags.given_settings(log_json=flags.log_json, exact=flags.exact)
    settings = read_settings(path.parent, flags=own)
    if flags.file is not None:
        warn_of_model_with_same_name(flags.file, path, settings)
    is_log = settings.service.is_log_json

    def go(options: RunOptions) -> Report:
        display = run_observer(is_quiet_stdout=flags.as_json, is_log=is_log)
        with display as observer:
            environment = RunEnvironment(settings=settings, observer=observer)
            return api.run(path, given, options, environment)

    ended = run_until_confirmed(go, flags.options())
    if flags.report is not None and ended.run:
        from paddock.runner.lineage.decisions import write_named_run_report

        write_named_run_report(path, ended.run, flags.report)
    status = ended.exit_status(flags.fail_on)
    if not CiReports(path, flags.junit, flags.summary).write(ended):
        status = status or FAILED
    has_value = ended.returns is not None
    if not is_log:
        print_closing(ended, str(path), is_apart=flags.as_json or has_value)
        print_speed_advice(ended, settings)
    if flags.as_json:
        printing.print_json(ended.as_json())
    elif has_value:
        printing.print_out(_returned_text(ended.returns))
    return status


def run_until_confirmed(go: Callable[[RunOptions], Report], options: RunOptions) -> Report:
    """Run; once more if a person confirms that missing documents were deleted, to prune theirs."""
    ended = go(options)
    if options.prune and not options.is_confirmed and _confirm_removal(ended):
        return go(replace(options, is_confirmed=True))
    return ended


def _confirm_removal(ended: Report) -> bool:
    """Ask at a terminal whether missing documents were deleted, if the run found some."""
    if not any(item.state == "missing" for item in ended.items):
        return False
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm("Remove the outputs of missing documents?", err=True)


def print_closing(report: Report, file: str, *, is_apart: bool) -> None:
    """Print the closing lines of a run: to stderr if stdout is for its result."""
    hint = f"`paddock plan {file}` shows why; `--retry-failed` retries."
    write = printing.print_err if is_apart else printing.print_out
    write("\n".join(closing_lines(report, fail_hint=hint, file=file)))


def _returned_text(value: Any) -> str:
    """Return the printed value of `returns`: text as it is, data as YAML; `--json` has it whole."""
    text = value if isinstance(value, str) else to_yaml(_without_counts_of_0(value))
    return text.removesuffix("\n")


def _without_counts_of_0(value: Any) -> Any:
    """Return a value in which a block's `counts` are only those that say something.

    >>> _without_counts_of_0({"counts": {**dict.fromkeys(STATES, 0), "new": 2}, "n": 0})
    {'counts': {'new': 2}, 'n': 0}
    """
    if isinstance(value, list):
        return [_without_counts_of_0(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == set(STATES):
        return {state: n for state, n in value.items() if n}
    return {name: _without_counts_of_0(inner) for name, inner in value.items()}


def print_speed_advice(report: Report, settings: Settings) -> None:
    """Print advice if a tuned copy of the run's only model would be much faster."""
    if report.calls and len(report.models) == 1:
        from paddock.runner.dry_run.speed_estimates import SpeedBook

        (ref,) = report.models
        tokens = (report.tokens.get(k, 0) for k in ("prompt", "completion", "prompt_reused"))
        gain = SpeedBook(settings.pool).gain(ref, SpeedBook.workload(report.calls, *tokens))
        if gain is not None:
            printing.print_err(gain.sentence())
