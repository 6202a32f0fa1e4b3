"""The ledger of one folder of pipelines: what was done, from what, and the results.

An SQLite file beside the pipelines, or a schema in PostgreSQL if several machines use the
folder. Large values lie in `objects/` (`ObjectStore`); a thread of its own writes
(`ledger_writer`). Knows no steps and no Prefect; `run_locks` decides which run may work on what.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from paddock.engine.system import files, private_files
from paddock.engine.system.records import Struct

from .carry_over import carried_rows
from .database import queries
from .database.known_ledgers import entry_place
from .database.ledger_tables import Execute
from .database.ledger_writer import Writer
from .database.sqlite_file import SqliteDatabase, write_error
from .database.sqlite_storage import SqliteStorage
from .entries import INLINE_CHARS, CallRow, Entry, InFlightRow, LedgerError, OutputRow
from .event_log import EventNumbers
from .item_events import EventKind, changes
from .own_state import LEDGER_FILE, is_own_state, make_state

if TYPE_CHECKING:
    from .database.ledger_tables import LedgerDatabase, LedgerStorage
    from .run_locks import RunLock


T = TypeVar("T")

ENDED_COLUMNS = tuple(n for n in Entry.__match_args__ if n not in ("key", "gone", "run", "at"))
_MARK = r'"\u0000'
"""In JSON: a text that begins with `\\0`, which stands for the path of the pipeline's folder."""
_SHARED = [Entry.__match_args__.index(name) for name in ("state", "run")]
"""Places of texts that many entries have."""


