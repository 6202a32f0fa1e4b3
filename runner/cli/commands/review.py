"""`paddock review` and `console`: decide on answers that wait, by a page or files; all pages."""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.engine.system import files, units
from paddock.engine.system.records import Struct
from paddock.engine.system.text import cell_text, counted, listed, one_line
from paddock.runner.cli.arguments import (
    HERE,
    JsonOption,
    PermissionsOption,
    argument,
    existing_folder,
    flag,
    given_settings,
    option,
    require_writable,
)
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError
from paddock.runner.cli.pipeline_or_model import named_file
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.reviews import DecisionRefused, Review
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.progress import printing
from paddock.runner.progress.command_logs import prepare_logging
from paddock.runner.progress.reasons import quoted
from paddock.runner.review.answer_fields import shown_item
from paddock.runner.review.csv_and_gold_data import (
    SheetDecision,
    SheetFault,
    UnreadableSheet,
    check_decisions,
    gold_jsonl,
    read_decided,
    read_sheet,
    review_json,
    reviews_csv,
)
from paddock.runner.review.decisions import LedgerReviews, ToAcceptTogether
from paddock.runner.review.taught_rules import checks_to_accept, taught_rules
from paddock.runner.settings import read_settings
from paddock.steps.readers.text_encoding import NotText, UnclearEncoding, decode_text
from paddock.steps.tables.row_formats import CSV, JSONL

LIST_HEAD = ("ID", "ITEM", "STEP", "PIPELINE", "ASKED", "LEFT", "FOR", "WHY")
MAX_ITEM_CHARS = 48
MAX_SHEET_BYTES = 64 * 1024 * 1024
NOTHING_WAITS = "Nothing waits for review."
NO_RULE_LINE = "{id} ({item}) makes no rule: {text}."
NO_RULES = "No decision makes a rule yet."
NOTHING_IS_CHOSEN = "Nothing waits that `--least` or `--filter` chooses; `--list` shows all."
STANDARD_STREAM = "-"
_GOLD = "jsonl"
DeciderOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who decides; by default the user.")
]
NoBrowserOption = Annotated[
    bool, typer.Option("--no-browser", help="Print the page's address and open nothing.")
]
PortOption = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Of the page; by default the folder's own.")
]


@dataclass(frozen=True, slots=True)
class ReviewFlags:
    file: str = argument(
        "A pipeline, or its folder; by default here.", default=HERE, metavar="FILE"
    )
    only_list: bool = flag("Only list what waits.", "--list")
    accept_all: bool = flag("Accept all that `--list` shows, in one decision.", "--accept-all")
    shows_rules: bool = flag("Show the rules that decisions make; change nothing.", "--rules")
    least: float | None = option(
        "Only answers whose fields all have this confidence.", min=0.0, max=1.0, metavar="P"
    )
    named: str | None = option("Only items with this in the name.", "--filter", metavar="TEXT")
    undone: str | None = option("Undo a decision, on one or on many.", "--undo", metavar="ID")
    export: str | None = option(
        "Write what waits as CSV; with .jsonl or jsonl what was decided, as gold data.",
        metavar="FILE|-|jsonl",
    )
    decided: bool = flag(
        "Export what was decided as CSV: a new value there is a new decision.", "--decided"
    )
    imported: str | None = option(
        "Take the decisions of such a file.", "--import", metavar="FILE.csv|FILE.jsonl|-"
    )
    skip_bad: bool = flag("Import the sound decisions, although others are not.", "--skip-bad")
    by: DeciderOption = None
    no_browser: NoBrowserOption = False
    port: PortOption = None
    as_json: JsonOption = False

    @property
    def is_narrowed(self) -> bool:
        return self.least is not None or self.named is not None

    @property
    def nothing_text(self) -> str:
        return NOTHING_IS_CHOSEN if self.is_narrowed else NOTHING_WAITS


