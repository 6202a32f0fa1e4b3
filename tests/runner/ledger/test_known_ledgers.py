"""Which ledgers are this user's: those that were made or adopted in their home; others are data."""

import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.runner.ledger.entries import LedgerError, RunRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import ForeignState, WrongKind
from paddock.runner.ledger.run_store import RunStore
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import World

pytestmark = pytest.mark.usefixtures("own_home")
COPIES = """\
name: copies
inputs: {place: {type: path, default: inbox}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.place }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
"""
Change = Callable[[Path, Path], None]


@pytest.fixture
def world(own_home: Path, tmp_path: Path) -> World:
    world = World(tmp_path / "theirs", COPIES, beside={"inbox/a.txt": "ferry"})
    assert world.run().status == "completed"
    return world


def sql(folder: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / ".paddock/ledger.sqlite")) as ledger, ledger:
        ledger.execute(statement)


def without_identity(folder: Path) -> None:
    sql(folder, "delete from meta where name = 'identity'")


def counts(folder: Path) -> bool:
    """Return whether a folder's ledger can be read."""
    try:
        with Ledger(folder / ".paddock", is_readonly=True) as ledger:
            return RunStore(ledger).n_runs(None) > 0
    except ForeignState as error:
        assert error.why is WrongKind.UNKNOWN
        return False


def cloned(source: Path, target: Path) -> None:
    git = ("git", "-C", str(source), "-c", "user.name=x", "-c", "user.email=x@example")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-f", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "with its state"], check=True)
    subprocess.run(["git", "clone", "-q", str(source), str(target)], check=True)


def unpacked(source: Path, target: Path) -> None:
    shutil.make_archive(str(target), "tar", source)
    shutil.unpack_archive(f"{target}.tar", target, filter="fully_trusted")


