"""Commands about what happened: `runs` and `logs`."""

from __future__ import annotations

import difflib
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.runner.display import console

from .exits import DONE, FAILED, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.runner.history.past import History, Past
    from paddock.runner.history.places import Place
    from paddock.runner.history.tail import Progress

EVERY_S = 1.0
WALK_S = 15.0
FOLLOW_S = 0.3

_Places = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FOLDER|FILE]...", help="Pipelines; here and below, by default."),
]
_Failed = Annotated[bool, typer.Option("--failed", help="Only what did not succeed.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("runs")(guarded(runs))
    app.command("logs")(guarded(logs))


def runs(
    places: _Places = None,
    failed: _Failed = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing them until Ctrl-C.")
    ] = False,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many at most.")] = 20,
    as_json: Json = False,
) -> int:
    """List the runs there were and are, the newest first."""
    from paddock.runner.history.past import history

    where, walked_at = _places(places), time.monotonic()

    def look() -> History:
        nonlocal where, walked_at
        if time.monotonic() - walked_at > WALK_S:  # there may be new ledgers
            where, walked_at = _places(places), time.monotonic()
        return history(where, limit=limit, failed_only=failed)

    if watch:
        return _watch(look, as_json=as_json)
    found = look()
    for fault in found.faults:
        console.tell(fault)
    if as_json:
        console.say_json({"runs": [past.as_json() for past in found.runs]})
    elif found.runs:
        console.say(_table(found.runs, {}))
    elif not found.faults:
        console.tell("No run failed." if failed else "No run yet.")
    return FAILED if found.faults and not found.runs else DONE


def _table(found: Sequence[Past], known: dict[Path, Progress]) -> str:
    """Lay out runs; `known` keeps how far those came that have no report, between two looks."""
    from .history_text import table

    rows = [(past, _progress(past, known)) for past in found]
    return table(rows, time.time(), socket.gethostname())


def _progress(past: Past, known: dict[Path, Progress]) -> str:
    if past.status not in ("running", "died"):
        known.pop(past.journal, None)
        return ""
    from paddock.runner.history.tail import Progress

    progress = known.setdefault(past.journal, Progress(past.journal))
    n_ended, n_all = progress.look()
    bad = f", {progress.n_bad:,} failed" if progress.n_bad else ""
    return f"{n_ended:,} of {n_all:,}{bad}" if n_all else ""


def _watch(look: Any, *, as_json: bool) -> int:
    """Show runs until Ctrl-C: a table that renews itself, or a line for each change."""
    try:
        if sys.stdout.isatty() and not as_json:
            _watch_table(look)
        else:
            _watch_lines(look, as_json=as_json)
    except KeyboardInterrupt:
        pass
    return DONE


def _watch_table(look: Any) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    known: dict[Path, Progress] = {}
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            found = look()
            text = _table(found.runs, known) if found.runs else "No run yet."
            live.update(Text("\n".join((*found.faults, text)), no_wrap=True), refresh=True)
            time.sleep(EVERY_S)


def _watch_lines(look: Any, *, as_json: bool) -> None:
    """Write a line when a run begins and when it ends; those that ended before are not told."""
    from .history_text import done

    seen: dict[tuple[Path, str], str] = {}
    said: set[str] = set()
    is_first = True
    while True:
        found = look()
        for fault in found.faults:
            if fault not in said:
                said.add(fault)
                console.tell(fault)
        for past in reversed(found.runs):
            key = (past.place.state, past.row.run)
            is_news = seen.get(key) != past.status and not (is_first and past.status != "running")
            seen[key] = past.status
            if not is_news:
                continue
            if as_json:
                console.say_json(past.as_json())
            else:
                words = done(past)
                after = f": {words}" if words else ""
                console.say(f"{past.row.run} of {past.row.pipeline} {past.status}{after}")
        is_first = False
        time.sleep(EVERY_S)


def logs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The latest, by default.")
    ] = None,
    places: _Places = None,
    failed: _Failed = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one page of HTML instead.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Show what a run did: its items, its failures, its notes."""
    past = _one(run, places)
    if report is not None:
        from paddock.runner.pictures.reported import write_story

        from .targets import writable

        write_story(past, writable(report, "run.html"))
        console.tell(f"Wrote run '{past.row.run}' to {console.clean(str(report))}.")
        return DONE
    if follow:
        return _follow(past, failed=failed, as_json=as_json)
    from paddock.runner.history.tail import Tail

    from .history_text import is_bad

    lines = [told for told in Tail(past.journal).more() if not failed or is_bad(told)]
    if as_json:
        items = [] if past.journal.exists() else [_item(row) for row in _items(past, failed)]
        console.say_json({"run": past.as_json(), "lines": lines or items})
        return DONE
    _say(past, lines, failed=failed)
    return DONE


def _say(past: Past, lines: list[dict[str, Any]], *, failed: bool) -> None:
    from .history_text import head, item, line

    console.say(head(past, time.time()))
    if past.journal.exists():
        for told in lines:
            console.say(line(told))
    else:
        console.tell("Its log is gone; these are the items that it was the last to do:")
        for row in _items(past, failed):
            console.say(item(row))
    if past.traces.exists():
        console.say(f"Details of unexpected errors: {past.traces}")


def _follow(past: Past, *, failed: bool, as_json: bool) -> int:
    """Show lines as they come, until the run has ended or its process is gone."""
    from .history_text import head

    if not as_json:
        console.say(head(past, time.time()))
    try:
        for told in _coming(past):
            _say_line(told, failed=failed, as_json=as_json)
    except KeyboardInterrupt:
        pass
    return DONE


def _coming(past: Past) -> Iterator[dict[str, Any]]:
    from paddock.runner.history.past import named
    from paddock.runner.history.tail import Tail

    tail = Tail(past.journal)
    while True:
        # Asked before the lines are read: what it wrote before it ended is read all the same.
        now = next(iter(named([past.place], past.row.run).runs), None)
        yield from tail.more()
        if now is None or now.status != "running":
            return
        time.sleep(FOLLOW_S)


def _say_line(told: dict[str, Any], *, failed: bool, as_json: bool) -> None:
    from .history_text import is_bad, line

    if failed and not is_bad(told):
        return
    if as_json:
        console.say_json(told)
    else:
        console.say(line(told))


def _items(past: Past, failed: bool) -> list[Any]:
    from paddock.runner.history.past import items

    bad = ("failed", "quarantined")
    return [row for row in items(past) if not failed or row.entry.state in bad]


def _item(row: Any) -> dict[str, Any]:
    entry = row.entry
    told = {"event": "item", "step": row.step, "key": entry.key, "state": entry.state}
    return {**told, "seconds": entry.seconds, "calls": entry.calls, "error": entry.error}


def _one(run: str | None, places: list[str] | None) -> Past:
    """Find a run by its name, or the latest one.

    Raises:
        CommandError: there is none.
    """
    from paddock.runner.history.past import history, named, names

    # `paddock logs news.yaml` means the latest run of that pipeline.
    if run is not None and places is None and _is_a_place(run):
        places, run = [run], None
    where = _places(places)
    found = named(where, run) if run is not None else history(where, limit=1)
    if found.faults and not found.runs:
        raise CommandError("\n".join(found.faults))
    for fault in found.faults:
        console.tell(fault)
    if found.runs:
        if len(found.runs) > 1:
            others = ", ".join(str(past.place.folder) for past in found.runs[1:])
            console.tell(f"There are others of this name: {others}")
        return found.runs[0]
    if run is None:
        raise CommandError("There is no run yet.")
    near = difflib.get_close_matches(run, names(where), n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "`paddock runs` lists those there are."
    raise CommandError(f"There is no run '{run}' here.\n  {hint}")


def _is_a_place(text: str) -> bool:
    return ("/" in text or text in (".", "..") or "." in text) and Path(text).exists()


def _places(given: list[str] | None) -> list[Place]:
    """Give the ledgers that are meant.

    Raises:
        CommandError: there is no such file or folder.
    """
    from paddock.runner.history.places import places

    for text in given or ():
        if not Path(text).exists():
            raise CommandError(f"There is no file or folder '{text}'.")
    return places(Path(text) for text in given or ["."])