class ReviewAction(Enum):
    SERVE = auto()
    LIST = auto()
    SHOW_RULES = auto()
    EXPORT_GOLD = auto()
    EXPORT_WAITING = auto()
    ACCEPT_ALL = auto()
    UNDO = auto()
    IMPORT = auto()


def review(flags: ReviewFlags) -> int:
    """Decide on the answers that wait for review.

    Opens a page on this machine. The next run continues what was decided, without a model call.
    """
    action = _chosen_action(flags)
    file_or_id = flags.export or flags.imported or flags.undone or ""  # of the one action
    place = _ledger_with_reviews(flags.file)
    match action:
        case ReviewAction.LIST:
            return _list(place, flags)
        case ReviewAction.SHOW_RULES:
            return _show_rules(place, as_json=flags.as_json)
        case ReviewAction.EXPORT_GOLD | ReviewAction.EXPORT_WAITING:
            is_gold = action is ReviewAction.EXPORT_GOLD
            return _export(place, file_or_id, is_gold=is_gold, is_decided=flags.decided)
    with Ledger(place.state, url=read_settings(place.folder).ledger_url) as ledger:
        opened = _ReviewSession(place, LedgerReviews(ledger), flags.by or _user_name())
        match action:
            case ReviewAction.ACCEPT_ALL:
                return _accept_all(opened, flags)
            case ReviewAction.UNDO:
                return _undo(opened, file_or_id)
            case ReviewAction.IMPORT:
                skip_bad = flags.skip_bad
                return _import(opened, file_or_id, skip_bad=skip_bad, as_json=flags.as_json)
            case ReviewAction.SERVE:
                return _serve(opened, flags.port, opens_browser=not flags.no_browser)


def _chosen_action(flags: ReviewFlags) -> ReviewAction:
    """Return the one action of the options.

    Raises:
        CommandError: they name several, or one that lacks another option.
    """
    named = {
        ReviewAction.LIST: flags.only_list,
        ReviewAction.SHOW_RULES: flags.shows_rules,
        ReviewAction.ACCEPT_ALL: flags.accept_all,
        ReviewAction.UNDO: flags.undone is not None,
        ReviewAction.IMPORT: flags.imported is not None,
    }
    if flags.export is not None:
        is_gold = flags.export == _GOLD or flags.export.endswith(JSONL.suffixes)
        named[ReviewAction.EXPORT_GOLD if is_gold else ReviewAction.EXPORT_WAITING] = True
    actions = [action for action, is_named in named.items() if is_named]
    if len(actions) > 1:
        raise CommandError(
            "Use one of `--list`, `--rules`, `--accept-all`, `--undo`, `--export` and `--import`."
        )
    action = actions[0] if actions else ReviewAction.SERVE
    if flags.is_narrowed and action not in (ReviewAction.ACCEPT_ALL, ReviewAction.LIST):
        raise CommandError("`--least` and `--filter` belong to `--list` and `--accept-all`.")
    if flags.decided and action is not ReviewAction.EXPORT_WAITING:
        raise CommandError("`--decided` belongs to `--export FILE.csv`.")
    if flags.skip_bad and action is not ReviewAction.IMPORT:
        raise CommandError("`--skip-bad` belongs to `--import`.")
    if flags.as_json and action is ReviewAction.UNDO:
        raise CommandError("`--undo` prints no JSON. Leave out `--json`.")
    return ReviewAction.LIST if flags.as_json and action is ReviewAction.SERVE else action


