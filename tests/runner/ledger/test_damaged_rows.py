"""A damaged ledger is refused in one sentence, or works; what pipelines wrote stays."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.ledger import sqlite_file
from paddock.runner.ledger.damaged_rows import row_faults
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.sqlite_file import SqliteDatabase
from paddock.runner.lineage.explain import explain_path
from paddock.runner.lineage.traces import PathLineage
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool, echo
from tests.runner.core.test_waiting import Bills, read_bill
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
    "value that is no JSON": without_checks("update outputs set intended = '[' || char(0)"),
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


def test_a_fault_of_the_program_is_no_damage_where_the_ledger_is_whole(done: Path) -> None:
    with pytest.raises(KeyError), Ledger(done / ".paddock"):
        raise KeyError("x")


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
                ledger.attempts_left(60.0)
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


RICH = """\
name: bills
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}", examples: {from: reviews, k: 2}}
        reply: {schema: {number: str, total: float}, evidence: steps.text}
        review: {when: "output.total > 50"}
      - {id: rows, uses: embed, with: {texts: ["{{ steps.text.text }}"], store: ./store}}
      - {id: sum, uses: tool, with: {name: calculator, args: {expression: "2 + 3"}}}
      - id: parts
        for_each: word in ['north', 'south']
        key: word
        do:
          - {id: say, uses: chat, with: {prompt: "Say {{ word }} of {{ steps.text.text }}"}}
          - uses: files.write
            with: {path: "out/{{ word }}/{{ doc.relpath }}", text: "{{ steps.say.text }}"}
      - {id: label, uses: pipeline, with: {file: sub.yaml, inputs: {text: "{{ doc.stem }}"}}}
    returns: {n: steps.bill.output.number, sum: steps.sum.result}
  - {id: near, uses: search, with: {store: ./store, query: "Read", k: 1}, needs: [each]}
  - {id: all, uses: reduce, with: {over: "{{ steps.each.results }}", prompt: "All"}}
  - {uses: files.write, with: {path: out/ALL, text: "{{ steps.all.text }}"}}
