"""Retention: remove old runs and logs, unneeded model replies and objects; compact the file.

Never removes what decides staleness: an item's entry stays as long as its source, and so do the
replies that it was made from. Works while runs go on: each statement is short, and an object that a
run uses again meanwhile is restored. `paddock clean` runs it in its own process, `paddock up` daily
in a subprocess of the lowest priority, which frees its memory at the end and never blocks a run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system import file_locks, files, processes
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import last_part
from paddock.engine.system.units import DAY_S
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.settings import Settings, read_settings
from paddock.steps.effects import is_output_there

from .database import queries
from .database.ledger_tables import COLUMNS, KEYS, Execute, LedgerDatabase
from .database.sqlite_file import compact_file, overwrite_unused_space
from .entries import LedgerError, ScopeOwner, is_variant
from .event_log import append_in
from .item_events import EventKind, superseded
from .ledger import ObjectStore, open_existing, storage_of
from .own_state import LEDGER_FILE, open_state

if TYPE_CHECKING:
    from .run_history import LedgerFolder

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
_OBJECT = re.compile("[0-9a-f]{64}")
_LEFTOVER = re.compile(
    rf"\..*\.([0-9a-f]{{8}}{re.escape(files.TEMPORARY_SUFFIX)}|swept)", re.DOTALL
)
"""A temporary file of `files`, and an object that is set aside while it is removed."""
_LOG_ENDINGS = ("jsonl", "log")
_MAIN_CODE = (
    "import sys; from paddock.runner.cli.application import main; sys.argv[0] = 'paddock'; main()"
)


class RetentionLimits(Struct, frozen=True):
    """What may be removed; times in seconds since 1970."""

    runs_before: float
    calls_before: float
    max_bytes: int = 0
    """0: no limit."""


class SweepResult(Struct):
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
    files: list[str] = field(default_factory=list)

    def __add__(self, other: SweepResult) -> SweepResult:
        names = self.__struct_fields__
        return SweepResult(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def as_json(self) -> dict[str, int]:
        names = (name for name in self.__struct_fields__ if name != "files")
        return {name: getattr(self, name) for name in names}


class CleanResult(Struct, frozen=True):
    """What was removed, and in `faults` errors of ledgers and settings."""

    swept: SweepResult
    faults: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Sentences on settings files that do not count."""


def clean_ledgers(
    places: Iterable[LedgerFolder], *, older_than_s: float | None = None, is_dry: bool = False
) -> CleanResult:
    """Clean ledgers by the limits of their settings; `older_than_s` replaces the ages of these."""
    swept = SweepResult()
    faults: list[str] = []
    left_out: list[str] = []
    for place in places:
        try:
            settings = read_settings(place.folder)
            left_out += settings.left_out
            kept, now = settings.unattended, time.time()
            runs_s, calls_s = kept.keep_runs_s, kept.keep_calls_s
            if older_than_s is not None:
                runs_s = calls_s = older_than_s
            limits = RetentionLimits(now - runs_s, now - calls_s, kept.max_ledger_bytes)
            swept += sweep_ledger(place.state, settings.ledger_url, limits, is_dry=is_dry)
        except (LedgerError, SettingsError) as error:  # the others are cleaned all the same
            faults.append(str(error))
    return CleanResult(swept, tuple(faults), tuple(left_out))


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
        limit = f"{SUBPROCESS_TIMEOUT_S:g} s"
        return (f"cleaning the ledgers took longer than {limit} and was stopped.",)
    except OSError as error:
        return (f"the ledgers could not be cleaned ({error.strerror or error}).",)
    try:
        return tuple(map(str, json.loads(ended.stdout)["faults"]))
    except (ValueError, KeyError, TypeError):  # it died, or was cut off
        last = last_part(ended.stderr.decode("utf-8", "replace"), 500)
        return (f"the ledgers could not be cleaned: {last or 'no message'}.",)


