"""The command `clean`: let go what nobody needs any more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, FAILED, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.runner.ledger.retention import Swept


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("clean")(guarded(clean))


def clean(
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FOLDER]...", help="Pipelines; here and below, by default."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Such as 30d; else as `keep_runs` and `keep_calls` are set."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> int:
    """Remove old runs, logs and replies that nothing needs; what is fresh stays fresh."""
    from paddock.runner.history import tidy
    from paddock.runner.history.places import places as ledgers

    age_s = _age(older_than)
    for text in places or ():
        if not Path(text).exists():
            raise CommandError(f"There is no file or folder '{text}'.")
    found = ledgers(Path(text) for text in places or ["."])
    done = tidy.clean(found, older_than_s=age_s, is_dry=dry_run)
    n_tracked, faults = _tracked(age_s, is_dry=dry_run)
    faults = (*done.faults, *faults)
    if as_json:
        told = {**done.swept.as_json(), "tracked_runs": n_tracked}
        console.say_json({"ok": not faults, **told, "faults": list(faults)})
    else:
        for fault in faults:
            console.tell(fault)
        console.say(summary(done.swept, len(found), n_tracked, is_dry=dry_run))
    return FAILED if faults else DONE


def _tracked(age_s: float | None, *, is_dry: bool) -> tuple[int, tuple[str, ...]]:
    """Let go the runs that this machine's own Prefect server shows, where it runs.

    Another's server, which PREFECT_API_URL may name, is not ours to clean.
    """
    from paddock.runner.history.tracking import forget
    from paddock.runner.prefect_auth import own_headers
    from paddock.runner.residence.find import everyone
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    before = time.time() - (settings.unattended.keep_tracking_s if age_s is None else age_s)
    n_runs = 0
    faults: list[str] = []
    for url in {one.prefect_api_url for one in everyone(settings.state_dir)} - {""}:
        try:
            n_runs += forget(url, before, own_headers(settings.state_dir), is_dry=is_dry)
        except OSError as error:
            faults.append(f"{error.filename}: {error.strerror}.")
    return n_runs, tuple(faults)


def _age(text: str | None) -> float | None:
    from paddock.runner.values import BadValue, seconds

    if text is None:
        return None
    try:
        return float(seconds(text))
    except BadValue as error:
        remedy = "Write it as 30d or 12h."
        raise CommandError(f"--older-than: '{text}' {error.problem}.\n  {remedy}") from None


def summary(swept: Swept, n_ledgers: int, n_tracked: int, *, is_dry: bool) -> str:
    """Say what went, or would."""
    counted = (
        (swept.runs, "run"), (swept.logs, "log"), (n_tracked, "run in Prefect"),
        (swept.items, "entry of documents long gone"), (swept.objects, "object"),
        (swept.leftovers, "leftover"),
    )  # fmt: skip
    parts = [_counted(n, noun) for n, noun in counted if n]
    if swept.calls:
        parts.insert(0, f"{swept.calls:,} {'reply' if swept.calls == 1 else 'replies'}")
    where = console.counted(n_ledgers, "ledger")
    if not parts:
        return f"Nothing to remove in {where}."
    verb = "Would remove" if is_dry else "Removed"
    return f"{verb} {', '.join(parts)} from {where} ({console.size(swept.n_bytes)})."


def _counted(n: int, noun: str) -> str:
    head, space, rest = noun.partition(" ")
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {'entries' if head == 'entry' else head + 's'}{space}{rest}"