def _ledger_with_reviews(text: str) -> LedgerFolder:
    """Return the ledger of a pipeline, or the only one below a folder that has reviews."""
    path = Path(text) if Path(text).is_dir() else named_file(text)
    if path is None:
        raise CommandError(f"There is no file or folder '{text}'.")
    places = find_ledgers([path], printing.print_err)
    found = [place for place in places if place.state.is_dir()]
    if not found:
        raise CommandError(
            f"No run has been recorded for '{text}', so nothing waits for review.\n"
            f"  Run a pipeline with `review` first: `paddock run {shlex.quote(text)}`."
        )
    if len(found) > 1:
        asking: list[LedgerFolder] = []
        for place in found:
            # An error is reported where it is the one that is asked for.
            with suppress(LedgerError), open_for_reading(place) as ledger:
                if LedgerReviews(ledger).waiting() or LedgerReviews(ledger).decided():
                    asking.append(place)
        found = asking or found[:1]
    if len(found) > 1:
        names = ", ".join(f"'{os.path.relpath(place.folder)}'" for place in found[:5])
        raise CommandError(
            f"{len(found)} folders have reviews: {names}.\n  Name one of them: `paddock review "
            f"{shlex.quote(os.path.relpath(found[0].folder))}`."
        )
    return found[0]


class _ReviewSession(Struct, frozen=True):
    place: LedgerFolder
    reviews: LedgerReviews
    by: str

    def waiting(self, *, is_whole: bool = False) -> list[Review]:
        return _of_file(self.place, self.reviews.waiting(is_whole=is_whole))


def _of_file(place: LedgerFolder, reviews: Sequence[Review]) -> list[Review]:
    """Return the reviews of the named pipeline; where it has none, note others without a file."""
    found = [review for review in reviews if place.file in (None, review.subject.pipeline)]
    names = sorted({review.subject.pipeline for review in reviews})
    gone = [name for name in names if not (place.folder / name).exists()]
    if gone and not found:
        again = f"paddock run {shlex.quote(place.file or '')}"
        printing.print_err(
            f"'{place.file}' has no review; there are some of {listed(quoted(gone), 3)}, without a "
            f"file.\n  If that was renamed, run it once: `{again}`."
        )
    return found


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without an entry
        raise CommandError("This user has no name.\n  Say who decides: `--as NAME`.") from None


def _shown(flags: ReviewFlags, reviews: Sequence[Review]) -> list[Review]:
    """Return the reviews that the options choose, as the page's filters do."""
    filter_text = (flags.named or "").strip().lower()
    found = []
    for review in reviews:
        least = review.subject.least
        is_sure = flags.least is None or (least is not None and least >= flags.least)
        names = (review.item, review.step, review.subject.pipeline)
        if is_sure and filter_text in " ".join(map(str, names)).lower():
            found.append(review)
    return found


def _accept_all(opened: _ReviewSession, flags: ReviewFlags) -> int:
    shown = _shown(flags, opened.waiting())
    if not shown:
        printing.print_err(flags.nothing_text)
        return DONE
    to_accept = ToAcceptTogether()
    for review in shown:
        if checks := checks_to_accept(opened.reviews, review.id):
            to_accept.check(*checks)
    rows = [(review.id, review.question) for review in shown]
    done = to_accept.enter(opened.reviews, rows, opened.by)
    if flags.as_json:
        printing.print_json(
            {"decision": done.id, "accepted": len(done.reviews), "left": list(done.left.values())}
        )
        return DONE if done.reviews else FAILED
    for why in done.left.values():
        printing.print_err(printing.printable_line(f"left: {why}"))
    if not done.reviews:
        printing.print_out("Nothing was accepted.")
        return FAILED
    printing.print_out(
        f"{counted(len(done.reviews), 'answer')} accepted as one decision: "
        f"`paddock review --undo {done.id}` takes it back. {_next_text(opened)}"
    )
    return DONE


def _undo(opened: _ReviewSession, id_: str) -> int:
    try:
        if any(review.together == id_ for review in opened.reviews.decided()):
            n = len(opened.reviews.undo_together(id_, opened.by))
        else:
            opened.reviews.undo(id_, opened.by)
            n = 1
    except DecisionRefused as error:
        raise CommandError(str(error)) from error
    printing.print_out(f"Undone: {counted(n, 'answer waits', 'answers wait')} again.")
    return DONE