def sweep_ledger(
    state: Path, url: str, limits: RetentionLimits, *, is_dry: bool = False
) -> SweepResult:
    """Clean one ledger's folder; with `is_dry` only count what would be removed.

    Raises:
        LedgerError: the ledger cannot be used, or another process cleans it.
    """
    try:
        with open_sweeper(state, url, limits, is_dry=is_dry) as sweeper:
            return sweeper.sweep()
    except FileNotFoundError:
        return SweepResult()


@contextmanager
def open_sweeper(
    state: Path,
    url: str,
    limits: RetentionLimits,
    *,
    is_dry: bool = False,
    overwrites: bool = False,
) -> Iterator[Sweeper]:
    """Open a ledger's folder to clean it, as the only process that does.

    At the end its file is compacted, if that is worth it. `overwrites`: always, so that nothing of
    removed rows is left in it; no run may be at work then.

    Raises:
        LedgerError: the ledger cannot be used, or another process cleans it.
        FileNotFoundError: there is none, or its folder was removed meanwhile.
    """
    try:
        with ExitStack() as stack:
            handle = open_state(state)
            stack.callback(os.close, handle)
            logs, objects, notices = (
                stack.enter_context(closing(_OwnFolder(handle, name)))
                for name in ("runs", "objects", "told")
            )
            stack.enter_context(file_locks.lock_now(state / "clean.lock"))
            database = open_existing(storage_of(state, url))
            if database is None:
                raise FileNotFoundError(state)  # noqa: TRY301 - as without its folder
            grace_s = 0.0 if overwrites else OBJECT_GRACE_S
            with closing(database):
                try:
                    yield Sweeper(state, logs, objects, notices, database, limits, is_dry, grace_s)
                except Exception as error:  # what a damaged row causes may be of any kind
                    if damage := database.damage_behind(error):
                        raise damage from error
                    raise
                is_overwritten = bool(url) and overwrites and _vacuum_full(database)
            if overwrites and not url:
                is_overwritten = overwrite_unused_space(state / LEDGER_FILE)
            elif not (url or is_dry):
                compact_file(state / LEDGER_FILE)
            if overwrites and not is_overwritten:
                later = "`vacuum (full)` in its database" if url else "`paddock clean`"
                raise LedgerError(
                    f"{state}: forgotten, but its unused space is not overwritten: another process "
                    f"reads the ledger, or the disk is full. {later} does it when that is over."
                )
    except FileNotFoundError:
        raise
    except file_locks.LockTaken:
        raise LedgerError(f"{state}: another process cleans this ledger.") from None
    except OSError as error:
        raise LedgerError(f"{state}: cannot be cleaned ({error.strerror or error}).") from error


def _vacuum_full(database: LedgerDatabase) -> bool:
    with suppress(LedgerError):  # others read its tables, or the disk is full
        database.rows("set lock_timeout = '5s'", {})
        database.rows(f"vacuum (full) {', '.join(KEYS)}", {})
        return True
    return False


class _OwnFolder:
    """A folder within the state folder, by its descriptor: no link leads out of it."""

    def __init__(self, state: int, name: str) -> None:
        self.name = name
        self.handle: int | None = None
        with suppress(FileNotFoundError, NotADirectoryError):  # none, or a link
            self.handle = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state)

    def files(self) -> dict[str, os.stat_result]:
        found: dict[str, os.stat_result] = {}
        names = [] if self.handle is None else os.listdir(self.handle)  # noqa: PTH208 - no path
        for name in sorted(names):
            with suppress(FileNotFoundError):  # it was removed meanwhile
                facts = os.stat(name, dir_fd=self.handle, follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode):
                    found[name] = facts
        return found

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.handle)

    def remove_object(self, digest: str, before: float) -> bool:
        """Remove an object; restore it if a run used it again meanwhile.

        A run that stores an existing value touches it (`ObjectStore.put`): either it finds the file
        and we see the new time, or it does not and writes it again.
        """
        assert self.handle is not None
        aside = f".{digest}.swept"
        try:
            files.rename_in(self.handle, digest, aside)
        except FileNotFoundError:
            return False
        if os.stat(aside, dir_fd=self.handle, follow_symlinks=False).st_mtime >= before:
            files.rename_in(self.handle, aside, digest)
            return False
        self.remove(aside)
        return True

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)


