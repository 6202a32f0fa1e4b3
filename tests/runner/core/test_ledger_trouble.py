"""A full disk, a ledger that someone holds, a clock that jumps: said plainly, and nothing lost."""

import json
import random
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system.private_files import write_private
from paddock.runner.cli.exit_status import FAILED, status_and_message
from paddock.runner.core.run_records import read_lineage
from paddock.runner.ledger.database import ledger_writer, sqlite_file
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.events import Observer
from tests.fakes.pool import FakePool, echo
from tests.runner.core.test_interruptions import finished
from tests.runner.mounting import run_with_mounts
from tests.runner.world import World, states
from tests.waiting import PATIENCE_S

# In name spaces of its own: a small file system where `small` is, one run on it, then room is made
# by another one that is larger, with what was there, and the same run again.
SMALL_DISK = """
import json, os, shutil, subprocess, sys
from pathlib import Path
from paddock.runner.ledger.entries import LedgerError
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World

folder, small, size, n_chars = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
small.mkdir(parents=True, exist_ok=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=True)

def answer(request):
    return f"{echo(request)} {'x' * n_chars}"

def run(world):
    try:
        return world.run(pool=FakePool(answer=answer)).as_json()
    except LedgerError as error:
        return {"error": str(error)}

world = World(folder)
reports = [run(world)]
subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
reports.append(run(world))
shutil.copytree(folder / "out", folder / "kept")
print(json.dumps(reports))
"""
N_DOCUMENTS = 120


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return what runs a pipeline with one folder on a small disk, and then on a larger one."""

    def run(small: str, size: str, n_chars: int = 0) -> list[dict[str, Any]]:
        World(tmp_path, n_documents=N_DOCUMENTS)
        output = run_with_mounts(SMALL_DISK, tmp_path, tmp_path / small, size, str(n_chars))
        reports: list[dict[str, Any]] = json.loads(output)
        return reports

    return run


def went_on(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Make sure that the second run did what the first had not, and nothing else."""
    assert (first["status"], second["status"]) == ("failed", "completed")
    n_done = first["counts"]["new"]
    assert 0 < n_done < N_DOCUMENTS
    assert second["counts"]["fresh"] == n_done
    assert second["counts"]["new"] == N_DOCUMENTS + 1 - n_done
    kept = list((tmp_path / "kept").iterdir())
    assert len(kept) == N_DOCUMENTS + 1
    assert all(file.stat().st_size for file in kept)


@pytest.mark.parametrize(
    ("small", "size", "n_chars", "says"),
    [
        ("out", "200k", 0, ".txt' cannot be written: the disk is full"),
        (".paddock", "600k", 0, "the ledger cannot be written (database or disk is full)"),
        (".paddock/objects", "1m", 18_000,
            "the ledger cannot be written ([Errno 28] No space left on device)"),
    ],
    ids=["outputs", "ledger", "large values"],
)  # fmt: skip
def test_a_disk_that_becomes_full(
    tmp_path: Path, on_a_small_disk: Callable[..., list[dict[str, Any]]],
    small: str, size: str, n_chars: int, says: str,
) -> None:  # fmt: skip
    first, second = on_a_small_disk(small, size, n_chars)
    went_on(tmp_path, first, second)
    assert says in first["message"]
    assert first["message"].endswith(". Free some space and run again; finished items are kept.")


def test_a_disk_that_is_full_before_anything_is_done(
    tmp_path: Path, on_a_small_disk: Callable[..., list[dict[str, Any]]]
) -> None:
    first, second = on_a_small_disk(".paddock", "60k")
    assert first["error"] == (
        "the ledger cannot be written (database or disk is full). Free some space and run again; "
        "finished items are kept."
    )
    assert second["counts"]["new"] == N_DOCUMENTS + 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TRIED: there is no /dev/full")
def test_a_disk_that_is_full_when_a_lock_is_written_is_named_with_what_to_do() -> None:
    with pytest.raises(OSError) as caught:
        write_private(Path("/dev/full"), "x")
    assert status_and_message(caught.value) == (
        FAILED,
        "/dev/full: No space left on device. Free some space and run again; "
        "what was finished is kept.",
    )


# --- a ledger that someone holds


