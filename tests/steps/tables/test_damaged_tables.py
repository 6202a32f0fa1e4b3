"""Damaged files of tables end no run, and give nothing that is not theirs.

Before each file the process that reads holds a text that is in no file: it never comes out, and
neither does any other text that the file does not have.
"""

import asyncio
import io
import os
import random
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import ipc, parquet

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import StepError
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from paddock.steps.tables.table_files import read_table
from paddock.steps.tables.table_format import TableSource
from paddock.steps.tables.workbook_file import workbook_file
from tests.fakes.damage import damaged

N_FILES = int(os.environ.get("PADDOCK_TEST_MUTATIONS", "12"))
SECRET = "never-in-a-file-0123456789"


def table(word: str) -> pa.Table:
    """Return a table of short and long texts, numbers, days, times and lists."""
    numbers = range(60)
    return pa.table(
        {
            "name": [f"{word} {n}" for n in numbers],
            "note": [f"{word}-" * (n % 9) or None for n in numbers],
            "n": [n * 7 for n in numbers],
            "share": [n / 8 for n in numbers],
            "paid": [n % 2 == 0 for n in numbers],
            "kind": pa.array([f"{word}{n % 3}" for n in numbers]).dictionary_encode(),
            "day": pa.array([n * 100 for n in numbers], pa.int32()).cast(pa.date32()),
            "at": pa.array([n * 10**12 for n in numbers]).cast(pa.timestamp("us", "UTC")),
            "parts": [[f"{word}{n}", "b"] for n in numbers],
        }
    )


def arrow(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows, max_chunksize=20)
    return sink.getvalue()


def stream(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, rows.schema) as file:
        file.write_table(rows)
    return sink.getvalue()


def parquet_file(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(rows, sink, compression="none", row_group_size=30)
    return sink.getvalue()


def xlsx(rows: pa.Table) -> bytes:
    return workbook_file(TypedRows(rows.select(range(5)).to_pylist()), {}, "rows")[0]


def sqlite(rows: pa.Table) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (name text, note text, n int, share real, day date)")
        found = rows.select(["name", "note", "n", "share", "day"]).to_pylist()
        values = [(*list(row.values())[:4], str(row["day"])) for row in found]
        connection.executemany("insert into t values (?, ?, ?, ?, ?)", values)
        connection.commit()
        return connection.serialize()


def duckdb_file(rows: pa.Table) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.register("given", rows)
            connection.execute("create table t as from given")
        return path.read_bytes()


def texts_of(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield from (name, *texts_of(inner))
        case list():
            for inner in value:
                yield from texts_of(inner)


def content_of(data: bytes) -> str:
    """Return the texts that a file can have, as far as they stand in it as they are."""
    parts = [data.decode("utf-8", "replace")]
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            with suppress(zipfile.BadZipFile, zlib.error):  # of a part that no table needs
                parts.append(archive.read(name).decode("utf-8", "replace"))
    return unescape("\n".join(parts))


def is_of(text: str, content: str) -> bool:
    """Return whether a text is a file's, or a number or day of it."""
    is_number = not any(letter.isalpha() for letter in text.replace("T", "").replace("Z", ""))
    return text in content or is_number or text.startswith("<value out of range: ")


@pytest.mark.parametrize(
    ("suffix", "made"),
    [("arrow", arrow), ("arrow", stream), ("parquet", parquet_file), ("xlsx", xlsx),
     ("sqlite", sqlite), ("duckdb", duckdb_file)],
)  # fmt: skip
def test_a_damaged_file_gives_its_own_rows_or_a_sentence(
    suffix: str, made: Callable[[pa.Table], bytes], tmp_path: Path
) -> None:
    chance, whole = random.Random(made.__name__), made(table("word"))
    secret, path = tmp_path / "secret.arrow", tmp_path / f"a.{suffix}"
    secret.write_bytes(arrow(table(SECRET)))
    readers = ReaderPool(ReaderLimits(60.0, 512 * 1024**2))

    async def read(path: Path) -> TypedRows:
        return (await read_table(TableSource(str(path), path.suffix[1:]), readers))[0]

    async def try_all() -> None:
        for n in range(N_FILES):
            assert SECRET in repr(await read(secret))  # in the memory of both processes
            data = damaged(whole, chance) if n else whole
            path.write_bytes(data)
            try:
                texts = set(texts_of((await read(path)).as_list()))
            except StepError as error:
                assert n and str(error).startswith(f"'{path.name}' ")
                assert SECRET not in str(error)
                continue
            assert not any(SECRET[:12] in text for text in texts), n
            if suffix not in ("sqlite", "duckdb"):  # which pack texts
                content = content_of(data)
                assert not [text for text in texts if not is_of(text, content)], n

    try:
        asyncio.run(try_all())
    finally:
        readers.close()
