"""Command `paddock clean`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.system import units
from paddock.engine.system.disk_cache import kept_image_files
from paddock.engine.system.text import counted, listed, shell_command
from paddock.pipelines.errors import did_you_mean
from paddock.runner.cli.arguments import JsonOption, argument, existing_paths, flag, option
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError
from paddock.runner.config.setting_values import BadValue, parse_seconds
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.entries import stored_path
from paddock.runner.ledger.forgetting import DocumentItem, Forgetting, document_items, forget
from paddock.runner.ledger.retention import SweepResult, clean_ledgers
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def clean(
    places: list[str] | None = argument("Pipelines; here and below by default.", metavar="FOLDER"),
    older_than: str | None = option(
        "Such as 30d; by default `keep_runs` and `keep_calls`.", metavar="AGE"
    ),
    dry_run: bool = flag("Only show what would be removed.", "--dry-run"),
    forgotten: str | None = option(
        "Remove all rows on one document: its decisions with their rules, results, replies.",
        "--forget", metavar="NAME",
    ),
    yes: bool = flag("Forget it without a question.", "--yes"),
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    if forgotten is not None:
        if older_than is not None or as_json:
            raise CommandError("`--forget` goes with `--dry-run` and `--yes` alone.")
        ledgers = find_ledgers(existing_paths(places) or [Path()], printing.print_err)
        return _forget(ledgers, forgotten, asks=not yes, is_dry=dry_run)
    try:
        age_s = None if older_than is None else parse_seconds(older_than)
    except BadValue as error:
        remedy = "Write it as 30d or 12h."
        raise CommandError(f"--older-than: '{older_than}' {error.problem}.\n  {remedy}") from None
    left_out: list[str] = []
    found = find_ledgers(existing_paths(places) or [Path()], left_out.append)
    done = clean_ledgers(found, older_than_s=age_s, is_dry=dry_run)
    left_out += done.left_out
    pool = read_settings(Path.cwd()).pool
    finder = ModelFinder(pool.models_dir, pool.cache_dir)
    copies = () if dry_run else tuple(finder.forget_copies_of_gone_models())
    images = kept_image_files(pool.cache_dir)
    n_images, n_image_bytes = images.remove(unused_s=age_s, is_dry=dry_run)
    if as_json:
        removed = {**done.swept.as_json(), "copies": copies}
        removed |= {"images": n_images, "left_out": left_out}
        removed |= {"files": done.swept.files} if dry_run else {}
        printing.print_json({"ok": not done.faults, **removed, "faults": list(done.faults)})
    else:
        for text in (*left_out, *done.faults):
            printing.print_err(text)
        for name in done.swept.files if dry_run else ():
            printing.print_err(printing.printable_line(f"Would remove {name}"))
        for name in copies:
            printing.print_err(f"Removed the tuned copy of {name}: gone, or of an earlier version.")
        if n_images:
            verb = "Would remove" if dry_run else "Removed"
            what = f"{counted(n_images, 'image')} as a projector computed them"
            printing.print_err(f"{verb} {what}, {units.size(n_image_bytes)}.")
        printing.print_out(clean_summary(done.swept, len(found), is_dry=dry_run))
    return FAILED if done.faults else DONE


def _forget(places: Sequence[LedgerFolder], name: str, *, asks: bool, is_dry: bool) -> int:
    known = list[tuple[tuple[LedgerFolder, str, str], DocumentItem]]()
    for place in places:
        with open_for_reading(place) as ledger:
            items = document_items(ledger, place.file)
        known += (((place, item.pipeline, item.content), item) for item in items)
    path = Path(os.path.normpath(Path.cwd() / name))
    named = {
        document: item
        for document, item in known
        if not {name, stored_path(path, document[0].folder)}.isdisjoint(item.names)
    }
    if not named:
        remedy = did_you_mean(name, sorted({n for _, item in known for n in item.names[:-1]}))
        raise CommandError(f"No document is known here as '{name}'.\n  {remedy}")
    if len(named) > 1:
        shown = (
            f"'{item.names[0]}' or '{item.names[-1]}' of {place.folder / file}"
            for (place, file, _), item in named.items()
        )
        raise CommandError(
            f"{len(named)} documents are known as '{name}': {listed(sorted(shown))}.\n  Name one "
            "as it is shown, and its pipeline: `paddock clean FILE.yaml --forget NAME`."
        )
    ((place, file, content),) = named
    items = [item for document, item in known if document == (place, file, content)]
    with open_for_reading(place) as ledger:
        forgetting = Forgetting.of(ledger, items)
    goes = [f"{'decision' if r.by else 'question'} {r.id}" for r in forgetting.reviews]
    goes.append("results, replies, texts, and rules that were made of it")
    lies_at = [*dict.fromkeys(f"'{item.names[0]}'" for item in items)]
    text = (
        f"What is known of {listed(lies_at, 20)} ({file}): {listed(goes, 20)}. Stays: the document "
        "itself; its name; backups; its rows in stores, and outputs of others, until the next run; "
        "logs, and what was made of its results, until `paddock clean --older-than 0s` a day after "
        "that run."
    )
    if made := forgetting.outputs:
        text += f" So do files that were made of it: {listed(made, 20)}. When it is in no scanned "
        prune = shell_command("paddock", "run", place.folder / file, "--prune")
        text += f"folder, `{prune}` removes those not edited."
    printing.print_out(printing.printable_line(text))
    if is_dry:
        return DONE
    if asks and not (sys.stdin.isatty() and typer.confirm("Forget it?", err=True)):
        raise CommandError("Nothing was removed.\n  `--yes` does this without a question.")
    forget(place, items)
    printing.print_out("Forgotten.")
    return DONE


def clean_summary(swept: SweepResult, n_ledgers: int, *, is_dry: bool) -> str:
    removed = (
        (swept.calls, "reply", "replies"), (swept.runs, "run", ""), (swept.logs, "log", ""),
        (swept.items, "entry of deleted documents", "entries of deleted documents"),
        (swept.compared, "entry of comparisons", "entries of comparisons"),
        (swept.objects, "object", ""), (swept.leftovers, "leftover", ""),
    )  # fmt: skip
    parts = [counted(*each) for each in removed if each[0]]
    where = counted(n_ledgers, "ledger")
    if not parts:
        return f"Nothing to remove in {where}."
    verb = "Would remove" if is_dry else "Removed"
    return f"{verb} {', '.join(parts)} from {where} ({units.size(swept.n_bytes)})."