def without_an_identity(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    without_identity(target)


def in_place_of_ours(source: Path, target: Path) -> None:
    """Write their ledger into the file of ours, whose inode stays."""
    own = World(target, COPIES, beside={"inbox/a.txt": "ferry"})
    assert own.run().status == "completed"
    shutil.copyfile(source / ".paddock/ledger.sqlite", target / ".paddock/ledger.sqlite")


def as_a_file_of_sqlite(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    sql(target, f"vacuum into '{target}/backup'")
    (target / "backup").replace(target / ".paddock/ledger.sqlite")


@pytest.mark.parametrize(
    "arrive",
    [shutil.copytree, cloned, unpacked, without_an_identity, in_place_of_ours, as_a_file_of_sqlite],
)
def test_a_ledger_that_was_not_made_here_is_data_until_it_is_adopted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrive: Change
) -> None:
    mine = World(tmp_path / "mine", COPIES)
    shutil.rmtree(mine.folder)
    arrive(world.folder, mine.folder)
    monkeypatch.chdir(mine.folder)
    ledger = mine.folder / ".paddock/ledger.sqlite"
    before = ledger.read_bytes()
    (name,) = {row.run for row in runs_of(world.folder)}
    for command in ("runs", "logs", "clean", "why out/a.txt", "review --list .", "plan", "run"):
        done = invoke(*command.split())
        assert name not in done.stdout, command
        assert f"{ledger} is not used: it was not made here" in done.stderr, command
    assert ledger.read_bytes() == before
    refused = invoke("adopt", ".")
    assert (refused.exit_code, "runs of pipeline.yaml: 1" in refused.stdout) == (2, True)
    assert not counts(mine.folder)
    assert invoke("adopt", "--yes").exit_code == 0
    assert name in invoke("runs").stdout
    assert mine.run().counts["fresh"] == 1
    assert counts(world.folder)


def runs_of(folder: Path) -> list[RunRow]:
    with Ledger(folder / ".paddock", is_readonly=True) as ledger:
        return [*RunStore(ledger).runs()]


def moved(source: Path, target: Path) -> None:
    source.rename(target)


def compacted(source: Path, target: Path) -> None:
    sql(source, "vacuum")
    source.rename(target)


def set_aside_and_back(source: Path, target: Path) -> None:
    ledger = source / ".paddock/ledger.sqlite"
    ledger.rename(source / "ledger")
    (source / "ledger").rename(ledger)
    source.rename(target)


@pytest.mark.parametrize("change", [moved, compacted, set_aside_and_back])
def test_a_rename_keeps_whose_a_ledger_is(world: World, tmp_path: Path, change: Change) -> None:
    change(world.folder, tmp_path / "elsewhere")
    assert counts(tmp_path / "elsewhere")
    assert World(tmp_path / "elsewhere", COPIES).run().counts["fresh"] == 1


def test_in_a_trusted_folder_any_ledger_counts_for_as_long(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(world.folder, tmp_path / "copy"))
    monkeypatch.setenv("PADDOCK_TRUST_STATE", str(tmp_path))
    assert World(copy, COPIES).run().counts["fresh"] == 1
    monkeypatch.delenv("PADDOCK_TRUST_STATE")
    assert not counts(copy)


def test_a_log_of_changes_without_its_ledger_adds_no_rows(world: World, tmp_path: Path) -> None:
    """What SQLite would replay into a file that is there."""
    mine = World(tmp_path / "mine", COPIES, beside={"inbox/a.txt": "ferry"})
    state = mine.folder / ".paddock"
    state.mkdir(mode=0o700)
    with world.ledger() as ledger:
        assert ledger.rows("select 1")
        sql(world.folder, "update runs set run = 'planted-run'")
        for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
            shutil.copy(world.folder / ".paddock" / name, state / name)
    assert mine.run().counts["new"] == 1
    assert "planted-run" not in str(runs_of(mine.folder))


def test_adopting_says_what_a_ledger_has_and_what_leads_out_of_its_folder(
    world: World, tmp_path: Path
) -> None:
    private = tmp_path / "private\x1b[2J"
    private.mkdir()
    (private / "diary.txt").write_text("mine")
    world.run({"place": str(private)})
    sql(world.folder, "update outputs set path = '../other/out.txt'")
    copy = Path(shutil.copytree(world.folder, tmp_path / "copy"))
    lines = invoke("adopt", str(copy)).stdout.splitlines()
    assert lines[0] == "runs of pipeline.yaml: 2"
    assert "items, done: 2" in lines
    assert f"Out of {copy}:" in lines
    assert f"  input 'place' leads to {tmp_path}/private\\x1b[2J" in lines
    assert "  output ../other/out.txt" in lines
    sql(copy, "update runs set given = '[1'")
    assert "The inputs of a run in it cannot be read" in invoke("adopt", str(copy)).stderr
    (tmp_path / ".paddock").mkdir()
    for _ in range(2):
        refused = invoke("adopt", str(tmp_path), "--yes")
        assert refused.stderr == f"There is no ledger in '{tmp_path}'.\n"
        with contextlib.closing(sqlite3.connect(tmp_path / ".paddock/ledger.sqlite")) as other:
            other.execute("create table if not exists runs (run)")


def test_a_ledger_on_a_network_file_system_is_written_by_one_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system says of the mount is set: no server of NFS runs here."""
    mounted = {"kind": "nfs4"}
    monkeypatch.setattr(
        "paddock.runner.ledger.database.known_ledgers.network_file_system",
        lambda device: mounted["kind"],
    )
    host = {"name": "first"}
    monkeypatch.setattr("socket.gethostname", lambda: host["name"])
    assert world.run().status == world.run().status == "completed"
    host["name"] = "second"
    with pytest.raises(LedgerError) as refused:
        world.run()
    assert "'first' writes this ledger, which lies on a network file system (nfs4)" in str(
        refused.value
    )
    assert world.plan().items  # reading harms nothing
    assert invoke("adopt", str(world.folder)).exit_code != 0
    done = invoke("adopt", str(world.folder), "--yes")
    assert done.stdout == "'first' wrote it until now.\nTaken.\n"
    assert world.run().status == "completed"
    host["name"], mounted["kind"] = "third", ""  # it was moved to a disk of its own
    assert world.run().status == "completed"
