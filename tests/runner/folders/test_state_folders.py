"""Whose state is believed, and where: a `.paddock` that lies among documents is data."""

import os
import shutil
from pathlib import Path

import pytest

from paddock.engine.system import owners
from paddock.engine.system.owners import Stranger, find_other_owner
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import ForeignState, WrongKind
from paddock.runner.ledger.retention import RetentionLimits, sweep_ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.settings import UnattendedSettings, read_settings
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import World

SECOND_USER = 54321
ALL = RetentionLimits(runs_before=1e12, calls_before=1e12)
pytestmark = pytest.mark.usefixtures("own_home")
as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="a second user was NOT tried: only root can be another user"
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "pipes", n_documents=2)
    world.run()
    monkeypatch.chdir(world.folder)
    return world


def plant(world: World, at: str, owner: int | None = None) -> Path:
    """Put a copy of the ledger among documents, as another user if given."""
    state = world.folder / at / ".paddock"
    shutil.copytree(world.folder / ".paddock", state)
    if owner is not None:
        give(state, owner)
    return state


def give(path: Path, owner: int) -> None:
    for at in (path, *path.rglob("*")):
        os.lchown(at, owner, owner)


def found(folder: Path) -> tuple[list[Path], list[str]]:
    notes: list[str] = []
    return [place.state for place in find_ledgers([folder], notes.append)], notes


