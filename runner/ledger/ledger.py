"""The ledger of one folder of pipelines: what was done, from what, and how to get it again.

One SQLite file beside the pipelines (WAL, one writer thread), or a schema in PostgreSQL where
several machines share the folder. Values above 16 Ki characters lie in `objects/`, by their
sha256. A folder has the same identity (`.paddock/id`) on every machine. Knows no steps and no
Prefect: `run_locks` and `coordination` decide who may work on what. Imports no SQLAlchemy: only
`ledger_tables`, which makes the tables, needs it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID, uuid4

from paddock.engine.system import files
from paddock.engine.system.files import TemporaryFile, remove_stale_files

from . import entries, writer
from .entries import (
    AttemptRow,
    CallRow,
    Entry,
    ItemRow,
    LedgerError,
    OutputRow,
    RunRow,
    write_error,
)

if TYPE_CHECKING:
    from .coordination import Claims
    from .entries import LedgerReader


def folder_identity(folder: Path) -> str:
    """Return the identity of a ledger's folder, 32 hexadecimal digits; the first who asks makes it.

    Raises:
        LedgerError: the folder cannot be written, or the file holds something else.
    """
    file = folder / "id"
    try:
        found = known_folder_identity(folder)
        return found if found is not None else _make_identity(file)
    except OSError as error:
        raise LedgerError(
            f"{file}: the folder's identity cannot be written ({error.strerror or error})."
        ) from error


def has_folder_identity(folder: Path) -> bool:
    """Return whether a folder has one, because its ledger is, or was, in PostgreSQL."""
    return (folder / "id").exists()


def known_folder_identity(folder: Path) -> str | None:
    """Return the identity of a folder that has one."""
    file = folder / "id"
    try:
        text = file.read_text("utf-8").strip()
        return UUID(text).hex
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LedgerError(
            f"{file}: this is no identity. Put back what it was, which names the ledger in "
            f"PostgreSQL, or remove it to begin a ledger anew."
        ) from error


def _make_identity(file: Path) -> str:
    """Make the identity whole or not at all, once, whoever else does so at this moment."""
    aside = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        with files.open_private(aside) as out:
            out.write(f"{uuid4()}\n")
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(aside, file)  # unlike a rename it never replaces another's
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not file.exists():
                aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return UUID(file.read_text("utf-8").strip()).hex


class ObjectStore:
    """A folder of values that are never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, value: bytes) -> str:
        """Keep a value and give its sha256; a value that is there already is not written again."""
        digest = hashlib.sha256(value).hexdigest()
        path = self._folder / digest
        try:
            os.utime(path)  # so that whoever cleans sees that it is wanted again
        except OSError:
            files.private_folder(self._folder)
            aside = TemporaryFile.written(path, value, files.PRIVATE_FILE)
            try:
                aside.replace(path)
            finally:
                aside.close()
        return digest

    def sweep(self) -> int:
        """Remove what was half written by a process that was killed; tells how many files went."""
        return len(remove_stale_files(self._folder))

    def get(self, digest: str) -> bytes | None:
        """Return a value back; None when it is gone or is not what it was."""
        try:
            value = (self._folder / digest).read_bytes()
        except FileNotFoundError:
            return None
        return value if hashlib.sha256(value).hexdigest() == digest else None


T = TypeVar("T")

INLINE_CHARS = 16_384  # larger values go to objects/: a row stays within a few SQLite pages


