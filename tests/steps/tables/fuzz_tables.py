"""Damaged files of tables from a seed: each is read as rows that are the file's, or refused.

`python -m tests.steps.tables.fuzz_tables --seed 2 --files 200` tries as many of each kind; a few
are in the suite. Before each file the reader process and this one hold a text that is in no file:
it never comes out, and neither does any other text that the file does not have.
"""

import argparse
import asyncio
import io
import random
import sqlite3
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import ipc, parquet

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import StepError
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from paddock.steps.tables.table_files import read_table
from paddock.steps.tables.table_format import TableSource
from paddock.steps.tables.workbook_file import workbook_file

SECRET = "never-in-a-file-0123456789"
N_ROWS = 60


def table(word: str) -> pa.Table:
    """Return a table of short and long texts, numbers, days, times and lists."""
    numbers = range(N_ROWS)
    return pa.table(
        {
            "name": [f"{word} {n}" for n in numbers],
            "note": [f"{word}-" * (n % 9) or None for n in numbers],
            "kind": pa.array([f"{word}{n % 3}" for n in numbers]).dictionary_encode(),
            "n": [n * 7 for n in numbers],
            "share": [n / 8 for n in numbers],
            "day": pa.array([n * 100 for n in numbers], pa.int32()).cast(pa.date32()),
            "at": pa.array([n * 10**12 for n in numbers]).cast(pa.timestamp("us", "UTC")),
            "paid": [n % 2 == 0 for n in numbers],
            "parts": [[f"{word}{n}", "b"] for n in numbers],
        }
    )


def arrow_bytes(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows, max_chunksize=20)
    return sink.getvalue()


