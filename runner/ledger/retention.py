"""Retention: remove old runs and logs, unneeded model replies and objects; compact the file.

Never removes what decides staleness: an item's entry stays as long as its source, and so do the
replies that it was made from. Works while runs go on: each statement is short, and an object that a
run uses again meanwhile is restored. `paddock clean` runs it in its own process, `paddock up` daily
in a subprocess of the lowest priority, which frees its memory at the end and never blocks a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from paddock.engine.system import file_locks, processes
from paddock.engine.system.text import last_part
from paddock.engine.system.units import DAY_S
from paddock.runner.settings import Settings, read_settings

from .entries import LedgerError, is_variant
from .ledger import LEDGER_FILE, open_existing
from .ledger_tables import LedgerDatabase
from .object_store import ObjectStore
from .run_history import LedgerFolder
from .sqlite_file import SqliteDatabase, compact_file

GRACE_S = 7 * DAY_S
"""Younger replies stay even if the ledger is too large: their run may go on tomorrow."""
OBJECT_GRACE_S = DAY_S
"""An object is written before the row that refers to it."""
RUNS_KEPT = 20
"""Of each pipeline file, whatever their age: `plan` learns from them how long a run takes."""
BATCH = 400
PAUSE_S = 0.002
"""Between two statements, so that a run that waits to write comes first."""
SUBPROCESS_TIMEOUT_S = 3600.0
MAX_OUTPUT_BYTES = 1024**2  # one JSON object
_LOW_PRIORITY = 19
_MAIN_CODE = (
    "import sys; from paddock.runner.cli.application import main; sys.argv[0] = 'paddock'; main()"
)


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """What may be removed; times in seconds since 1970."""

    runs_before: float
    calls_before: float
    max_bytes: int = 0
    """0: no limit."""


@dataclass(slots=True)
class SweepResult:
    """What was removed, or would be."""

    runs: int = 0
    logs: int = 0
    calls: int = 0
    items: int = 0
    """Entries of documents that were deleted long ago."""
    compared: int = 0
    """Answers of comparisons that were forgotten."""
    objects: int = 0
    leftovers: int = 0
    """Temporary files of killed processes."""
    n_bytes: int = 0
    """Of files, and of the texts in rows."""

    def __add__(self, other: SweepResult) -> SweepResult:
        names = (field.name for field in fields(self))
        return SweepResult(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def as_json(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class CleanResult:
    """What was removed, and in `faults` errors of ledgers."""

    swept: SweepResult
    faults: tuple[str, ...] = ()


def clean_ledgers(
    places: Iterable[LedgerFolder], *, older_than_s: float | None = None, is_dry: bool = False
) -> CleanResult:
    """Clean ledgers, each by the settings of its folder."""
    swept = SweepResult()
    faults: list[str] = []
    for place in places:
        settings = read_settings(place.folder)
        limits = retention_limits(settings, time.time(), older_than_s)
        try:
            swept += sweep_ledger(place.state, settings.ledger_url, limits, is_dry=is_dry)
        except LedgerError as error:
            faults.append(str(error))
    return CleanResult(swept, tuple(faults))


def retention_limits(
    settings: Settings, now: float, older_than_s: float | None = None
) -> RetentionLimits:
    """Return the limits of the settings; `older_than_s` replaces their ages."""
    unattended = settings.unattended
    limits = RetentionLimits(
        runs_before=now - unattended.keep_runs_s,
        calls_before=now - unattended.keep_calls_s,
        max_bytes=unattended.max_ledger_bytes,
    )
    if older_than_s is None:
        return limits
    return replace(limits, runs_before=now - older_than_s, calls_before=now - older_than_s)


async def clean_in_subprocess(settings: Settings, folders: Sequence[Path]) -> tuple[str, ...]:
    """Clean the ledgers below these folders in a subprocess; return errors.

    Prefect's server removes its own old runs and events (see `daemon.prefect_server`).
    """
    if not folders:
        return ()
    command = processes.python_command("-c", _MAIN_CODE, "clean", "--json", *map(str, folders))
    environ = {**os.environ, "PADDOCK_HOME": str(settings.state_dir)}
    try:
        async with asyncio.timeout(SUBPROCESS_TIMEOUT_S):
            ended = await processes.run(
                command, environ=environ, most_bytes=MAX_OUTPUT_BYTES, nice=_LOW_PRIORITY
            )
    except TimeoutError:
        return (
            f"cleaning the ledgers took longer than {SUBPROCESS_TIMEOUT_S:g} s and was stopped.",
        )
    except OSError as error:
        return (f"the ledgers could not be cleaned ({error.strerror or error}).",)
    return _reported_faults(ended.stdout, ended.stderr)


def _reported_faults(out: bytes, err: bytes) -> tuple[str, ...]:
    """Return the faults in the output of `paddock clean --json`."""
    try:
        found: Any = json.loads(out)
        return tuple(str(fault) for fault in found["faults"])
    except (ValueError, KeyError, TypeError):
        last = last_part(err.decode("utf-8", "replace"), 500)
        return (f"the ledgers could not be cleaned: {last or 'no message'}.",)


def sweep_ledger(
    state: Path, url: str, limits: RetentionLimits, *, is_dry: bool = False
) -> SweepResult:
    """Clean one ledger's folder; with `is_dry` only count what would be removed.

    Raises:
        LedgerError: the ledger cannot be used, or another process cleans it.
    """
    try:
        with file_locks.lock_now(state / "clean.lock"):
            database = open_existing(state, url)
            if database is None:
                return SweepResult()
            with contextlib.closing(database):
                try:
                    swept = _Sweeper(state, database, limits, is_dry=is_dry).sweep()
                except Exception as error:  # what a damaged row causes may be of any kind
                    damage = database.damage_behind(error)
                    if damage is not None:
                        raise damage from error
                    raise
            if not url and not is_dry:
                compact_file(state / LEDGER_FILE)
            return swept
    except file_locks.LockTaken:
        raise LedgerError(f"{state}: another process cleans this ledger.") from None
    except OSError as error:
        raise LedgerError(f"{state}: cannot be cleaned ({error.strerror or error}).") from error


class _Sweeper:
    """The cleaning of one ledger."""

    def __init__(
        self, state: Path, database: LedgerDatabase, limits: RetentionLimits, *, is_dry: bool
    ) -> None:
        self._state = state
        self._database = database
        self._limits = limits
        self._is_dry = is_dry
        self._now = time.time()
        self._swept = SweepResult()

    def sweep(self) -> SweepResult:
        self._runs()
        variants = self._forgotten_variants()
        calls = self._calls(variants)
        items = self._gone_items() | self._dropped(variants)
        self._objects(calls, items)
        self._logs()
        self._leftovers()
        return self._swept

    # --- rows

    def _runs(self) -> None:
        """Remove old runs that no item refers to, except each pipeline's latest."""
        query = (
            "select run, file, coalesce(ended, started) from runs "
            "where run not in (select run from items) order by started desc"
        )
        kept: dict[str, int] = {}
        old: list[str] = []
        for run, file, at in self._database.rows(query, {}):
            kept[file] = kept.get(file, 0) + 1
            if (kept[file] > RUNS_KEPT or is_variant(file)) and at < self._limits.runs_before:
                old.append(run)
        self._swept.runs = len(old)
        self._delete("runs", "run", old)

    def _forgotten_variants(self) -> frozenset[str]:
        """Return the scopes of variants that were not compared for as long as calls are kept."""
        runs = "select file, max(started) from runs group by file"
        compared = {str(file): at for file, at in self._database.rows(runs, {})}
        before = self._limits.calls_before
        return frozenset(
            str(scope)
            for scope, file in self._database.rows("select scope, file from scopes", {})
            if is_variant(file) and compared.get(file, 0.0) < before
        )

    def _dropped(self, scopes: Iterable[str]) -> frozenset[tuple[str, str]]:
        """Remove all that is known of these scopes, which have no outputs; return their items."""
        found = set[tuple[str, str]]()
        for scope in sorted(scopes):
            at = {"scope": scope}
            items = self._database.rows("select key from items where scope = :scope", at)
            found.update((scope, str(key)) for (key,) in items)
            for table in _OF_SCOPE if not self._is_dry else ():
                self._do(f"delete from {table} where scope = :scope", at)
        self._swept.compared += len(found)
        if found and not self._is_dry:
            self._do(_DROP_SPECS, {})
        return frozenset(found)

    def _calls(self, forgotten: Collection[str]) -> frozenset[str]:
        """Remove calls that no item needs and are too old or too many; return their hashes."""
        limits = self._limits
        too_large = self._now - GRACE_S if limits.max_bytes else 0.0
        before = {"before": max(limits.calls_before, too_large)}
        rows = self._database.rows(_CALLS_BY_AGE, before)
        needed = self._needed_calls(forgotten) if rows else frozenset()
        found = [row for row in rows if row[0] not in needed]
        removed = {hash_: size for hash_, at, size, *_ in found if at < limits.calls_before}
        if limits.max_bytes:
            too_much = self._size() - sum(removed.values()) - limits.max_bytes
            for hash_, at, size, *objects in found:
                if too_much <= 0 or at >= too_large:
                    break
                if hash_ not in removed:
                    removed[hash_] = size
                    too_much -= size + sum(map(self._size_of, filter(None, objects)))
        self._swept.calls = len(removed)
        self._swept.n_bytes += sum(removed.values())
        self._delete("calls", "hash", sorted(removed))
        return frozenset(removed)

    def _needed_calls(self, forgotten: Collection[str]) -> frozenset[str]:
        """Return the hashes of the calls that the entries of existing documents were made from."""
        objects = ObjectStore(self._state / "objects")
        found: set[str] = set()
        for scope, text, object_ in self._database.rows(_LINEAGE, {}):
            if scope in forgotten:
                continue
            made = objects.get(object_) if object_ is not None else text
            for step in json.loads(made)["steps"] if made else ():
                found.update(call[0] for call in step["calls"])
        return frozenset(found)

    def _gone_items(self) -> frozenset[tuple[str, str]]:
        """Remove the entries of documents deleted long ago, and of outputs that are gone too."""
        query = "select scope, key from items where gone is not null and at < :before"
        rows = self._database.rows(query, {"before": self._limits.calls_before})
        self._swept.items = len(rows)
        for scope, key in rows if not self._is_dry else ():
            at = {"scope": scope, "key": key}
            query = "select path from outputs where scope = :scope and key = :key"
            paths = [path for (path,) in self._database.rows(query, at)]
            # An output that exists stays known, with the step that made it: otherwise a scan takes
            # it for a document.
            gone = [path for path in paths if not os.path.lexists(self._state.parent / path)]
            for path in gone:
                self._do(_DROP_OUTPUT, {**at, "path": path})
            self._do(_DROP_ITEM, at)
            self._do(_DROP_REVIEWS, at)
            if gone == paths:
                self._do(_DROP_MADE, at)
        if rows and not self._is_dry:
            self._do(_DROP_SPECS, {})
        return frozenset((scope, key) for scope, key in rows)

    def _delete(self, table: str, column: str, keys: Sequence[str]) -> None:
        if self._is_dry:
            return
        listed = f"(select value from {self._database.listed_keys})"
        for first in range(0, len(keys), BATCH):
            batch = json.dumps(keys[first : first + BATCH])
            self._do(f"delete from {table} where {column} in {listed}", {"keys": batch})

    def _do(self, statement: str, values: Mapping[str, Any]) -> None:
        self._database.rows(statement, values)
        time.sleep(PAUSE_S)

    # --- files

    def _objects(self, calls: Collection[str], items: Collection[tuple[str, str]]) -> None:
        """Remove objects that no row refers to, not counting these calls and items."""
        folder = self._state / "objects"
        old = {
            entry.name: entry.stat().st_size
            for entry in _entries(folder)
            if not entry.name.startswith(".") and _entry_age_s(entry, self._now) > OBJECT_GRACE_S
        }
        if not old:
            return
        for digest in self._referenced(calls, items):
            old.pop(digest, None)
        for digest, size in old.items():
            if self._is_dry or _removed(folder / digest, self._now - OBJECT_GRACE_S):
                self._swept.objects += 1
                self._swept.n_bytes += size

    def _referenced(
        self, calls: Collection[str], items: Collection[tuple[str, str]]
    ) -> Iterator[str]:
        query = "select hash, request_object, reply_object from calls"
        for hash_, request, reply in self._database.rows(f"{query} {_HAS_OBJECT}", {}):
            if hash_ not in calls:
                yield from (digest for digest in (request, reply) if digest is not None)
        for table, column in (("items", "returns_object"), ("provenance", "made_object")):
            query = f"select scope, key, {column} from {table} where {column} is not null"
            for scope, key, digest in self._database.rows(query, {}):
                if (scope, key) not in items:
                    yield digest
        for scope, key, objects, value in self._database.rows(_REVIEW_OBJECTS, {}):
            if (scope, key) not in items:
                yield from json.loads(objects)
                yield from [] if value is None else [value]

    def _logs(self) -> None:
        """Remove the logs of old runs, except of runs that may be running."""
        rows = self._database.rows("select run from runs where status = 'running'", {})
        running = {row[0] for row in rows}
        for entry in _entries(self._state / "runs"):
            before = self._limits.runs_before
            if entry.name.rpartition(".")[0] in running:
                before = min(before, self._now - OBJECT_GRACE_S)
            if entry.stat().st_mtime < before:
                self._swept.logs += 1
                self._remove(entry)

    def _leftovers(self) -> None:
        for folder in (self._state / "objects", self._state / "told"):
            for entry in _entries(folder):
                if entry.name.startswith(".") and _entry_age_s(entry, self._now) > OBJECT_GRACE_S:
                    self._swept.leftovers += 1
                    self._remove(entry)

    def _remove(self, entry: os.DirEntry[str]) -> None:
        self._swept.n_bytes += entry.stat().st_size
        if not self._is_dry:
            Path(entry.path).unlink(missing_ok=True)

    def _size(self) -> int:
        """Return the bytes of ledger and objects, without unused space in the file."""
        is_file = isinstance(self._database, SqliteDatabase)
        own = int(self._database.rows(_SIZE_OF_FILE if is_file else _SIZE_OF_SCHEMA, {})[0][0])
        return own + sum(entry.stat().st_size for entry in _entries(self._state / "objects"))

    def _size_of(self, digest: str) -> int:
        try:
            return (self._state / "objects" / digest).stat().st_size
        except OSError:
            return 0