class Ledger:
    """The ledger of one folder of pipelines. Writes go through one thread.

    Reads are calls: one of a server takes a round trip, and while it is away all that its caller's
    loop does waits for it, until it is back or the run is to end.
    """

    def __init__(self, folder: Path, *, is_readonly: bool = False, url: str = "") -> None:
        self.folder, self.file = folder, folder / LEDGER_FILE
        self._url = url
        self.on_wait: Callable[[str], None] = lambda text: None
        """Called with a note when the ledger waits for something; from any thread."""
        self.is_readonly = is_readonly
        self._parent = str(folder.parent)
        self._base = _compact_json(self._parent)[:-1]
        self.objects = ObjectStore(folder / "objects")
        self._database: LedgerDatabase | None = None
        self._transactions: LedgerDatabase | None = None
        """A connection of its own: other threads may read while a transaction waits."""
        self._writer: Writer | None = None
        self._is_closed = threading.Event()
        self._listed: tuple[str, Mapping[str, Entry]] = ("", {})
        """A scope, and its entries as they were listed last."""
        self._changed_scopes = set[str]()
        """Those of which items were written: the rows may not be there yet, so they are read."""

    def __enter__(self) -> Self:
        """Open it; make folder and tables if they are missing.

        A read-only ledger need not exist; it is empty then.

        Raises:
            LedgerError: another version of Paddock wrote it; it is broken or not writable.
        """
        try:
            if self.is_readonly:
                self._database = open_existing(self.storage, is_readonly=True)
            else:
                self._open_for_writing()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _open_for_writing(self) -> None:
        try:
            make_state(self.folder)
            opened = self.storage.open_for_writing(self._note)
        except OSError as error:
            why = error.strerror or error
            raise LedgerError(
                f"{self.folder}: the ledger's folder cannot be written ({why}).\n"
                "  Make it writable, or copy the pipeline to a folder of your own."
            ) from error
        self._database, self._transactions = opened.reading, opened.transactions
        self._writer = Writer(opened.writing, self._note)

    def hurry_after(self, is_stopping: Callable[[], bool]) -> None:
        """Once a run is to end, wait for no server that does not answer."""
        self.storage.hurry_after(is_stopping, self._is_closed)

    def run_lock(self, name: str, run: str) -> RunLock:
        return self.storage.run_lock(name, run)

    def _note(self, text: str) -> None:
        self.on_wait(text)

    @property
    def n_commits(self) -> int:
        """How often rows of this process have become durable."""
        return self._writer.n_commits if self._writer is not None else 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit what is left and close it.

        Raises:
            LedgerError: the file is damaged, and `error` is one that damage may have caused.
        """
        if self._writer is not None:
            self._writer.close()
        damage = None if error is None else self.damage_behind(error)
        for database in (self._transactions, self._database):
            if database is not None:
                database.close()
        self._is_closed.set()
        if damage is not None:
            raise damage from error

    def damage_behind(self, error: BaseException) -> LedgerError | None:
        return None if self._database is None else self._database.damage_behind(error)

    @property
    def identity(self) -> str:
        """Its name, also when its folder is moved; empty: there is no ledger yet."""
        return "" if self._database is None else self._database.identity()

    def reserve_run(self, **values: Any) -> bool:
        """Reserve a run's name among machines; return False if it is taken."""
        assert self._database is not None
        return self._database.reserve_run(queries.RESERVE_RUN, values)

    def has_ended(self, session: str) -> bool:
        """Return whether a run on another machine is known to have ended."""
        return self._database is not None and self._database.has_ended(session)

    @cached_property
    def storage(self) -> LedgerStorage:
        return storage_of(self.folder, self._url)

    @property
    def error(self) -> LedgerError | None:
        return self._writer.error if self._writer is not None else None

    async def durable(self) -> None:
        """Wait until everything written so far outlasts a power cut.

        Raises:
            LedgerError: it could not be written.
        """
        if self._writer is not None:
            await self._writer.durable()

    # --- items

    def entries(self, scope: str, keys: Collection[str] | None = None) -> dict[str, Entry]:
        return _entries([*self.rows_of_keys(queries.ENTRIES, keys, "i.key", scope=scope)])

    def listed_entries(
        self, scope: str, keys: Collection[str], *, with_results: bool = True
    ) -> dict[str, Entry]:
        """Return the entries of a scope without their parts, of filed ones those of these keys."""
        listed, entries = self._listed  # at once: another thread may empty it
        if listed == scope and scope not in self._changed_scopes:
            return dict(entries)
        query = queries.ENTRIES_WITHOUT_PARTS if with_results else queries.ENTRIES_WITHOUT_RESULTS
        has_filed = self.rows(queries.HAS_FILED, scope=scope)
        rows = list(self.rows(query + (queries.NOT_FILED if has_filed else ""), scope=scope))
        if has_filed:
            left = set(keys).difference(row[0] for row in rows)
            rows += self.rows_of_keys(query, left, "i.key", scope=scope)
        entries = _entries(rows)
        if with_results and not has_filed:
            self._listed = scope, entries
        return dict(entries)

    @cached_property
    def _numbers(self) -> EventNumbers:
        return EventNumbers(self.rows(queries.LAST_EVENT))

    def append(
        self, kind: EventKind, scope: str, key: str, run: str = "", at: float = 0.0, **columns: Any
    ) -> int:
        """Append an event, and change the state of its item; lasting after `durable`.

        Return its number. `at`: now, if it is not given.
        """
        n = self._numbers.next()
        if kind is EventKind.BEGAN:  # which is removed with the end: so that the log has no holes
            n = -n
        event = {"n": n, "scope": scope, "key": key, "kind": kind.value, "run": run}
        event |= {"at": at or time.time(), **columns}
        self.put("events", event)
        if changed := changes(event):
            self.put("items", {"scope": scope, "key": key, **changed})
        return n

    def record(self, scope: str, entry: Entry, run: str, **columns: Any) -> None:
        """Append the end of an item, with columns of its lineage; lasting after `durable`."""
        ended = {name: getattr(entry, name) for name in ENDED_COLUMNS}
        self.append(EventKind.ENDED, scope, entry.key, run, **ended, **columns)

    def store_value(self, value: Any) -> tuple[str | None, str | None]:
        """Store an item's value; return (text, object), one of which is None, by its size.

        Texts that are paths in the pipeline's folder are kept relative to it: `load_value` has them
        where it is then, moved or copied.
        """
        text = _compact_json(value)
        if self._base in text or _MARK in text:
            text = _compact_json(_with_texts(value, self._relative))
        if len(text) <= INLINE_CHARS:
            return text, None
        return None, self._object(text.encode())

    def load_value(self, text: str | None, object_: str | None) -> Any:
        """Return the value that `store_value` stored.

        Raises:
            LedgerError: its object is missing.
        """
        if object_ is not None:
            stored = self.objects.get(object_)
            if stored is None:
                raise LedgerError(
                    f"{self.folder / 'objects' / object_}: this value is missing or damaged. "
                    f"Run the step that made it with `--force`."
                )
            text = stored.decode()
        return None if text is None else self.parse_value(text)

    def parse_value(self, text: str) -> Any:
        """Return the value of a text that `store_value` returned; also of a list of them."""
        value = json.loads(text)
        return _with_texts(value, self._absolute) if _MARK in text else value

    def _relative(self, text: str) -> str:
        if text == self._parent or text.startswith(f"{self._parent}/"):
            return f"\0{text[len(self._parent) :]}"
        return f"\0{text}" if text.startswith("\0") else text

    def _absolute(self, text: str) -> str:
        if not text.startswith("\0"):
            return text
        return text[1:] if text.startswith("\0\0") else self._parent + text[1:]

    # --- outputs

    def outputs(
        self, scope: str = "", keys: Collection[str] = (), *, with_moved: bool = True
    ) -> Iterator[OutputRow]:
        """Yield the outputs of every scope, or those of some keys of one.

        Without `with_moved` not the files of the user's that were moved: there may be 100,000.
        """
        if scope:
            rows = self.rows_of_keys(queries.OUTPUTS_OF_SCOPE, keys, scope=scope)
        else:
            rows = self.rows(queries.OUTPUTS if with_moved else queries.WRITTEN_OUTPUTS)
        for of_scope, path, key, sha256, intended, size, mtime_ns, at in rows:
            sums = () if intended == "[]" else tuple(json.loads(intended))
            yield OutputRow(sys.intern(of_scope), path, key, sha256, sums, size, mtime_ns, at)

    def record_output(self, output: OutputRow, run: str) -> None:
        """Write what a path holds, or is about to hold."""
        intended, at = json.dumps(output.intended), output.at or time.time()
        self.put_row("outputs", output, intended=intended, run=run, at=at)

    # --- calls

    def call(self, hash_: str, *, is_whole: bool = False) -> CallRow | None:
        """Return the call of this hash with its raw reply; None if it is not known, or removed.

        `is_whole`: with its request too.
        """
        columns = queries.WHOLE_CALL_COLUMNS if is_whole else queries.REPLY_COLUMNS
        queued = None if self._writer is None else self._writer.queued_row("calls", (hash_,))
        if queued is not None:
            row = {name: queued[name] for name in columns}
        else:
            found = self.rows(
                queries.WHOLE_CALL if is_whole else queries.CALL_WITH_REPLY, hash=hash_
            )
            if not found:
                return None
            row = dict(zip(columns, found[0], strict=True))
        reply = self._content(row.pop("reply"), row.pop("reply_object"), kind=row["kind"])
        request = self._content(row.pop("request", ""), row.pop("request_object", None))
        if reply is None or request is None:
            return None
        usage = json.loads(row.pop("usage"))
        return CallRow(**row, request=request.decode(), reply=reply, usage=usage)

    def _content(self, text: str | None, object_: str | None, kind: str = "") -> bytes | None:
        """Return a request or reply; None if its object is missing."""
        if object_ is not None:
            return self.objects.get(object_)
        return b64decode(text or "") if kind == "embed" else (text or "").encode()

    def record_call(self, call: CallRow, run: str) -> None:
        row: dict[str, Any] = {name: getattr(call, name) for name in queries.CALL_COLUMNS}
        row["usage"] = json.dumps(call.usage)
        row.update(self._split("request", call.request.encode()))
        row.update(self._split("reply", call.reply, is_text=call.kind != "embed"))
        self.put("calls", {**row, "run": run, "at": time.time()})
        if self._writer is not None:
            self._writer.flush()  # it cost more than a commit does

    def _split(self, name: str, value: bytes, *, is_text: bool = True) -> dict[str, str | None]:
        if len(value) <= INLINE_CHARS and not (is_text and b"\0" in value):
            inline = value if is_text else b64encode(value)
            return {name: inline.decode(), f"{name}_object": None}
        return {name: None, f"{name}_object": self._object(value)}

    def _object(self, value: bytes) -> str:
        try:
            return self.objects.put(value)
        except OSError as error:
            raise write_error(error) from error

    # --- scopes

    def record_scope(self, scope: str, file: str, step: str, inputs: str) -> None:
        self.put("scopes", {"scope": scope, "file": file, "step": step, "inputs": inputs})

    def scopes_of(self, file: str) -> set[str]:
        return {row[0] for row in self.rows(queries.SCOPES_OF_FILE, file=file)}

    # --- items in flight

    def in_flight(self) -> list[InFlightRow]:
        return [InFlightRow(*row) for row in self.rows(queries.IN_FLIGHT)]

    def drop_event(self, n: int) -> None:
        self.drop("events", {"n": n})

    # --- watches

    def watched(self, watch: str) -> dict[str, tuple[int, int]]:
        rows = self.rows(queries.WATCHED, watch=watch)
        return {path: (size, mtime_ns) for path, size, mtime_ns in rows}

    def record_watched(
        self, watch: str, run: str, files: Mapping[str, tuple[int, int]], gone: Iterable[str] = ()
    ) -> None:
        """Write the files, path → (size, mtime_ns), that `run` has processed; forget those `gone`.

        Lasting after `durable`.
        """
        at = time.time()
        for path, (size, mtime_ns) in files.items():
            row = {"watch": watch, "path": path, "size": size, "mtime_ns": mtime_ns}
            self.put("watched", {**row, "run": run, "at": at})
        for path in gone:
            self.drop("watched", {"watch": watch, "path": path})

    def roots(self, owner: str, path: str) -> list[str]:
        """Return the folder that each machine saw last at a path, this machine's first.

        `owner` is a watch or a scope.
        """
        at = {"owner": owner, "path": path, "host": socket.gethostname()}
        return [folder for (folder,) in self.rows(queries.ROOTS_OF, **at)]

    def record_root(self, owner: str, path: str, folder: str) -> None:
        """Write which folder this machine sees at a path; lasting after `durable`.

        Each machine has its own row, since it may mount the same share differently.
        """
        row = {"owner": owner, "path": path, "host": socket.gethostname()}
        self.put("roots", {**row, "folder": folder, "at": time.time()})

    # --- statements, for the stores of one kind of rows

    def rows(self, query: str, **values: Any) -> Sequence[Sequence[Any]]:
        """Execute a portable query with named values (`:name`); no rows if there is no ledger."""
        return self._database.rows(query, values) if self._database is not None else ()

    @property
    def now(self) -> str:
        """SQL: seconds since 1970 by the database's clock."""
        return self._database.now if self._database is not None else "0"

    @property
    def listed_keys(self) -> str:
        """As `LedgerDatabase.listed_keys`, of a ledger that is open."""
        assert self._database is not None
        return self._database.listed_keys

    def in_transaction(self, work: Callable[[Execute], T]) -> T:
        """Call `work` in one transaction of the database, not through the writer's queue. Blocks.

        Raises:
            LedgerError: the ledger is only read, or cannot be written.
        """
        if self._transactions is None:
            raise LedgerError(f"{self.folder}: this ledger was opened to be read only.")
        self._listed = ("", {})
        return self._transactions.in_transaction(work)

    def rows_of_keys(
        self, query: str, keys: Collection[str] | None, column: str = "key", **values: Any
    ) -> Sequence[Sequence[Any]]:
        """Execute a query that ends in a condition; only for some keys if they are given."""
        if keys is None or self._database is None:
            return self.rows(query, **values)
        query += f" and {column} in (select value from {self._database.listed_keys})"
        return self.rows(query, **values, keys=json.dumps([*keys]))

    def put(self, table: str, row: Mapping[str, Any]) -> None:
        self._queue(table, row, row)

    def put_row(self, table: str, row: Any, **others: Any) -> None:
        """Write a row of `entries`, with `others` of its columns."""
        values = {name: getattr(row, name) for name in type(row).__match_args__}
        self.put(table, values | others)

    def drop(self, table: str, key: Mapping[str, Any]) -> None:
        self._queue(table, key, None)

    def _queue(self, table: str, key: Mapping[str, Any], row: Mapping[str, Any] | None) -> None:
        if table == "items":
            self._changed_scopes.add(key["scope"])
        if self._writer is not None:
            self._writer.queue(table, key, row)