def stream_bytes(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return sink.getvalue()


def overlong(name: str, n: int) -> bytes:
    """Return an Arrow stream with a cell of 64 bytes that says it has `n`."""
    data, cell = stream_bytes(pa.table({name: [b"x" * 64]})), b"x" * 64
    at = data.rindex(struct.pack("<ii", 0, 64), 0, data.index(cell))
    return data[:at] + struct.pack("<ii", 0, n) + data[at + 8 :]


def parquet_bytes(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(rows, sink, compression="none", row_group_size=30)
    return sink.getvalue()


def xlsx_bytes(rows: pa.Table) -> bytes:
    columns = ["name", "note", "n", "share", "paid"]
    return workbook_file(TypedRows(rows.select(columns).to_pylist()), {}, "rows")[0]


def sqlite_bytes(rows: pa.Table) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (name text, note text, n int, share real, day date)")
        found = rows.select(["name", "note", "n", "share", "day"]).to_pylist()
        values = [(*list(row.values())[:4], str(row["day"])) for row in found]
        connection.executemany("insert into t values (?, ?, ?, ?, ?)", values)
        connection.commit()
        return connection.serialize()


def duckdb_bytes(rows: pa.Table) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.register("given", rows)
            connection.execute("create table t as from given")
        return path.read_bytes()


KINDS: dict[str, tuple[str, Callable[[pa.Table], bytes]]] = {
    "arrow": ("arrow", arrow_bytes),
    "stream": ("arrow", stream_bytes),
    "parquet": ("parquet", parquet_bytes),
    "xlsx": ("xlsx", xlsx_bytes),
    "sqlite": ("sqlite", sqlite_bytes),
    "duckdb": ("duckdb", duckdb_bytes),
}
"""By name: the format, and what makes a whole file."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return data with bits flipped, numbers replaced, and parts cut, moved or repeated."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(made))
        match chance.randrange(6):
            case 0:
                made[at] ^= 1 << chance.randrange(8)
            case 1 | 2:  # an offset, a length, a count
                size = chance.choice((2, 4, 8))
                at -= at % size
                old = int.from_bytes(made[at : at + size], "little")
                new = chance.choice(
                    (0, 1, old + 1, old - 1, old * 2, 2**31 - 1, 2**31, 2**63 - 1, -1, len(made),
                     4000, 10**6, chance.getrandbits(64))
                )  # fmt: skip
                made[at : at + size] = (new % 2 ** (8 * size)).to_bytes(size, "little")
            case 3:
                made[at : at + chance.randrange(1, 64)] = b""
            case 4:
                made[at:at] = made[(begin := chance.randrange(len(made))) : begin + 40]
            case 5 if chance.random() < 0.3:
                del made[max(1, at) :]
            case _:
                made[at : at + 4] = chance.randbytes(4)
        made = made or bytearray(b"\0")
    return bytes(made)


def damaged(kind: str, data: bytes, chance: random.Random) -> bytes:
    """Return a damaged file; of a workbook often one whose parts are damaged in a whole archive."""
    if kind != "xlsx" or chance.random() < 0.3:
        return mutated(data, chance)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(
        [name for name in parts if "sheet" in name or "haredS" in name] or [*parts]
    )
    if chance.random() < 0.5:
        parts[name] = mutated(parts[name], chance)
    else:  # its XML stays whole more often
        text = parts[name]
        digits = [at for at, sign in enumerate(text) if chr(sign).isdigit()]
        for at in chance.choices(digits, k=chance.choice((1, 3, 9))):
            sign = chance.choice((b"9" * 30, b"0", b"-1", b"e", b"7", b"1e999", b"."))
            text = text[:at] + sign + text[at + 1 :]
        parts[name] = text
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return sink.getvalue()


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


def content_of(kind: str, data: bytes) -> str:
    """Return the texts that a file can have, as far as they stand in it as they are."""
    if kind != "xlsx":
        return data.decode("utf-8", "replace")
    parts = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            with suppress(zipfile.BadZipFile, zlib.error):  # of a part that no table needs
                parts.append(archive.read(name).decode("utf-8", "replace"))
    return unescape("\n".join(parts))


async def read(path: Path, kind: str, readers: ReaderPool) -> TypedRows | str:
    """Return a file's rows, or why there are none."""
    source = TableSource(str(path), KINDS[kind][0])
    try:
        return (await read_table(source, readers))[0]
    except StepError as error:
        return str(error)


def try_files(kind: str, n_files: int, seed: int, folder: Path) -> Counter[str]:
    """Damage and read files; return how many were read and how many refused.

    Raises:
        AssertionError: text came out that is not the file's.
    """
    chance, whole = random.Random(f"{kind} {seed}"), KINDS[kind][1](table("word"))
    secret, path = folder / "secret.arrow", folder / f"a.{KINDS[kind][0]}"
    secret.write_bytes(arrow_bytes(table(SECRET)))
    counts = Counter[str]()
    readers = ReaderPool(ReaderLimits(60.0, 512 * 1024**2))

    async def try_all() -> None:
        for n in range(n_files):
            planted = await read(secret, "arrow", readers)  # in the memory of both processes
            assert SECRET in repr(planted)
            data = damaged(kind, whole, chance) if n else whole
            path.write_bytes(data)
            found = await read(path, kind, readers)
            if isinstance(found, str):
                assert found.startswith(f"'{path.name}' "), found
                assert SECRET not in found, found
                counts["ended its reader" if "reader ended" in found else "refused"] += 1
                continue
            texts = set(texts_of(found.as_list()))
            assert not any(SECRET[:12] in text for text in texts), (n, kind)
            if kind in ("arrow", "stream", "parquet", "xlsx"):
                content = content_of(kind, data)
                strange = {text for text in texts if not is_of(text, content)}
                assert not strange, (n, kind, list(strange)[:3])
            counts["read"] += 1

    try:
        asyncio.run(try_all())
    finally:
        readers.close()
    return counts


def is_of(text: str, content: str) -> bool:
    """Return whether a text is a file's, or a number or day of it."""
    is_number = not any(letter.isalpha() for letter in text.replace("T", "").replace("Z", ""))
    return text in content or is_number or text.startswith("<value out of range: ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kinds", nargs="*", default=[*KINDS], choices=[*KINDS])
    options = parser.parse_args()
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            counts = try_files(kind, options.files, options.seed, Path(folder))
        print(f"{kind}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