_LINEAGE = """
select p.scope, p.made, p.made_object from provenance p
left join items i on i.scope = p.scope and i.key = p.key
where i.gone is null
"""
_CALLS_BY_AGE = """
select hash, at, length(coalesce(request, '')) + length(coalesce(reply, '')),
       request_object, reply_object
from calls where at < :before order by at
"""
_SIZE_OF_FILE = """
select (pages.page_count - free.freelist_count) * sizes.page_size
from pragma_page_count() pages, pragma_freelist_count() free, pragma_page_size() sizes
"""
_SIZE_OF_SCHEMA = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = current_schema() and c.relkind = 'r'
"""
_HAS_OBJECT = "where request_object is not null or reply_object is not null"
_OF_SCOPE = ("provenance", "attempts", "items", "scopes")
_DROP_OUTPUT = "delete from outputs where scope = :scope and key = :key and path = :path"
_DROP_REVIEWS = "delete from reviews where scope = :scope and key = :key"
_REVIEW_OBJECTS = "select scope, key, objects, value_object from reviews"
_DROP_MADE = "delete from provenance where scope = :scope and key = :key"
_DROP_SPECS = "delete from specs where spec not in (select spec from provenance)"
_DROP_ITEM = "delete from items where scope = :scope and key = :key and gone is not null"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _entry_age_s(entry: os.DirEntry[str], now: float) -> float:
    return now - entry.stat().st_mtime


def _removed(file: Path, before: float) -> bool:
    """Remove an object; restore it if a run used it again meanwhile.

    A run that stores an existing value touches it (`ObjectStore.put`): either it finds the file
    and we see the new time, or it does not and writes it again.
    """
    aside = file.with_name(f".{file.name}.swept")
    try:
        file.rename(aside)
    except FileNotFoundError:
        return False
    if aside.stat().st_mtime >= before:
        aside.rename(file)
        return False
    aside.unlink(missing_ok=True)
    return True