class Ledger:
    """The ledger of one folder of pipelines. Reads at once; writes through one thread."""

    def __init__(self, folder: Path, *, is_readonly: bool = False, url: str = "") -> None:
        self.folder = folder
        self.url = url
        """Of PostgreSQL; empty for a file in `folder`."""
        self._is_readonly = is_readonly
        self.objects = ObjectStore(folder / "objects")
        self._reader: LedgerReader | None = None
        self._writer: writer.Writer | None = None
        self._tell: Callable[[str], None] | None = None

    @property
    def file(self) -> Path:
        """The database, where it is a file."""
        return self.folder / "ledger.sqlite"

    @property
    def is_shared(self) -> bool:
        """Whether other machines may write at the same time; reading it takes a network's time."""
        return bool(self.url)

    def __enter__(self) -> Self:
        """Open it; make folder and tables where they are not there yet.

        One that is only read need not be there; it is then empty.

        Raises:
            LedgerError: newer than this Paddock, broken, or not writable.
        """
        if self._is_readonly:
            self._open_to_read()
        else:
            self._open_to_write()
        return self

    def _open_to_read(self) -> None:
        if self.is_shared:
            self._open_shared_to_read()
        elif self.file.exists():
            files.make_private(self.folder)
            self._reader = entries.SqliteReader(files.private_database(self.file))
            if self._reader.is_older():
                self._reader.close()
                self._open_to_write()

    def _open_shared_to_read(self) -> None:
        postgres = _postgres()
        known = known_folder_identity(self.folder)
        if known is None:
            return
        found = postgres.PostgresReader(
            postgres.postgres_server(self.url, known), retry_s=postgres.OPEN_S
        )
        version = found.version()
        if version == entries.VERSION:
            self._reader = found
            return
        found.close()
        if version is not None:
            self._open_to_write()

    def _open_to_write(self) -> None:
        from filelock import FileLock

        try:
            files.private_folder(self.folder)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                files.write_private(ignore, "*\n")
            if self.is_shared:
                self._open_shared_to_write()
                return
            with FileLock(self.folder / "ledger.lock", mode=files.PRIVATE_FILE):
                self._reader = writer.open_for_writing(files.private_database(self.file))
        except OSError as error:
            why = error.strerror or error
            raise LedgerError(
                f"{self.folder}: the ledger's folder cannot be written ({why}).\n"
                "  Let it be written, or copy the pipeline to a folder of your own."
            ) from error
        commit = writer.SqliteCommit(self.file)
        self._writer = writer.Writer(commit, commit.close, self._told)

    def _open_shared_to_write(self) -> None:
        postgres = _postgres()
        from . import postgres_writer
        from . import postgres_writer as postgres_tables

        server = postgres.postgres_server(self.url, folder_identity(self.folder))
        postgres_tables.prepare_schema(server, self.file)
        self._reader = postgres.PostgresReader(server, self._told)
        commit = postgres_writer.PostgresCommit(server, self._told)
        self._writer = writer.Writer(commit, commit.close)

    def listen(self, tell: Callable[[str], None]) -> None:
        """Hear in a line what the ledger waits for; called from other threads."""
        self._tell = tell

    def _told(self, text: str) -> None:
        if self._tell is not None:
            self._tell(text)

    async def ask(self, read: Callable[..., T], *values: Any) -> T:
        """Call one of the methods that read, in a thread where that takes a network's time."""
        return await asyncio.to_thread(read, *values) if self.is_shared else read(*values)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit what is left and let the file go."""
        if self._writer is not None:
            self._writer.close()
        if self._reader is not None:
            self._reader.close()

    @property
    def error(self) -> LedgerError | None:
        """Why writing stopped, if it did."""
        return self._writer.error if self._writer is not None else None

    async def durable(self) -> None:
        """Wait until everything written so far would survive a power cut.

        Raises:
            LedgerError: it could not be written.
        """
        if self._writer is not None:
            await self._writer.durable()

    # --- items

    def entries(self, scope: str, keys: Collection[str] | None = None) -> dict[str, Entry]:
        """Return every entry of a scope by its key, or those of some keys."""
        query = f"select {', '.join(Entry.__slots__)} from items where scope = :scope"
        values: dict[str, Any] = {}
        if keys is not None:
            each = ("json_each(:keys)", "json_array_elements_text((:keys)::json)")[self.is_shared]
            query += f" and key in (select value from {each})"
            values["keys"] = json.dumps([*keys])
        return {row[0]: Entry(*row) for row in self.rows(query, scope=scope, **values)}

    def record(self, scope: str, entry: Entry, run: str) -> None:
        """Write an item's entry; await `durable` to know that it stands."""
        row = {name: getattr(entry, name) for name in Entry.__slots__}
        self.put("items", {**row, "scope": scope, "run": run, "at": time.time()})

    def keep(self, value: Any) -> tuple[str | None, str | None]:
        """Return (text, object) for an item's value: one of them, by its size."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if len(text) <= INLINE_CHARS:
            return text, None
        return None, self._object(text.encode())

    def value(self, text: str | None, object_: str | None) -> Any:
        """Give back what `keep` kept.

        Raises:
            LedgerError: its object is gone.
        """
        if object_ is not None:
            kept = self.objects.get(object_)
            if kept is None:
                raise LedgerError(f"{self.folder / 'objects' / object_}: this value is gone.")
            text = kept.decode()
        return None if text is None else json.loads(text)

    # --- outputs

    def outputs(self, scope: str = "", keys: Collection[str] = ()) -> Iterator[OutputRow]:
        """Yield every output of every scope; in PostgreSQL also those of some keys of one."""
        query = f"select {', '.join(OutputRow.__slots__)} from outputs"
        if scope:
            where = "where scope = :scope and key = any((:keys)::text[])"
            rows = self.rows(f"{query} {where}", scope=scope, keys=[*keys])
        else:
            rows = self.rows(query)
        for row in rows:
            scope, path, key, sha256, intended, size, mtime_ns = row
            yield OutputRow(scope, path, key, sha256, tuple(json.loads(intended)), size, mtime_ns)

    def record_output(self, output: OutputRow, run: str) -> None:
        """Write what a path holds or is about to hold."""
        row = {name: getattr(output, name) for name in OutputRow.__slots__}
        row["intended"] = json.dumps(output.intended)
        self.put("outputs", {**row, "run": run, "at": time.time()})

    # --- calls

    def call(self, hash_: str) -> CallRow | None:
        """Return the call of this hash, with its raw reply, if it is known."""
        query = f"select {', '.join(_CALL_COLUMNS)} from calls where hash = :hash"
        found = self.rows(query, hash=hash_)
        if not found:
            return None
        row = dict(zip(_CALL_COLUMNS, found[0], strict=True))
        text, object_ = row.pop("reply"), row.pop("reply_object")
        reply = text.encode() if object_ is None else self.objects.get(object_)
        if reply is None:
            return None
        usage = json.loads(row.pop("usage"))
        return CallRow(**row, request="", reply=reply, usage=usage)

    def record_call(self, call: CallRow, run: str) -> None:
        """Write a call. Large requests and replies, and every vector, become objects."""
        row: dict[str, Any] = {name: getattr(call, name) for name in _CALL_COLUMNS[:9]}
        row["usage"] = json.dumps(call.usage)
        row.update(self._split("request", call.request.encode(), is_text=True))
        row.update(self._split("reply", call.reply, is_text=call.kind != "embed"))
        self.put("calls", {**row, "run": run, "at": time.time()})

    def _split(self, name: str, value: bytes, *, is_text: bool) -> dict[str, str | None]:
        if is_text and len(value) <= INLINE_CHARS and b"\0" not in value:
            return {name: value.decode(), f"{name}_object": None}
        return {name: None, f"{name}_object": self._object(value)}

    def _object(self, value: bytes) -> str:
        try:
            return self.objects.put(value)
        except OSError as error:
            raise write_error(error) from error

    # --- scopes and runs

    def record_scope(self, scope: str, file: str, step: str, inputs: str) -> None:
        """Write what a scope's hash stands for."""
        self.put("scopes", {"scope": scope, "file": file, "step": step, "inputs": inputs})

    def scopes_of(self, file: str) -> set[str]:
        """Return every scope of a pipeline's file."""
        query = "select scope from scopes where file = :file"
        return {row[0] for row in self.rows(query, file=file)}

    def run_names(self) -> frozenset[str]:
        """Return every run's name."""
        return frozenset(row[0] for row in self.rows("select run from runs"))

    def last_summary(self, file: str) -> dict[str, Any] | None:
        """Return the summary of the last run of a pipeline's file that called a model."""
        query = (
            "select summary from runs where file = :file and summary is not null "
            "order by started desc limit 20"
        )
        for row in self.rows(query, file=file):
            summary = json.loads(row[0])
            if summary.get("calls"):
                return dict(summary)
        return None

    def record_run(self, row: Mapping[str, Any]) -> None:
        """Write a run's row, at its start and at its end; what is not given is a default."""
        self.put("runs", {**_NEW_RUN, **row})

    def runs(self, limit: int = 100, *, failed_only: bool = False) -> list[RunRow]:
        """Return the latest runs, the newest first."""
        where = "where status not in ('completed', 'running')" if failed_only else ""
        query = f"select {', '.join(RunRow.__slots__)} from runs {where} order by started desc"
        return [RunRow(*row) for row in self.rows(f"{query} limit :limit", limit=limit)]

    def run(self, name: str) -> RunRow | None:
        """Return one run."""
        query = f"select {', '.join(RunRow.__slots__)} from runs where run = :run"
        found = self.rows(query, run=name)
        return RunRow(*found[0]) if found else None

    def runs_of(self, job: str) -> frozenset[str]:
        """Return the names of the runs that do, or did, a job together."""
        query = "select run from runs where run = :job or parent = :job"
        return frozenset(row[0] for row in self.rows(query, job=job))

    def has_progressed(self, run: str) -> bool:
        """Return whether a run recorded an item, or died of one that is known by that."""
        recorded = "select 1 from items where run = :run limit 1"
        # The items around it were in flight as well.
        begun = (
            "select 1 from attempts where run = :run and not exists (select 1 from attempts inner_ "
            "where inner_.run = attempts.run and inner_.around_scope = attempts.scope "
            "and inner_.around_key = attempts.key)"
        )
        return bool(self.rows(recorded, run=run)) or len(self.rows(begun, run=run)) == 1

    def reserve_run(self, run: str, pipeline: str, file: str) -> bool:
        """Take a run's name where other machines may want the same; False where it is taken."""
        rows = self.rows(
            "insert into runs (run, pipeline, file, started, status) "
            "values (:run, :pipeline, :file, :started, 'running') "
            "on conflict (run) do nothing returning run",
            run=run,
            pipeline=pipeline,
            file=file,
            started=time.time(),
        )
        return bool(rows)

    def claims(self, holder: str, dead_after_s: float) -> Claims:
        """Return one participant's claims; only in PostgreSQL."""
        from . import coordination, postgres

        assert isinstance(self._reader, postgres.PostgresReader)
        return coordination.Claims(self._reader.server, holder, dead_after_s, self._told)

    def is_heard_of(self, run: str, since: float) -> bool:
        """Return whether a run that shares the ledger has given a sign of life since a time."""
        query = "select 1 from holders where run = :run and seen > :since"
        return bool(self.rows(query, run=run, since=since))

    def items_of(self, run: str) -> list[ItemRow]:
        """Return the items that this run was the last to record, by step and key."""
        columns = ", ".join(f"items.{name}" for name in Entry.__slots__)
        query = (
            f"select items.scope, scopes.step, {columns} from items "
            f"left join scopes on scopes.scope = items.scope "
            f"where items.run = :run order by scopes.step, items.key"
        )
        rows = self.rows(query, run=run)
        return [ItemRow(row[0], row[1] or "", Entry(*row[2:])) for row in rows]

    # --- attempts

    def attempts_left(
        self, dead_after_s: float, scope: str = "", keys: Collection[str] = ()
    ) -> list[AttemptRow]:
        """Return the attempts of runs that are gone, or those on some items of a scope.

        In a file every run counts as gone: who asks about a scope holds its lock. In PostgreSQL a
        run is gone that was not heard of for `dead_after_s`.
        """
        query = f"select {', '.join(AttemptRow.__slots__)} from attempts where 1 = 1"
        values: dict[str, Any] = {}
        if self.is_shared:
            from .coordination import IS_ALIVE

            query += (
                " and not exists (select 1 from holders "
                f"where holders.run = attempts.run and {IS_ALIVE})"
            )
            values["dead_s"] = dead_after_s
        if scope:
            each = ("json_each(:keys)", "json_array_elements_text((:keys)::json)")[self.is_shared]
            query += f" and scope = :scope and key in (select value from {each})"
            values |= {"scope": scope, "keys": json.dumps([*keys])}
        return [AttemptRow(*row) for row in self.rows(query, **values)]

    def record_attempt(self, row: AttemptRow) -> None:
        """Write that an item is begun; await `durable` to know that it stands."""
        self.put("attempts", {name: getattr(row, name) for name in AttemptRow.__slots__})

    def drop_attempt(self, row: AttemptRow) -> None:
        """Take out that an item is begun: it has ended."""
        self.drop("attempts", {"scope": row.scope, "key": row.key, "run": row.run})

    # --- watches

    def watched(self, watch: str) -> dict[str, tuple[int, int]]:
        """Return what a watch has seen through: path → (size, mtime_ns)."""
        query = "select path, size, mtime_ns from watched where watch = :watch"
        return {path: (size, mtime) for path, size, mtime in self.rows(query, watch=watch)}

    def record_watched(
        self,
        watch: str,
        run: str,
        files: Mapping[str, tuple[int, int]],
        gone: Iterable[str] = (),
    ) -> None:
        """Write which versions of files, path → (size, mtime_ns), `run` has seen through.

        Of the paths in `gone` nothing is known any more. Await `durable` to know that it stands.
        """
        at = time.time()
        for path, (size, mtime_ns) in files.items():
            row = {"watch": watch, "path": path, "size": size, "mtime_ns": mtime_ns}
            self.put("watched", {**row, "run": run, "at": at})
        for path in gone:
            self.drop("watched", {"watch": watch, "path": path})

    def roots(self, owner: str, path: str) -> list[str]:
        """Return which folder each machine saw last at a path, this machine's first.

        `owner` is a watch or a scope.
        """
        query = "select host, folder from roots where owner = :owner and path = :path order by at"
        rows, host = self.rows(query, owner=owner, path=path), socket.gethostname()
        return [row[1] for row in sorted(rows, key=lambda row: row[0] != host)]

    def record_root(self, owner: str, path: str, folder: str) -> None:
        """Write which folder this machine sees at a path. Await `durable` to know that it stands.

        Each machine has a row of its own, since another one may mount the same share otherwise.
        """
        row = {"owner": owner, "path": path, "host": socket.gethostname()}
        self.put("roots", {**row, "folder": folder, "at": time.time()})

    def rows(self, query: str, **values: Any) -> Sequence[Sequence[Any]]:
        """Answer a portable query with named values (`:name`); nothing where there is no ledger."""
        return self._reader.rows(query, values) if self._reader is not None else ()

    def put(self, table: str, row: Mapping[str, Any]) -> None:
        """Write a whole row; await `durable` to know that it stands."""
        if self._writer is not None:
            self._writer.put(table, row)

    def drop(self, table: str, key: Mapping[str, Any]) -> None:
        """Take the row with this primary key out."""
        if self._writer is not None:
            self._writer.drop(table, key)


def _postgres() -> ModuleType:
    try:
        from . import postgres
    except ImportError as error:
        raise LedgerError(
            f"A ledger in PostgreSQL needs psycopg, which cannot be used here ({error}). "
            f"Install it: pip install 'paddock-llm[cluster]'"
        ) from error
    return postgres


_NEW_RUN = {
    "ended": None, "summary": None, "trigger": "hand", "host": None, "pid": None, "attempt": 1,
    "message": None, "parent": None, "given": None,
}  # fmt: skip
_CALL_COLUMNS = (
    "hash", "kind", "model", "digest", "served_digest", "done_reason", "scope", "step", "key",
    "usage", "reply", "reply_object",
)  # fmt: skip
