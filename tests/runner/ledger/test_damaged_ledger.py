"""A damaged ledger is refused in one sentence, or works; what pipelines wrote stays."""

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.runner.ledger.database.sqlite_file import SqliteDatabase
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from tests.runner.world import SUMMARIES, World

FLIPS = 200


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pipeline that has run."""
    world = World(tmp_path_factory.mktemp("done"), SUMMARIES, n_documents=3)
    assert world.run().status == "completed"
    return world.folder


def without_checks(*statements: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA writable_schema=ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return damage


def write_at(place: int, data: bytes) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with file.open("r+b") as opened:
            opened.seek(place)
            opened.write(data)

    return damage


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def garbage_log(file: Path) -> None:
    file.with_name(f"{file.name}-wal").write_bytes(b"\xff" * 8192)


def name_that_is_no_utf8(file: Path) -> None:
    """Break a table's statement and its name, which is part of SQLite's error."""
    data = file.read_bytes()
    assert b"tableitemsitems" in data
    data = data.replace(b"tableitemsitems", b"table\xff\xfe\xff\xfe\xffitems")
    file.write_bytes(re.sub(rb"(?i)create table", b"create \xff\xfeble", data))


def zero_pages_with(file: Path, text: bytes) -> None:
    data = bytearray(file.read_bytes())
    for start in range(0, len(data), 4096):
        if text in data[start : start + 4096]:
            data[start : start + 4096] = bytes(4096)
    file.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("This is no database. " * 500),
    "zeros": lambda file: file.write_bytes(bytes(65536)),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "100 bytes": lambda file: os.truncate(file, 100),
    "header": write_at(0, b"\xff" * 16),
    "page size": write_at(16, b"\x01\x03"),
    "first page": write_at(100, random.Random(1).randbytes(3900)),
    "middle": write_at(20_000, b"\xff" * 8192),
    "name is no UTF-8": name_that_is_no_utf8,
    "table is gone": without_checks("delete from sqlite_master where name = 'items'"),
    "schema of a table": without_checks("update sqlite_master set sql = 'create table items(a)'"),
    "zeros in a page of values": lambda file: zero_pages_with(file, b'"content":'),
    "folder": replace_by_folder,
    "log": garbage_log,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_ledger_is_refused_in_one_sentence_or_works(
    done: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(done, folder)
    DAMAGES[name](folder / ".paddock" / "ledger.sqlite")
    kept = {path.name: path.read_text() for path in (folder / "out").iterdir()}
    try:
        report = World(folder, SUMMARIES).run()
    except LedgerError as error:
        message = str(error)
    else:
        message = report.message or ""
        assert message or report.status == "completed"
    assert "\n" not in message and "Traceback" not in message
    assert {path.name: path.read_text() for path in (folder / "out").iterdir()} == kept


def test_any_flipped_bytes_are_refused_in_one_sentence_or_read(done: Path, tmp_path: Path) -> None:
    original = (done / ".paddock" / "ledger.sqlite").read_bytes()
    chance, n_refused = random.Random(24), 0
    for number in range(FLIPS):
        data = bytearray(original)
        if number % 5 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice((1, 3, 30))):
                # Most of what matters to SQLite is in the first pages.
                most = chance.choice((200, 4096, len(data)))
                data[chance.randrange(most)] ^= 1 << chance.randrange(8)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "ledger.sqlite").write_bytes(data)
        try:
            with Ledger(folder, is_readonly=True) as ledger:
                ledger.in_flight()
            database = SqliteDatabase(folder / "ledger.sqlite")
            try:
                for _ in database.lasting_rows():
                    pass
            finally:
                database.close()
        except LedgerError as error:
            n_refused += 1
            assert "\n" not in str(error)
    assert 0 < n_refused < FLIPS