def _list(place: LedgerFolder, flags: ReviewFlags) -> int:
    with open_for_reading(place) as ledger:
        reviews = LedgerReviews(ledger).waiting(is_whole=flags.as_json)
        waiting = _shown(flags, _of_file(place, reviews))
    if flags.as_json:
        printing.print_json({"waiting": [review_json(review) for review in waiting]})
    elif waiting:
        now = time.time()
        printing.print_out(printing.table([LIST_HEAD, *(_list_row(row, now) for row in waiting)]))
    else:
        printing.print_err(flags.nothing_text)
    return DONE


def _show_rules(place: LedgerFolder, *, as_json: bool) -> int:
    with open_for_reading(place) as ledger:
        decided = {r.id: r for r in _of_file(place, LedgerReviews(ledger).standing())}
        taught = taught_rules(ledger, decided)
    rules, none = taught.rules, taught.without_rule
    if as_json:
        checked = dict(taught.checked)
        printing.print_json({"rules": rules, "without_rule": none, "checked": checked})
        return DONE
    lines = [line for rule in rules for line in _rule_lines(rule)]
    lines += [NO_RULE_LINE.format_map(row) for row in none]
    if taught.checked["unasked"]:
        seen = (
            "Of {unasked:,} read without a question {looked_at:,} were looked at, {wrong:,} wrong."
        )
        lines.append(seen.format_map(taught.checked))
    for line in lines or [NO_RULES]:
        printing.print_out(printing.printable_line(line))
    return DONE


def _rule_lines(rule: Mapping[str, Any]) -> Iterator[str]:
    used = f"used for {counted(rule['documents'], 'document')}"
    yield f"{', '.join(rule['sender'])} ({rule['pipeline']}, step '{rule['step']}'; {used})"
    yield f"  layout: {one_line(', '.join(rule['layout']), MAX_ITEM_CHARS)}"
    for name, readings in rule["fields"].items():
        for row in readings:
            always = f"always {cell_text(row['value']) or 'empty'}"
            how = f"behind '{row['label']}'" if row["label"] else always
            yield f"  {name}: {how}, by {', '.join(row['decisions'])}"
    if rule["open"]:
        yield f"  open: {', '.join(rule['open'])}"
    for id_, text, mark in rule["marks"]:
        yield f"  {mark}: “{one_line(text, MAX_ITEM_CHARS)}”, by {id_}"
    for row in rule["decisions"]:
        at = units.local_time(datetime.fromisoformat(row["at"]).timestamp())
        yield f"  decided: {row['id']} ({row['item']}), {row['by']}, {at}"


def _list_row(review: Review, now: float) -> tuple[str, ...]:
    left_s = None if review.expires_at is None else review.expires_at - now
    left = "" if left_s is None else units.duration(left_s) if left_s > 0 else "over"
    is_held = review.lease_by is not None and (review.lease_until or 0) > now
    notes = [one_line(why, MAX_ITEM_CHARS) for why in review.subject.due]
    notes += [f"{review.lease_by} looks at it"] if is_held else []
    notes += ["asked again: the document or the answer changed"] if review.earlier else []
    return (
        review.id,
        one_line(shown_item(review), MAX_ITEM_CHARS),
        review.step,
        review.subject.pipeline,
        units.ago(now - review.asked_at),
        left,
        ", ".join(review.subject.by),
        "; ".join(notes),
    )