"""
SUB = """\
name: sub
inputs: {text: {type: str}}
steps: [{id: label, uses: chat, with: {prompt: "Label {{ inputs.text }}"}}]
returns: {label: steps.label.text}
"""


def pool() -> FakePool:
    def answer(request: ChatRequest) -> str:
        return read_bill(request) if "Read:" in request.messages[-1].content else echo(request)

    return FakePool(answer=answer)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Bills:
    """Return a pipeline whose ledger has rows of many kinds."""
    world = Bills(tmp_path_factory.mktemp("rich"), RICH, {"sub.yaml": SUB})
    world.bills(a=10, b=60, c=70)
    assert world.work(pool=pool()).status == "completed"
    world.decide("b.txt", "edit", {"number": "b", "total": 61})
    world.bills(d=5)
    (world.folder / "inbox/a.txt").unlink()
    assert world.work(pool=pool()).status == "completed"
    return world


def test_a_whole_ledger_has_no_damaged_row(rich: Bills) -> None:
    with closing(sqlite3.connect(rich.folder / ".paddock" / "ledger.sqlite")) as connection:
        tables = ("runs", "scopes", "items", "calls", "outputs", "provenance", "specs", "stored",
                  "roots", "reviews")  # fmt: skip
        for table in tables:
            assert connection.execute(f"select count(*) from {table}").fetchone() > (0,), table
        assert list(row_faults(connection.execute)) == []


FLIPS_IN_JSON = [
    ("specs", "text", '"steps":', '"sdeps":'),
    ("specs", "text", '"blocks":', '"blocis":'),
    ("provenance", "made", '"began":', '"begcn":'),
    ("provenance", "made", '"calls":', '"cells":'),
    ("items", "reads", '["written",', '["wsitten",'),
    ("items", "reads", '["examples",', '["exampler",'),
    ("roots", "folder", '"is":', '"ir":'),
    ("roots", "folder", '"mounts":', '"mofnts":'),
    ("calls", "reply", '"value":', '"walue":'),
    ("calls", "usage", '"digest":', '"dhgest":'),
]


@pytest.mark.parametrize(("table", "column", "old", "new"), FLIPS_IN_JSON)
def test_a_flipped_letter_in_json_of_a_row_is_one_sentence(
    rich: Bills,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    column: str,
    old: str,
    new: str,
) -> None:
    monkeypatch.setattr("paddock.runner.core.model_pools.LookupPool", lambda settings: pool())
    assert_is_told(
        rich, tmp_path / "damaged", table, f"replace({column}, ?, ?)", (old, new), column
    )


WRONG_TYPES = [
    ("roots", "folder", "1"),
    ("items", "parts", "1"),
    ("items", "reads", '{"inbox/a.txt": 1}'),
    ("outputs", "intended", "1"),
    ("provenance", "made", '{"source": 1, "steps": 1}'),
    ("specs", "text", "1"),
    ("calls", "reply", "1"),
    ("reviews", "head", "1"),
]


@pytest.mark.parametrize(("table", "column", "value"), WRONG_TYPES)
def test_a_value_of_a_wrong_type_in_a_row_is_one_sentence(
    rich: Bills,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    column: str,
    value: str,
) -> None:
    monkeypatch.setattr("paddock.runner.core.model_pools.LookupPool", lambda settings: pool())
    assert_is_told(rich, tmp_path / "damaged", table, "?", (value,), column)


def assert_is_told(
    rich: Bills, folder: Path, table: str, value: str, values: tuple[str, ...], column: str
) -> None:
    """Set values in a copy of a ledger; every command that notices says so in one sentence."""
    shutil.copytree(rich.folder, folder)
    file = folder / ".paddock" / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(f"update {table} set {column} = {value}", values).rowcount
    world = Bills(folder, RICH)
    found = [refusal_of(world.plan), refusal_of(lambda: explain_path(folder / "out" / "ALL"))]
    world.edit("Read: {{", "Read: now {{")
    found += [refusal_of(world.plan), refusal_of(lambda: world.work(pool=pool()))]
    sentences = {sentence for sentence in found if sentence}
    assert sentences
    for sentence in sentences:
        assert "\n" not in sentence
        assert sentence.startswith(f"{file}: the ledger cannot be read (the row of '{table}' with ")


@pytest.mark.parametrize(
    "place",
    ["paddock.runner.core.blocks.has_no_nested_items", "paddock.steps.files.read.read_document"],
)
def test_a_wrong_type_in_the_program_is_shown_as_it_is_where_a_row_is_damaged_too(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(done, folder)
    file = folder / ".paddock" / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update runs set summary = '{' || summary")

    def faulty(*_: object) -> None:
        raise TypeError("a fault of the program")

    monkeypatch.setattr(place, faulty)
    world = World(folder, SUMMARIES)
    world.documents(4)
    try:
        report = world.run()
    except TypeError as error:
        assert str(error) == "a fault of the program"
    else:
        assert report.log is not None
        assert "a fault of the program" in Path(report.log).read_text()
    with pytest.raises(TypeError), Ledger(folder / ".paddock", is_readonly=True):
        len(1)  # type: ignore[arg-type]


def refusal_of(act: Callable[[], object]) -> str | None:
    """Return how an act was refused; None: it was not."""
    try:
        report = act()
    except LedgerError as error:
        return str(error)
    if isinstance(report, PathLineage) and report.faults:
        return report.faults[0]
    if not isinstance(report, Report):
        return None
    assert report.log is None, "there is no traceback"
    return report.message


@pytest.mark.parametrize(("table", "column"), [("runs", "summary"), ("runs", "given")])
def test_a_run_whose_json_is_cut_is_one_sentence_also_where_runs_are_listed(
    done: Path, tmp_path: Path, table: str, column: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(done, folder)
    file = folder / ".paddock" / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"update {table} set {column} = '{{' || {column}")
    is_damaged = pytest.raises(
        LedgerError, match=r"cannot be read \(run '.*' is damaged: Expecting"
    )
    with Ledger(folder / ".paddock", is_readonly=True) as ledger, is_damaged:
        ledger.runs()


def test_the_modules_that_take_rows_apart_are_known_by_their_present_names() -> None:
    names = (*sqlite_file._READ_ROWS, *sqlite_file._READ_ANSWERS)
    assert all(find_spec(name.removesuffix(".")) for name in names)
