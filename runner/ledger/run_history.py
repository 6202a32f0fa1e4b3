"""Run history: past and present runs of several ledgers. Read-only."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.units import iso_time
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.progress.report import outcome_of
from paddock.runner.settings import read_settings

from .entries import ItemRow, LedgerError, RunRow, whole_file
from .ledger import Ledger
from .own_state import LEDGER_FILE
from .run_store import DIED, RunStore, run_status


class LedgerFolder(Struct, frozen=True):
    state: Path
    """The `.paddock` folder."""
    file: str | None = None
    """Only the runs of this pipeline file; None: of all."""

    @property
    def folder(self) -> Path:
        return self.state.parent


def is_emptied(place: LedgerFolder) -> bool:
    """Return whether a ledger's file holds nothing, where runs left their journals."""
    file = place.state / LEDGER_FILE
    try:
        return not file.stat().st_size and any((place.state / "runs").glob("*.jsonl"))
    except OSError:
        return False


BAD_STATUSES = ("failed", "quarantined", "interrupted", "budget", "suspended", DIED)
MAX_RUNS_SEARCHED = 100_000  # if only some of them are wanted


class PastRun(Struct, frozen=True):
    place: LedgerFolder
    row: RunRow
    status: str
    """As recorded, or `died`."""

    @property
    def file(self) -> Path:
        """Its pipeline's file; of a variant, that of the whole pipeline."""
        return self.place.folder / whole_file(self.row.file)

    @property
    def journal(self) -> Path:
        return self.place.state / "runs" / f"{self.row.run}.jsonl"

    @property
    def traces(self) -> Path:
        return self.place.state / "runs" / f"{self.row.run}.log"

    @property
    def summary(self) -> Mapping[str, Any]:
        return dict(json.loads(self.row.summary or "{}"))

    @property
    def outcome(self) -> str:
        return outcome_of(self.status, self.summary.get("quarantine"))

    @property
    def message(self) -> str | None:
        if self.status == DIED:
            return "Its process is gone; the same command continues."
        message = self.row.message or self.summary.get("message")
        return str(message) if message else None

    def as_json(self) -> dict[str, Any]:
        row, summary = self.row, self.summary
        return {
            "run": row.run,
            "pipeline": row.pipeline,
            "file": str(self.file),
            "status": self.status,
            "trigger": row.trigger,
            "host": row.host,
            "pid": row.pid,
            "attempt": row.attempt,
            "started": iso_time(row.started),
            "ended": None if row.ended is None else iso_time(row.ended),
            "seconds": summary.get("seconds"),
            "counts": summary.get("counts"),
            "calls": summary.get("calls"),
            "tokens": summary.get("tokens"),
            "message": self.message,
        }


class RunHistory(Struct, frozen=True):
    """Runs, and in `faults` errors of ledgers that could not be read."""

    runs: tuple[PastRun, ...]
    faults: tuple[str, ...] = ()
    has_wrong_settings: bool = False
    """Whether one of the faults is of a folder's settings."""
    n_all: int = 0


def recent_runs(
    places: Iterable[LedgerFolder],
    *,
    limit: int,
    failed_only: bool = False,
    before: float | None = None,
) -> RunHistory:
    n_all = 0

    def read(place: LedgerFolder, ledger: Ledger) -> Iterator[PastRun]:
        nonlocal n_all
        n_all += 0 if failed_only else RunStore(ledger).n_runs(place.file)
        most = MAX_RUNS_SEARCHED if failed_only else limit
        rows = RunStore(ledger).runs(most, file=place.file, before=before)
        found = (PastRun(place, row, run_status(row, ledger)) for row in rows)
        return islice((p for p in found if not failed_only or p.outcome in BAD_STATUSES), limit)

    found = _history(places, read)
    return replace(found, runs=found.runs[:limit], n_all=n_all)


def runs_named(places: Iterable[LedgerFolder], name: str) -> RunHistory:
    def read(place: LedgerFolder, ledger: Ledger) -> Iterator[PastRun]:
        row = RunStore(ledger).run(name)
        if row is not None and place.file in (None, row.file):
            yield PastRun(place, row, run_status(row, ledger))

    return _history(places, read)


def _history(
    places: Iterable[LedgerFolder], read: Callable[[LedgerFolder, Ledger], Iterator[PastRun]]
) -> RunHistory:
    found: list[PastRun] = []
    faults: list[str] = []
    has_wrong_settings = False
    for place in places:
        try:
            with open_for_reading(place) as ledger:
                found += read(place, ledger)
        except (LedgerError, SettingsError) as error:
            faults.append(str(error))
            has_wrong_settings |= isinstance(error, SettingsError)
        if is_emptied(place):
            faults.append(
                f"{place.state / LEDGER_FILE}: this ledger is empty, though there were runs. "
                "Copy it back, or let the next run begin a new one."
            )
    found.sort(key=lambda past: past.row.started, reverse=True)
    return RunHistory(tuple(found), tuple(faults), has_wrong_settings)


def unknown_run_text(places: Iterable[LedgerFolder], name: str) -> str:
    known: set[str] = set()
    for place in places:
        with suppress(LedgerError, SettingsError), open_for_reading(place) as ledger:
            known |= RunStore(ledger).run_names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "`paddock runs` lists all runs."
    return f"There is no run '{name}' here.\n  {hint}"


def run_items(past: PastRun) -> list[ItemRow]:
    """Return the items whose latest record is of this run.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with open_for_reading(past.place) as ledger:
        return RunStore(ledger).items_of(past.row.run)


@contextmanager
def open_for_reading(place: LedgerFolder) -> Iterator[Ledger]:
    """Open the ledger of a folder.

    Raises:
        LedgerError: it cannot be read.
        SettingsError: the folder's settings are wrong.
    """
    url = read_settings(place.folder).ledger_url
    with Ledger(place.state, is_readonly=True, url=url) as ledger:
        yield ledger