def _compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON data of which each text, names of fields included, is changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_with_texts(k, change): _with_texts(inner, change) for k, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(inner, change) for inner in value]
    return value


def _entries(rows: list[Sequence[Any]]) -> dict[str, Entry]:
    """Return entries by their keys; each row goes as its entry comes, and equal texts are one."""
    entries = {}
    rows.reverse()
    while rows:
        row = [*rows.pop()]
        for place in _SHARED:
            row[place] = sys.intern(row[place])
        entries[row[0]] = Entry(*row)
    return entries


def open_existing(storage: LedgerStorage, *, is_readonly: bool = False) -> LedgerDatabase | None:
    """Open the ledger of a folder; None if there is none, or no run has made its tables yet.

    Raises:
        LedgerError: another version of Paddock wrote it; it cannot be read. `ForeignState`: it is
            not this user's, or not known in their home.
    """
    folder = storage.folder
    try:
        if not is_own_state(folder):
            return None
    except OSError as error:
        why = error.strerror or error
        raise LedgerError(f"{folder}: the ledger's folder cannot be read ({why}).") from error
    return storage.find(is_readonly=is_readonly)


def storage_of(folder: Path, url: str) -> LedgerStorage:
    storage: LedgerStorage = SqliteStorage(folder, carried_rows)
    if url:
        storage = postgres_module().PostgresStorage(folder, url, carried_rows)
    return storage