class Sweeper(Struct):
    """The cleaning of one ledger. Removes only files that have the names which it wrote."""

    state: Path
    logs: _OwnFolder
    objects: _OwnFolder
    notices: _OwnFolder
    database: LedgerDatabase
    limits: RetentionLimits
    is_dry: bool
    object_grace_s: float
    now: float = field(default_factory=time.time)
    swept: SweepResult = field(default_factory=SweepResult)

    def sweep(self) -> SweepResult:
        runs = {run: status for run, status in self.database.rows(queries.RUN_STATES, {})}
        old_runs = self._sweep_runs()
        items = self._sweep_gone_items() | self._sweep_variants()
        self._sweep_events()
        if not self.is_dry:
            self.database.drop_kept(self.limits.calls_before)
        calls = self._sweep_calls(items)
        # Only a dry sweep has left their rows; what a run has recorded again meanwhile stays.
        self._sweep_objects(*((calls, items) if self.is_dry else ((), ())))
        self._sweep_logs(runs, old_runs)
        for folder in (self.objects, self.notices):
            for name, facts in folder.files().items():
                if _LEFTOVER.fullmatch(name) and facts.st_mtime < self.now - OBJECT_GRACE_S:
                    self.swept.leftovers += 1
                    self._remove(folder, name, facts)
        return self.swept

    # --- rows

    def _sweep_runs(self) -> Sequence[str]:
        n_kept, old_runs = Counter[str](), list[str]()
        for run, file, at in self.database.rows(queries.RUNS_WITHOUT_ITEMS, {}):
            n_kept[file] += 1
            if (n_kept[file] > RUNS_KEPT or is_variant(file)) and at < self.limits.runs_before:
                old_runs.append(run)
        self.swept.runs = len(old_runs)
        self._delete(queries.DROP_RUNS, old_runs)
        return old_runs

    def _sweep_gone_items(self) -> Set[tuple[str, str]]:
        """Remove the entries of documents deleted long ago; return scope and key of each.

        With those of what was done within them, which nothing marks as gone.
        """
        before = {"before": self.limits.calls_before}
        found = self._drop_items(queries.IS_GONE_ITEM, queries.GONE_ITEMS_BEFORE, before)
        for scope in self._scopes_within_none(found):
            found |= self._drop_items(
                queries.IS_ITEM_BEFORE, queries.ITEMS_BEFORE, {**before, "scope": scope}
            )
        if found and not self.is_dry:
            self._do(queries.DROP_UNUSED_SPECS, {})
        self.swept.items = len(found)
        old = {"before": self.now - self.object_grace_s}  # an output's row comes before its item's
        for place in () if self.is_dry else self.database.rows(queries.OUTPUTS_WITHOUT_ITEM, old):
            self.database.in_transaction(partial(self.drop_missing_outputs, *place))
        return found

    def _scopes_within_none(self, gone: Set[tuple[str, str]]) -> Iterator[str]:
        """Yield the scopes of what was done within items of which none is known but `gone` ones."""
        owners = starmap(ScopeOwner.of, self.database.rows(queries.SCOPES, {}))
        scopes = {o.scope_id: (o.file, json.dumps(o.folders[:1]), o.outer) for o in owners}
        nested = {scope: place for scope, place in scopes.items() if place[2]}
        if not nested:
            return
        known = {
            (file, folders, (*keys, key))
            for scope, key in self.database.rows(queries.KEYS_OF_ITEMS, {})
            if scope in scopes and (scope, key) not in gone
            for file, folders, keys in (scopes[scope],)
        }
        for scope, (file, folders, keys) in nested.items():
            around = (keys[: n + 1] for n in range(len(keys)))
            if any((file, folders, outer) not in known for outer in around):
                yield scope

    def _drop_items(
        self, still: str, query: str, values: Mapping[str, Any]
    ) -> Set[tuple[str, str]]:
        found = {(scope, key) for scope, key in self.database.rows(query, values)}
        if self.is_dry:
            return found
        return {item for item in sorted(found) if self._drop_item(still, *item)}

    def _drop_item(self, still: str, scope: str, key: str) -> bool:
        """Remove all that is known of an item; return False if its document is back meanwhile."""
        item = {"scope": scope, "key": key, "before": self.limits.calls_before}

        def drop(execute: Execute) -> bool:
            found = execute(still, item)
            if not found:
                return False
            append_in(execute, EventKind.FORGOTTEN, scope, key, found[0][-1])
            self.drop_missing_outputs(scope, key, execute)
            execute(queries.DROP_REVIEWS_OF_ITEM, item)
            return True

        is_dropped = self.database.in_transaction(drop)
        time.sleep(PAUSE_S)
        return is_dropped

    def drop_missing_outputs(self, scope: str, key: str, execute: Execute) -> None:
        """Remove an item's rows of outputs whose files are gone; with the last one its lineage.

        An output that exists stays known, with the step that made it: else it is a document.
        """
        item = {"scope": scope, "key": key}
        paths = [path for (path,) in execute(queries.PATHS_OF_ITEM, item)]
        base = self.state.parent
        missing = [path for path in paths if not is_output_there(os.path.join(base, path))]  # noqa: PTH118 - a place of a package is no path
        for path in missing:
            execute(queries.DROP_OUTPUT, {**item, "path": path})
        if missing == paths:
            execute(queries.DROP_ITEM, item)

    def _sweep_variants(self) -> Set[tuple[str, str]]:
        """Remove variants not compared for as long as calls are kept; return scopes and keys."""
        compared = {file: at for file, at in self.database.rows(queries.LAST_START_BY_FILE, {})}
        found = set[tuple[str, str]]()
        for scope, file, *_ in self.database.rows(queries.SCOPES, {}):
            if is_variant(file) and compared.get(file, 0.0) < self.limits.calls_before:
                items = self.database.rows(queries.KEYS_OF_SCOPE, {"scope": scope})
                found.update((scope, key) for (key,) in items)
                for statement in queries.DROP_SCOPE if not self.is_dry else ():
                    self._do(statement, {"scope": scope})
        self.swept.compared = len(found)
        if found and not self.is_dry:
            self._do(queries.DROP_UNUSED_SPECS, {})
        return found

    def _sweep_events(self) -> None:
        """Remove events that later ones of the item replace."""
        names, old = COLUMNS["events"], list[str]()
        for scope, key in self.database.rows(queries.ITEMS_WITH_HISTORY, {}):
            rows = self.database.rows(queries.EVENTS_OF_ITEM, {"scope": scope, "key": key})
            events = [dict(zip(names, row, strict=True)) for row in rows]
            old += [str(n) for n in superseded(events)]
        self._delete(queries.DROP_EVENTS, old)
        if not self.is_dry:
            self._do(queries.DROP_UNUSED_EVENTS, {})

    def _sweep_calls(self, dropped: Set[tuple[str, str]]) -> Set[str]:
        """Remove calls that no item needs and are too old or too many; return their hashes."""
        limits = self.limits
        too_large = self.now - GRACE_S if limits.max_bytes else 0.0
        before = {"before": max(limits.calls_before, too_large)}
        rows = self.database.rows(queries.CALLS_BY_AGE, before)
        needed = self.needed_calls(dropped) if rows else ()
        found = [row for row in rows if row[0] not in needed]
        removed = {hash_: size for hash_, at, size, *_ in found if at < limits.calls_before}
        if limits.max_bytes:
            sizes = {name: facts.st_size for name, facts in self.objects.files().items()}
            ((own_bytes,),) = self.database.rows(self.database.size_query, {})
            kept_bytes = int(own_bytes) + sum(sizes.values()) - sum(removed.values())
            too_much = kept_bytes - limits.max_bytes
            for hash_, at, size, *objects in found:
                if too_much <= 0 or at >= too_large:
                    break
                if hash_ not in removed:
                    removed[hash_] = size
                    too_much -= size + sum(sizes.get(digest, 0) for digest in objects)
        self.swept.calls = len(removed)
        self.swept.n_bytes += sum(removed.values())
        self._delete(queries.DROP_CALLS, sorted(removed))
        return removed.keys()

    def needed_calls(self, dropped: Set[tuple[str, str]]) -> Set[str]:
        """Return the hashes of the calls that the entries of existing documents were made from.

        Where the lineage of one is lost, these may be any of its scope.
        """
        objects = ObjectStore(self.state / "objects")
        found: set[str] = set()
        for scope, key, text, object_ in self.database.rows(queries.LINEAGE_OF_LIVING, {}):
            if (scope, key) in dropped:
                continue
            lineage = objects.get(object_) if object_ is not None else text
            if lineage is None and object_ is not None:
                calls = self.database.rows(queries.CALLS_OF_SCOPE, {"scope": scope})
                found.update(hash_ for (hash_,) in calls)
            for step in json.loads(lineage)["steps"] if lineage else ():
                found.update(call[0] for call in step.get("calls", ()))
        return found

    def _delete(self, statement: str, keys: Sequence[str]) -> None:
        statement = statement.format(listed=self.database.listed_keys)
        for first in range(0, len(keys) if not self.is_dry else 0, BATCH):
            self._do(statement, {"keys": json.dumps(keys[first : first + BATCH])})

    def _do(self, statement: str, values: Mapping[str, Any]) -> None:
        self.database.rows(statement, values)
        time.sleep(PAUSE_S)

    # --- files

    def _sweep_objects(self, calls: Collection[str], items: Collection[tuple[str, str]]) -> None:
        before = self.now - self.object_grace_s
        old = {
            name: facts.st_size
            for name, facts in self.objects.files().items()
            if _OBJECT.fullmatch(name) and facts.st_mtime < before
        }
        if not old:
            return
        for digest in self._referenced(calls, items):
            old.pop(digest, None)
        for digest, size in old.items():
            if self.is_dry or self.objects.remove_object(digest, before):
                self.swept.objects += 1
                self._note_removed(self.objects, digest, size)

    def _referenced(
        self, calls: Collection[str], items: Collection[tuple[str, str]]
    ) -> Iterator[str]:
        for hash_, request, reply in self.database.rows(queries.OBJECTS_OF_CALLS, {}):
            if hash_ not in calls:
                yield from (digest for digest in (request, reply) if digest is not None)
        for scope, key, *digests in self.database.rows(queries.OBJECTS_OF_EVENTS, {}):
            if (scope, key) not in items:
                yield from filter(None, digests)
        for scope, key, objects, value in self.database.rows(queries.OBJECTS_OF_REVIEWS, {}):
            if (scope, key) not in items:
                yield from json.loads(objects)
                yield from [] if value is None else [value]

    def _sweep_logs(self, runs: Mapping[str, str], old: Collection[str]) -> None:
        for name, facts in self.logs.files().items():
            run, _, ending = name.rpartition(".")
            if ending not in _LOG_ENDINGS or run not in runs:
                continue
            before = self.limits.runs_before
            if runs[run] == "running":
                before = min(before, self.now - OBJECT_GRACE_S)
            if facts.st_mtime < before or run in old:
                self.swept.logs += 1
                self._remove(self.logs, name, facts)

    def _remove(self, folder: _OwnFolder, name: str, facts: os.stat_result) -> None:
        if not self.is_dry:
            folder.remove(name)
        self._note_removed(folder, name, facts.st_size)

    def _note_removed(self, folder: _OwnFolder, name: str, size: int) -> None:
        self.swept.n_bytes += size
        self.swept.files.append(str(self.state / folder.name / name))