class Holder:
    """Another program that holds the ledger's write lock, such as a database browser."""

    def __init__(self, world: World) -> None:
        self._file = world.folder / ".paddock/ledger.sqlite"
        self._connection: sqlite3.Connection | None = None

    def hold(self, how: str = "immediate") -> None:
        self._connection = sqlite3.connect(
            self._file, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False
        )
        self._connection.execute(f"begin {how}")

    def let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report a holder after a moment, and wait for it a second."""
    monkeypatch.setattr(sqlite_file, "NOTED_AFTER_S", 0.1)
    monkeypatch.setattr(ledger_writer, "BUSY_S", 1.0)


def holding_from(holder: Holder, document: int) -> FakePool:
    """Answer; at this document, someone takes hold of the ledger."""

    def answer(request: ChatRequest) -> str:
        if request.messages[-1].content.startswith(f"Sum up: Document {document},"):
            holder.hold()
        return echo(request)

    return FakePool(answer=answer)


def test_a_ledger_that_is_held_for_a_while_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soon: None
) -> None:
    monkeypatch.setattr(ledger_writer, "BUSY_S", 60.0)
    world = World(tmp_path, n_documents=6)
    world.edit("    do:\n", "    max_parallel: 1\n    do:\n")
    holder = Holder(world)
    notes: list[str] = []

    class LetsGo(Observer):
        def note(self, text: str) -> None:
            notes.append(text)
            holder.let_go()

    report = world.run(pool=holding_from(holder, 3), observer=LetsGo())
    assert report.status == "completed"
    assert notes == ["another program holds the ledger; waiting for it"]
    assert world.run().counts == {"fresh": 7}


def test_a_ledger_that_is_held_for_ever_stops_the_run_with_nothing_lost(
    tmp_path: Path, soon: None
) -> None:
    world = World(tmp_path, n_documents=6)
    world.edit("    do:\n", "    max_parallel: 1\n    do:\n")
    holder = Holder(world)
    report = world.run(pool=holding_from(holder, 3))
    holder.let_go()
    assert (report.status, report.exit_status()) == ("failed", 1)
    assert report.message == (
        f"{tmp_path}/.paddock/ledger.sqlite: another program holds the ledger and did not release "
        f"it. End that program (a backup, a database browser) and run again; finished items are "
        f"kept."
    )
    done = {f"{number}.txt" for number in finished(world)}
    assert set(states(report)) == done and len(done) in range(1, 6)
    again = world.run()
    assert again.status == "completed"
    assert again.counts == {"fresh": len(done), "new": 7 - len(done)}


def test_a_ledger_that_no_one_may_even_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.ledger.database.sqlite_file.READ_WAIT_S", 0.1)
    world = World(tmp_path, n_documents=1)
    world.run()
    file = tmp_path / ".paddock/ledger.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as browser:
        browser.execute("pragma locking_mode = exclusive")
        browser.execute("begin exclusive")
        browser.execute("update meta set value = value")
        for verb in (world.run, world.plan):
            with pytest.raises(LedgerError) as caught:
                verb()
            assert str(caught.value).startswith(f"{file}: another program holds the ledger and")
        browser.execute("rollback")
    browser.close()
    assert world.run().counts == {"fresh": 2}


def test_lineage_of_another_version_is_named(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=2)
    world.run()
    next((tmp_path / "inbox").iterdir()).rename(tmp_path / "inbox/renamed.txt")
    with closing(sqlite3.connect(tmp_path / ".paddock/ledger.sqlite")) as database:
        database.execute(
            "update events set made = json_set(made, '$.source.inode', 7) where made is not null"
        )
        database.commit()
    said = "`inode`.*another version wrote it"
    report = world.run()
    assert report.status == "failed" and re.search(said, report.message or "")
    with pytest.raises(LedgerError, match=said):
        world.plan()


ROWS = """\
steps:
  - {id: list, uses: files.rows, with: {path: rows.jsonl}}
  - id: each
    for_each: row in steps.list.rows
    do:
      - {uses: files.write, with: {path: "out/{{ row.path }}", text: "{{ row.sha256 }}"}}
"""
ODD_FACTS: list[dict[str, Any]] = [
    {"size": True}, {"size": False}, {"size": 2**80}, {"size": -1}, {"size": 1.5},
    {"size": "7"}, {"size": None}, {"size": [7]}, {"modified": True}, {"modified": None},
    {"modified": 7}, {"modified": {}}, {"modified": "\0"}, {"size": 7, "modified": "m"},
]  # fmt: skip


def test_lineage_of_odd_rows_is_read_again(tmp_path: Path) -> None:
    lines = [
        json.dumps({"path": f"{n}.txt", "sha256": "abc", **odd}) for n, odd in enumerate(ODD_FACTS)
    ]
    world = World(tmp_path, ROWS, {"rows.jsonl": "\n".join(lines)})
    assert world.run().counts == {"new": len(ODD_FACTS)}
    with world.ledger() as ledger:
        scopes = [str(scope) for (scope,) in ledger.rows("select scope from scopes")]
        rows = [row for s in scopes for row in LineageStore(ledger).of_scope(s).values()]
        sources = [made.source for made in map(read_lineage, rows) if made.source is not None]
    assert (len(sources), sum(s.size for s in sources)) == (len(ODD_FACTS), 2**80 + 6)
    assert {s.modified for s in sources} == {"", "\0", "m"}
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[1:]))
    assert world.run().status == "completed"
    assert explain_path(tmp_path / "out/1.txt", [world.file]).origins


READ_ONLY_FOLDER = """
import subprocess, sys
from pathlib import Path
from paddock.runner.ledger.entries import LedgerError
from tests.runner.world import World

state = Path(sys.argv[1]) / ".paddock"
subprocess.run(["mount", "--bind", str(state), str(state)], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", str(state)], check=True)
try:
    World(Path(sys.argv[1])).plan()
except LedgerError as error:
    print(error)
"""


def test_a_ledger_in_a_folder_that_turns_read_only_is_not_called_broken(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=1)
    world.run()
    assert run_with_mounts(READ_ONLY_FOLDER, tmp_path) == (
        f"{tmp_path}/.paddock/ledger.sqlite: the ledger cannot be opened (unable to open database "
        "file). SQLite needs the file and its folder to be writable, also for reading. Make them "
        "so and run again; finished items are kept.\n"
    )
    assert world.run().counts == {"fresh": 2}


# --- a clock that jumps


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten years forth, twenty back: a battery that is empty, a network that tells the time late."""
    dice, real = random.Random(3), time.time
    monkeypatch.setattr(time, "time", lambda: real() + dice.uniform(-3e8, 3e8))
    world = World(tmp_path, n_documents=5)
    world.edit("name: summaries\n", "name: summaries\nbudget: {time: 10m}\n")
    world.edit("{id: sum,", "{id: sum, timeout: {total: 1h},")
    report = world.run(pool=FakePool(delay_s=0.01))
    assert (report.status, report.calls) == ("completed", 6)
    assert 0 < report.seconds < 900
    world.write("inbox/2.txt", "Changed.")
    assert states(world.run()) == {"2.txt": "changed"}
    assert world.run().counts == {"fresh": 6}
    monkeypatch.undo()
    assert world.run().counts == {"fresh": 6}