@contextmanager
def forgotten(folder: Path) -> Iterator[None]:
    """Remove the home's entry of a folder's ledger at the end: the folder will be removed."""
    try:
        yield
    finally:
        file = folder / LEDGER_FILE
        with suppress(OSError, LedgerError), closing(SqliteDatabase(file)) as database:
            entry_place(file, database.identity()).unlink()


def postgres_module() -> ModuleType:
    """Return the module that knows psycopg, if that is installed."""
    try:
        return import_module(".database.postgres", __package__)
    except ImportError as error:
        raise LedgerError(
            f"A ledger in PostgreSQL needs psycopg, which cannot be used here ({error}). "
            f"Install it: pip install 'paddock-llm[postgres]'"
        ) from error


class ObjectStore(Struct, eq=False):
    """A folder of values, each named by its sha256 and never changed."""

    _folder: Path

    def put(self, value: bytes) -> str:
        """Store a value and return its sha256; an existing one is not written again."""
        digest = hashlib.sha256(value).hexdigest()
        path = self._folder / digest
        try:
            os.utime(path)  # shows a concurrent sweep that it is in use again
        except OSError:
            private_files.private_folder(self._folder)
            with files.atomic_file(path) as file:
                file.write(value)
                file.sync()
        return digest

    def sweep(self) -> int:
        return len(files.remove_stale_files(self._folder, waits=True))

    def get(self, digest: str) -> bytes | None:
        try:
            value = (self._folder / digest).read_bytes()
        except FileNotFoundError:
            return None
        return value if hashlib.sha256(value).hexdigest() == digest else None
