"""The command `paddock run`.

`--resume` takes file and inputs of an earlier run from the ledger; `--junit` and `--summary` write
reports for CI, also for a run that could not begin. Import nothing slow at module level.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from paddock.engine.system.records import replace
from paddock.runner import api
from paddock.runner.cli.arguments import (
    HERE,
    InputsOption,
    PipelineArgument,
    PipelineFlags,
    exact_flag,
    flag,
    junit_option,
    local_flag,
    option,
    option_values,
    parse_inputs,
    pipeline_file,
    recorded_inputs,
    remove_old_reports,
    report_option,
    require_reports,
    summary_option,
    take_flag,
    yes_flag,
)
from paddock.runner.cli.exit_status import FAILED, CommandError
from paddock.runner.cli.pipeline_or_model import looks_like_model, warn_of_model_with_same_name
from paddock.runner.cli.run_summary import print_closing, returned_text
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.daemon import daemon_files
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.run_history import runs_named, unknown_run_text
from paddock.runner.prefect.run_mode import uses_service
from paddock.runner.progress import printing
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import FailOn, Report, ReviewMode
from paddock.runner.progress.run_display import run_observer
from paddock.runner.settings import Settings, read_settings


def resumed_run(
    name: str, file: Path | None, by_hand: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    where = find_ledgers([file if file is not None else Path()], printing.print_err)
    found = runs_named(where, name)
    if not found.runs:
        raise CommandError(found.faults[0] if found.faults else unknown_run_text(where, name))
    return recorded_inputs(found.runs[0], file, by_hand)


@dataclass(frozen=True)
class RunFlags(PipelineFlags):
    file: PipelineArgument = None
    inputs: InputsOption = None
    only: list[str] | None = option("Only this item; can be repeated.", metavar="KEY")
    force: list[str] | None = option("Redo this step, even if it is fresh.", metavar="STEP")
    no_cache: bool = flag("Do not reuse cached replies of models.", "--no-cache")
    retry_failed: bool = flag("Retry quarantined items.", "--retry-failed")
    refresh: bool = flag("Redo items made by an older, compatible step version.", "--refresh")
    prune: bool = flag(
        "Remove outputs that no longer apply, as those of deleted documents.", "--prune"
    )
    yes: bool = yes_flag()
    take: bool = take_flag()
    resume: str | None = option("Continue that run, with its file and inputs.", metavar="RUN")
    review: ReviewMode = option(
        "What to do with answers that wait for a person: ask; or, with no one to ask, "
        "fail, skip or accept.",
        default="ask",
    )
    fail_on: FailOn = option(
        "Exit with 3 for newly quarantined items, or if no item of a block is done; "
        "for any quarantined; or never.",
        default="new",
    )
    local: bool = local_flag()
    prefect: bool = flag("Run as a flow of Prefect's; start a server if need be.", "--prefect")
    exact: bool = exact_flag()
    notify: bool = flag("Send the notifications of `on.notify`, as `paddock up` does.", "--notify")
    log_json: bool = flag("Write progress to stderr as one JSON object per line.", "--log-json")
    junit: Path | None = junit_option()
    summary: Path | None = summary_option()
    report: Path | None = report_option()

    def options(self) -> RunOptions:
        sample = self.item_sample()
        if sample is not None and (self.only or self.prune):
            name = "--limit" if sample.is_first else "--sample"
            other, why = "--prune", "looks at all items, to remove what none of them makes"
            if self.only:
                other, why = "--only", "names the items"
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


def run(flags: RunFlags) -> int:
    """Run a pipeline; the same command again continues.

    Progress goes to stderr. The value of `returns` is printed on stdout, text as it is and data as
    YAML; the summary of the run then goes to stderr, too.
    """
    junit, summary, report = flags.junit, flags.summary, flags.report
    targets = {"run.html": report, "junit.xml": junit, "summary.md": summary}
    require_reports(targets, option_values(flags.inputs))
    remove_old_reports(report, junit, summary)
    try:
        return _run(flags)
    except Exception as error:  # a report for CI tells any error, then it is raised
        at = Path(flags.file or HERE)
        name = (at if at.is_dir() else at.parent).resolve().name
        message = str(error) or type(error).__name__
        write_ci_reports(flags, at, Report("", name, "failed", {}, message=message))
        raise


def write_ci_reports(flags: RunFlags, pipeline: Path, ended: Report) -> bool:
    if flags.junit is flags.summary is None and not os.environ.get("GITHUB_STEP_SUMMARY"):
        return True
    from paddock.runner.testing import case_results, junit_and_markdown

    try:
        junit_and_markdown.write_reports(
            [case_results.run_as_suite(ended, str(pipeline))],
            junit_and_markdown.run_markdown(ended),
            junit=flags.junit,
            summary=flags.summary,
        )
    except OSError as error:
        printing.print_err(f"{error.filename}: cannot be written: {error.strerror}.")
        return False
    return True


def _run(flags: RunFlags) -> int:
    given: Mapping[str, Any] = parse_inputs(flags.inputs)
    if flags.resume is not None:
        file = None if flags.file is None else pipeline_file(flags.file, "run")
        path, given = resumed_run(flags.resume, file, given)
    else:
        path = pipeline_file(HERE if flags.file is None else flags.file, "run")
    own = flags.given_settings(log_json=flags.log_json, exact=flags.exact, prefect=flags.prefect)
    settings = read_settings(path.parent, flags=own)
    if flags.file is not None and looks_like_model(flags.file):
        warn_of_model_with_same_name(flags.file, path, settings)
    has_service = uses_service(flags.local or None, os.environ) and not settings.pool.is_exact
    daemon = daemon_files.find_daemon(settings) if has_service else None
    if daemon is not None and daemon.kind == "serve":  # it stays: no run starts one of its own
        from paddock.engine.system.processes import RUN_PRIORITY, lower_priority

        lower_priority(RUN_PRIORITY)
    is_log = settings.service.is_log_json
    display = partial(run_observer, is_quiet_stdout=flags.as_json, is_log=is_log)
    ended = run_until_confirmed(path, given, flags.options(), settings, display)
    if flags.report is not None and ended.run:
        from paddock.runner.cli.commands.run_history import write_named_run_report

        write_named_run_report(path, ended.run, flags.report)
    status = ended.exit_status(flags.fail_on)
    if not write_ci_reports(flags, path, ended):
        status = status or FAILED
    has_value = ended.returns is not None
    if not is_log:
        print_closing(ended, str(path), is_apart=flags.as_json or has_value)
    if flags.as_json:
        printing.print_json(ended.as_json())
    elif has_value:
        printing.print_out(returned_text(ended.returns))
    return status


def run_until_confirmed(
    file: Path,
    inputs: Mapping[str, Any],
    options: RunOptions,
    settings: Settings,
    display: Callable[[], AbstractContextManager[Observer]],
) -> Report:
    """Run; once more if a person confirms that missing documents were deleted, to prune theirs."""
    with display() as observer:
        environment = RunEnvironment(settings=settings, observer=observer)
        ended = api.run_until_end(file, inputs, options, environment)
    is_missing = any(item.state == "missing" for item in ended.items)
    may_ask = options.prune and not options.is_confirmed and is_missing
    if not (may_ask and sys.stdin.isatty() and sys.stderr.isatty()):
        return ended
    if not typer.confirm("Remove the outputs of missing documents?", err=True):
        return ended
    return run_until_confirmed(file, inputs, replace(options, is_confirmed=True), settings, display)
