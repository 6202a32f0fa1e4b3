"""Commands on past runs: `paddock runs`, `logs`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from paddock.engine.system.files import write_output
from paddock.engine.system.records import replace
from paddock.runner.cli.arguments import (
    JsonOption,
    argument,
    existing_paths,
    flag,
    option,
    require_writable,
)
from paddock.runner.cli.exit_status import DONE, FAILED, WRONG, CommandError
from paddock.runner.cli.history_text import (
    is_failure,
    journal_line,
    ledger_item_line,
    run_heading,
    run_result_text,
    runs_table,
)
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.entries import ItemRow, LedgerError
from paddock.runner.ledger.run_history import (
    LedgerFolder,
    PastRun,
    RunHistory,
    open_for_reading,
    recent_runs,
    run_items,
    runs_named,
    unknown_run_text,
)
from paddock.runner.progress import printing
from paddock.runner.progress.item_states import BAD
from paddock.runner.progress.journal import JournalProgress, JournalTail
from paddock.runner.render.run_details import read_run_details
from paddock.runner.render.run_page import saved_run_page
from paddock.runner.review.answer_records import review_record_of_run
from paddock.runner.settings import STATE_FOLDER

REFRESH_EVERY_S = 1.0
FIND_LEDGERS_EVERY_S = 15.0
FOLLOW_POLL_S = 0.3

_PlacesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="FOLDER|FILE", help="Pipelines; here and below by default."),
]
_FailedOption = Annotated[bool, typer.Option("--failed", help="Only failures.")]


def runs(
    places: _PlacesArgument = None,
    failed: _FailedOption = False,
    watch: bool = flag("Keep showing them until Ctrl-C.", "--watch", "-w"),
    limit: int = option("How many at most.", "-n", "--limit", default=20, min=1),
    as_json: JsonOption = False,
) -> int:
    where, walked_at = _find_given_ledgers(places, printing.print_err), time.monotonic()

    def look() -> RunHistory:
        nonlocal where, walked_at
        if time.monotonic() - walked_at > FIND_LEDGERS_EVERY_S:  # there may be new ledgers
            where, walked_at = _find_given_ledgers(places), time.monotonic()
        return recent_runs(where, limit=limit, failed_only=failed)

    if watch:
        with suppress(KeyboardInterrupt):
            if not sys.stdout.isatty() or as_json:
                _watch_lines(look, as_json=as_json)
                return DONE
            from paddock.runner.progress.live_displays import redraw_until_interrupted

            known: dict[Path, JournalProgress] = {}

            def text() -> str:
                now = look()
                table = runs_table(now.runs, known) if now.runs else "No run yet."
                return "\n".join((*now.faults, table))

            redraw_until_interrupted(text, REFRESH_EVERY_S)
        return DONE
    found = look()
    for fault in found.faults:
        printing.print_err(fault)
    if as_json:
        printing.print_json({"runs": [past.as_json() for past in found.runs]})
    elif found.runs:
        printing.print_out(runs_table(found.runs, {}))
        if found.n_all > len(found.runs):
            shown = f"{len(found.runs):,} of {found.n_all:,} runs"
            printing.print_err(f"{shown}; `--limit {found.n_all}` shows all.")
    elif not found.faults:
        printing.print_err("No run failed." if failed else "No run yet.")
    if found.runs or not found.faults:
        return DONE
    return WRONG if found.has_wrong_settings else FAILED


def _watch_lines(look: Callable[[], RunHistory], *, as_json: bool) -> None:
    """Print a line when a run begins and when it ends, but none for runs that ended before."""
    seen: dict[tuple[Path, str], str] = {}
    reported: set[str] = set()
    is_first = True
    while True:
        found = look()
        for fault in found.faults:
            if fault not in reported:
                reported.add(fault)
                printing.print_err(fault)
        for past in reversed(found.runs):
            key = (past.place.state, past.row.run)
            is_news = seen.get(key) != past.status and not (is_first and past.status != "running")
            seen[key] = past.status
            if not is_news:
                continue
            if as_json:
                printing.print_json(past.as_json())
            else:
                words = run_result_text(past)
                after = f": {words}" if words else ""
                printing.print_out(f"{past.row.run} of {past.row.pipeline} {past.outcome}{after}")
        is_first = False
        time.sleep(REFRESH_EVERY_S)


def logs(
    run: str | None = argument("The latest by default.", metavar="RUN"),
    places: _PlacesArgument = None,
    failed: _FailedOption = False,
    follow: bool = flag("Continue until the run has ended.", "--follow", "-f"),
    report: Path | None = option("Write it as one HTML page instead.", metavar="FILE"),
    as_json: JsonOption = False,
) -> int:
    past = _find_run(run, places)
    if report is not None:
        write_run_report(past, require_writable(report, "run.html"))
        printing.print_err(f"Wrote run '{past.row.run}' to {printing.printable_line(str(report))}.")
        return DONE
    if follow:
        return _follow(past, failed=failed, as_json=as_json)
    lines = [
        event for event in JournalTail(past.journal).new_lines() if not failed or is_failure(event)
    ]
    if as_json:
        if not past.journal.exists():
            lines = [
                {
                    "event": "item", "step": row.step, "key": row.entry.key,
                    "state": row.entry.state, "seconds": row.entry.seconds,
                    "calls": row.entry.calls, "error": row.entry.error,
                }
                for row in _recorded_items(past, failed)
            ]  # fmt: skip
        printing.print_json({"run": past.as_json(), "lines": lines})
        return DONE
    printing.print_out(run_heading(past))
    if past.journal.exists():
        for event in lines:
            printing.print_out(journal_line(event))
    else:
        printing.print_err("Its log was removed; these are the items that no later run has redone:")
        for row in _recorded_items(past, failed):
            printing.print_out(ledger_item_line(row))
    if past.traces.exists():
        printing.print_out(f"Details of unexpected errors: {past.traces}")
    return DONE


def write_named_run_report(file: Path, run: str, target: Path) -> None:
    found = runs_named([LedgerFolder(file.absolute().parent / STATE_FOLDER)], run)
    if found.faults and not found.runs:
        raise LedgerError(found.faults[0])
    for past in found.runs[:1]:
        write_run_report(past, target)


def write_run_report(past: PastRun, target: Path) -> None:
    details = read_run_details(past)
    with open_for_reading(past.place) as ledger:
        details = replace(details, reviewed=review_record_of_run(ledger, past.row.run))
    write_output(target, saved_run_page(details, target))


def _follow(past: PastRun, *, failed: bool, as_json: bool) -> int:
    if not as_json:
        printing.print_out(run_heading(past))
    tail, is_over = JournalTail(past.journal), False
    with suppress(KeyboardInterrupt):
        while not is_over:
            # Query the status before reading, so that the last lines are not missed.
            now = next(iter(runs_named([past.place], past.row.run).runs), None)
            is_over = now is None or now.status != "running"
            for event in tail.new_lines():
                if failed and not is_failure(event):
                    continue
                if as_json:
                    printing.print_json(event)
                else:
                    printing.print_out(journal_line(event))
            if not is_over:
                time.sleep(FOLLOW_POLL_S)
    return DONE


def _recorded_items(past: PastRun, failed: bool) -> list[ItemRow]:
    return [row for row in run_items(past) if not failed or row.entry.state in BAD]


def _find_run(run: str | None, places: list[str] | None) -> PastRun:
    # `paddock logs news.yaml` means the latest run of that pipeline, `logs news` that of a folder
    is_place = run is not None and places is None and Path(run).exists()
    if run is not None and is_place and not runs_named(_find_given_ledgers(None), run).runs:
        places, run = [run], None
    where = _find_given_ledgers(places, printing.print_err)
    found = runs_named(where, run) if run is not None else recent_runs(where, limit=1)
    if found.faults and not found.runs:
        raise CommandError("\n".join(found.faults))
    for fault in found.faults:
        printing.print_err(fault)
    if found.runs:
        if len(found.runs) > 1:
            others = ", ".join(str(past.place.folder) for past in found.runs[1:])
            printing.print_err(f"Other folders have a run of this name, too: {others}")
        return found.runs[0]
    if run is None:
        raise CommandError("There is no run yet.")
    raise CommandError(unknown_run_text(where, run))


def _find_given_ledgers(
    given: list[str] | None, note: Callable[[str], None] = lambda text: None
) -> list[LedgerFolder]:
    """Return the ledgers of these files and folders; by default of the current folder."""
    return find_ledgers(existing_paths(given) or [Path()], note)
