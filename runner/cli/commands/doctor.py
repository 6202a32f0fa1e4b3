"""Command `paddock doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddock.engine.system.records import asdict
from paddock.engine.system.text import counted, listed
from paddock.runner.cli import doctor as checks
from paddock.runner.cli.arguments import JsonOption, argument, existing_paths, flag
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.rebuild import Rebuilt, rebuild
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def doctor(
    places: list[str] | None = argument("With --rebuild: pipelines.", metavar="FOLDER"),
    rebuilds: bool = flag(
        "Make the items' states again from the ledger's log, which has no decisions.", "--rebuild"
    ),
    as_json: JsonOption = False,
) -> int:
    if rebuilds:
        return _rebuild(places, as_json=as_json)
    if places:
        raise CommandError("`paddock doctor` looks at this machine. For a ledger add `--rebuild`.")
    found = checks.examine(read_settings(Path.cwd()))
    status = checks.findings_exit_status(found)
    facts = {"ok": not status, "findings": [asdict(finding) for finding in found]}
    printing.print_result(facts, checks.findings_text(found), as_json=as_json)
    return status


def _rebuild(places: Sequence[str] | None, *, as_json: bool) -> int:
    found = find_ledgers(existing_paths(places) or [Path()], printing.print_err)
    made = [(place.state, rebuild(place)) for place in found]
    rebuilt = [(state, result) for state, result in made if result is not None]
    facts = {"ledgers": [{"folder": str(state), **asdict(result)} for state, result in rebuilt]}
    lines = [f"{state}: {_rebuilt_text(result)}" for state, result in rebuilt]
    printing.print_result(
        facts, "\n".join(lines) or "There is no ledger to look at.", as_json=as_json
    )
    return 0


def _rebuilt_text(result: Rebuilt) -> str:
    items, events = counted(result.n_items, "item"), counted(result.n_events, "event")
    if not result.different:
        return f"{items}, as {events} say."
    which = listed(result.different, 3)
    return f"{items} by {events}; {len(result.different)} were not so, and are now: {which}."