def test_what_lies_among_documents_is_named_once_and_never_opened(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant(world, "inbox/deep")
    (planted.parent / "pipeline.yaml").write_text(world.text)
    (planted / "ledger.sqlite").write_bytes(b"no database" * 1000)
    places, (note,) = found(world.folder)
    assert places == [world.folder / ".paddock"]
    assert note.startswith(f"{planted / 'ledger.sqlite'} is not used: it was not made here")
    assert found(planted.parent) == ([], [note])
    monkeypatch.setenv("PADDOCK_TRUST_STATE", str(tmp_path))
    assert found(world.folder) == (
        [world.folder / ".paddock"],
        [f"{planted} is not used: it lies below {world.folder}, as what arrives there may. Where a "
         "pipeline of yours lies there, name its file."],
    )  # fmt: skip
    with Ledger(world.folder / "own/.paddock"):
        assert len(found(world.folder)[0]) == 2, "one that was made here is found below, too"


def test_the_state_of_a_pipeline_that_scans_its_own_folder_counts_and_none_below(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.edit("./inbox", ".")
    world.write("a.txt", "ferry")
    world.run()
    plant(world, "deep")
    assert [place.state for place in find_ledgers([tmp_path])] == [tmp_path / ".paddock"]


def test_a_folder_of_documents_that_only_the_ledger_knows_is_one(world: World) -> None:
    world.edit("root: ./inbox", 'root: "{{ inputs.place }}"')
    world.edit("inputs:", "inputs:\n  place: {type: path}")
    other = world.write("other/a.txt", "ferry").parent
    world.run({"place": str(other)})
    plant(world, "other/deep")
    assert found(world.folder)[0] == [world.folder / ".paddock"]


def test_ledgers_around_a_document_are_those_of_pipelines(world: World) -> None:
    plant(world, "inbox")
    plant(world, "inbox/deep")
    around = ledgers_around([world.folder / "inbox/deep/a.txt"])
    assert [place.state for place in around] == [world.folder / ".paddock"]


@as_root
def test_what_another_user_made_is_not_used_and_the_line_that_trusts_it_is_named(
    world: World, tmp_path: Path
) -> None:
    state = world.folder / ".paddock"
    give(state, SECOND_USER)
    before = {file: file.read_bytes() for file in state.rglob("*") if file.is_file()}
    line = f'trust_state = ["{world.folder}"]'
    text = (
        f"{state} is not used: it belongs to another user.\n  If it is data, leave it. If those "
        f"who can write there may decide what Paddock does here, write into "
        f"{tmp_path / 'config/paddock/paddock.toml'}:\n  {line}"
    )
    assert found(world.folder) == ([], [text])
    with pytest.raises(ForeignState) as caught:
        world.run()
    assert str(caught.value) == text
    for command in ("run", "plan", "runs", "logs", "clean", "review --list", "why"):
        done = invoke(*command.split(), "pipeline.yaml")
        assert text in done.stderr, command
    assert {file: file.read_bytes() for file in state.rglob("*") if file.is_file()} == before
    config = tmp_path / "config/paddock/paddock.toml"
    config.parent.mkdir(parents=True)
    config.write_text(line)
    assert world.run().counts == {"fresh": 3}
    assert found(world.folder)[0] == [state]


def test_a_state_folder_that_others_can_write_to_is_not_used(world: World) -> None:
    state = world.folder / ".paddock"
    state.chmod(0o777)
    with pytest.raises(ForeignState, match="other users can write to it"), Ledger(state):
        pass
    state.chmod(0o755)
    (state / "ledger.sqlite").chmod(0o666)
    with pytest.raises(ForeignState, match=r"sqlite is not used: other users"), Ledger(state):
        pass


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-wal", "id"])
def test_a_ledger_that_is_a_link_is_refused(world: World, tmp_path: Path, name: str) -> None:
    file = world.folder / ".paddock" / name
    (tmp_path / "elsewhere").write_bytes(file.read_bytes() if file.exists() else b"")
    file.unlink(missing_ok=True)
    file.symlink_to(tmp_path / "elsewhere")
    for is_readonly in (True, False):
        with pytest.raises(ForeignState) as caught, Ledger(file.parent, is_readonly=is_readonly):
            pass
        assert caught.value.why is WrongKind.LINK


def test_a_pipe_in_place_of_a_ledger_is_refused_and_not_waited_for(world: World) -> None:
    file = world.folder / ".paddock/ledger.sqlite"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(LedgerError, match="something else stands in place of a file"):
        sweep_ledger(file.parent, "", ALL)


def test_links_of_ones_own_on_the_way_are_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(world.folder)
    big = tmp_path / "big"
    (world.folder / ".paddock/runs").rename(big)
    (world.folder / ".paddock/runs").symlink_to(big)
    with Ledger(tmp_path / "linked/.paddock", is_readonly=True) as ledger:
        assert len(RunStore(ledger).runs()) == 1
    assert sweep_ledger(world.folder / ".paddock", "", ALL).logs == 0
    assert len(list(big.iterdir())) == 1


@as_root
def test_settings_of_another_user_beside_a_pipeline_are_named_and_not_used(world: World) -> None:
    file = world.write("paddock.toml", 'keep_runs = "1m"\n')
    os.utime(next((world.folder / ".paddock/runs").iterdir()), (1e9, 1e9))
    os.lchown(file, SECOND_USER, SECOND_USER)
    text = f"{file} is not used: it belongs to another user."
    cleaned = invoke("clean")
    assert (cleaned.exit_code, cleaned.stderr.count(text)) == (0, 1)
    settings = read_settings(world.folder)
    assert settings.left_out[0].startswith(text)
    assert settings.unattended.keep_runs_s == UnattendedSettings().keep_runs_s
    file.chmod(0o664)
    os.lchown(file, os.getuid(), SECOND_USER)  # a group's, as the pipeline's own file
    assert read_settings(world.folder).unattended.keep_runs_s == 60
    file.chmod(0o666)
    assert "other users can write to it" in read_settings(world.folder).left_out[0]


def test_a_file_system_that_another_user_mounted_names_no_owners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """FUSE shows any number as the owner of a file."""
    facts = tmp_path.stat()
    number = f"{os.major(facts.st_dev)}:{os.minor(facts.st_dev)}"
    options = f"rw,user_id={SECOND_USER},group_id=0,allow_other"
    mounts = f"40 27 {number} / /x rw - fuse.sshfs evil {options}\n"
    assert find_other_owner(facts) is None
    monkeypatch.setattr(owners, "_text_of", lambda file: mounts)
    owners._mount_of.cache_clear()
    assert find_other_owner(facts) is Stranger.OWNER
    owners._mount_of.cache_clear()