def _export(place: LedgerFolder, target: str, *, is_gold: bool, is_decided: bool) -> int:
    path = None if target in (STANDARD_STREAM, "csv", _GOLD) else Path(target)
    if path is not None:
        if not is_gold and path.suffix not in CSV.suffixes:
            raise CommandError(
                f"'{target}' is neither a CSV nor JSON lines.\n  Write `--export reviews.csv` for "
                f"what waits, `--export gold.jsonl` for what was decided, or `--export -`."
            )
        require_writable(path, "gold.jsonl" if is_gold else "reviews.csv")
    with open_for_reading(place) as ledger:
        reviews = LedgerReviews(ledger)
        is_decided |= is_gold
        found = reviews.decided(is_whole=True) if is_decided else reviews.waiting(is_whole=True)
        found = _of_file(place, found)
    text = gold_jsonl(reversed(found)) if is_gold else reviews_csv(found)
    if path is None:
        printing.write_data(text)
    else:
        files.write_output(path, text)
    what = counted(len(found), "decision" if is_decided else "waiting answer")
    printing.print_err(f"{what} → {printing.printable_line(target)}.")
    return DONE


def _import(opened: _ReviewSession, source: str, *, skip_bad: bool, as_json: bool) -> int:
    """Take the decisions of a CSV or of JSON lines: all of them, or, if one is faulty, none."""
    shown = "standard input" if source == STANDARD_STREAM else f"'{source}'"
    try:
        text = _sheet_text(source, shown)
        read = read_decided if text.lstrip().startswith("{") else read_sheet
        decisions, unreadable = read(text)
    except UnreadableSheet as error:
        raise CommandError(f"{shown} {error}") from error
    sound, faults = _checked(opened, decisions, unreadable)
    taken = 0
    for decision in sound if skip_bad or not faults else ():
        try:
            opened.reviews.enter(decision.id, decision.given(opened.by))
            taken += 1
        except DecisionRefused as error:  # another person has decided since the check
            faults.append(SheetFault(decision.line, str(error), decision.id))
    if as_json:
        fault_rows = [{"line": fault.line, "message": fault.message} for fault in faults]
        printing.print_json({"ok": not faults, "decided": taken, "faults": fault_rows})
    else:
        for fault in faults:
            printing.print_err(printing.printable_line(f"{source}: {fault}"))
        sound_ids = {decision.id for decision in decisions} - {fault.id for fault in faults}
        printing.print_out(_import_summary(opened, taken, len(sound_ids) - taken, faults, skip_bad))
    return FAILED if faults else DONE


def _checked(
    opened: _ReviewSession, decisions: Sequence[SheetDecision], unreadable: Sequence[SheetFault]
) -> tuple[list[SheetDecision], list[SheetFault]]:
    """Return the sound decisions of a sheet, and every fault by its line."""
    reviews: dict[str, Review | None] = {decision.id: None for decision in decisions}
    for id_ in reviews:
        with suppress(DecisionRefused):
            reviews[id_] = opened.reviews.get(id_)

    def check(decision: SheetDecision) -> None:
        opened.reviews.check(decision.id, decision.given(opened.by))

    sound, faults = check_decisions(decisions, reviews, check)
    wrong = {fault.id for fault in unreadable}
    lines = {fault.line for fault in unreadable}
    others = (fault for fault in faults if fault.line not in lines)
    found = sorted((*unreadable, *others), key=lambda fault: fault.line)
    return [decision for decision in sound if decision.id not in wrong], found


def _sheet_text(source: str, shown: str) -> str:
    try:
        if source == STANDARD_STREAM:
            data = sys.stdin.buffer.read(MAX_SHEET_BYTES + 1)
        else:
            with Path(source).open("rb") as sheet:
                data = sheet.read(MAX_SHEET_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{shown} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_SHEET_BYTES:
        raise CommandError(f"{shown} has more than {units.size(MAX_SHEET_BYTES)}.")
    try:
        return decode_text(data).text
    except UnclearEncoding as error:
        raise CommandError(f"{shown}: {error}.\n  Save the sheet as CSV in UTF-8.") from error
    except NotText as error:
        remedy = "Save the sheet as CSV." if data.startswith(b"PK") else "Name a CSV."
        raise CommandError(f"{shown} is not text: {error}.\n  {remedy}") from error


def _import_summary(
    opened: _ReviewSession, n_taken: int, n_known: int, faults: Sequence[SheetFault], skip_bad: bool
) -> str:
    if faults and not n_taken and not (skip_bad and n_known > 0):
        pronoun, rest = ("it", "what is sound") if len(faults) == 1 else ("them", "the sound ones")
        remedy = f" Correct {pronoun}, or take {rest} with `--skip-bad`." if not skip_bad else ""
        return f"Nothing was decided: {counted(len(faults), 'fault')}.{remedy}"
    if not n_taken and n_known <= 0:
        return "No row has a decision; nothing was decided."
    known = f", {counted(n_known, 'was', 'were')} decided so before" if n_known > 0 else ""
    return f"{counted(n_taken, 'decision')} taken{known}. {_next_text(opened)}"


def _serve(opened: _ReviewSession, port: int | None, *, opens_browser: bool) -> int:
    def tell(address: str, token: str) -> None:
        n = len(opened.waiting())
        printing.print_err(f"{waiting_text(n)} Ctrl-C ends the page.")
        _print_address(address, token)

    n_decided = _serve_pages(
        opened.place.folder,
        opened.reviews,
        by=opened.by,
        port=port,
        opens_browser=opens_browser,
        is_shown=lambda review: opened.place.file in (None, review.subject.pipeline),
        tell=tell,
    )
    printing.print_err(
        f"{counted(n_decided, 'decision')} here. {waiting_text(len(opened.waiting()))}"
    )
    if n_decided:
        printing.print_err(_next_text(opened))
    return DONE


def _serve_pages(
    folder: Path,
    reviews: LedgerReviews | None,
    flags: Mapping[str, object] | None = None,
    **options: Any,
) -> int:
    """Serve the console and the review page until Ctrl-C; return how many decisions were made.

    `reviews`: only these; None: of all ledgers below the folder.
    """
    from paddock.runner.cli.console_serving import serve_console

    settings = read_settings(folder, flags=flags)
    prepare_logging(settings)
    return asyncio.run(serve_console(folder, settings, reviews, options, flags))


def show_console(
    folder: str = argument("Pipelines; here and below by default.", default=HERE, metavar="FOLDER"),
    by: DeciderOption = None,
    no_browser: NoBrowserOption = False,
    port: PortOption = None,
    allow: PermissionsOption = None,
) -> int:
    """Show pipelines, runs, what waits for review, models and settings as pages.

    They are on this machine, until Ctrl-C, and need a token, which the browser is handed. Runs are
    started and stopped there; what a file reaches besides files and models needs `paddock allow`.
    """
    path = existing_folder(folder, "console")

    def tell(address: str, token: str) -> None:
        _print_address(address, token)
        printing.print_err("Ctrl-C ends it.")

    _serve_pages(
        path.resolve(),
        None,
        given_settings(allow=allow),
        by=by or _user_name(),
        port=port,
        opens_browser=not no_browser,
        tell=tell,
    )
    return DONE


def _print_address(address: str, token: str) -> None:
    """Print where the pages are, and the token on a line of its own.

    It is not in the address: a terminal that opens it would put it into the process list.
    """
    printing.print_out(address)
    printing.print_err(f"It asks for this token where it was not opened for you: {token}")


def waiting_text(n: int) -> str:
    """Return how many answers wait.

    >>> waiting_text(0), waiting_text(1), waiting_text(7000)
    ('Nothing waits for review.', '1 answer waits for review.', '7,000 answers wait for review.')
    """
    if not n:
        return NOTHING_WAITS
    return f"{counted(n, 'answer')} {'waits' if n == 1 else 'wait'} for review."


def _next_text(opened: _ReviewSession) -> str:
    where = opened.place.folder / (opened.place.file or "")
    near = shlex.quote(os.path.relpath(where))
    command = "paddock run" if near == "." else f"paddock run {near}"
    return f"`{command}` continues with what was decided."
