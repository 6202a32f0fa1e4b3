"""Files that go elsewhere: whole, never over another one unasked, and known again after a kill."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.files import TemporaryFile
from paddock.steps.base import StepError
from paddock.steps.files.move import FilesMove, FilesMoveParams
from tests.fakes.tools import Call, FakeOutputs, carried_out, refused, tools


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("hello")
    return tmp_path.resolve()


@pytest.fixture
def move(folder: Path, outputs: FakeOutputs) -> Call:
    def move(path: str, to: str | None = None, **wishes: Any) -> str:
        outputs.intended.clear()  # a run of its own
        within = tools(folder, outputs=outputs)
        made = carried_out(FilesMove(), within, path=path, to=to, **wishes)
        return str(Path(made.path).relative_to(folder))

    return move


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_is_moved_noted_before_and_keeps_its_name_in_a_folder(
    folder: Path, outputs: FakeOutputs, move: Call
) -> None:
    assert move("in/a.txt", "done/2026/b.txt") == "done/2026/b.txt"
    assert files(folder) == ["done/2026/b.txt"]
    assert outputs.events == [
        ("intend", folder / "done/2026/b.txt"), ("brings_away", folder / "in/a.txt")
    ], "pruning takes outputs only"  # fmt: skip
    assert move("done/2026/b.txt", "in/") == "in/b.txt"
    assert move("in/b.txt", "done") == "done/b.txt"
    assert move("done/b.txt", "done/") == "done/b.txt"


def test_a_copy_is_an_output(folder: Path, outputs: FakeOutputs, move: Call) -> None:
    os.utime(folder / "in/a.txt", (1e9, 1e9))
    (folder / "in/a.txt").chmod(0o640)
    assert move("in/a.txt", "b.txt", mode="copy") == "b.txt"
    assert [event for event, _ in outputs.events] == ["intend", "wrote"]
    assert files(folder) == ["b.txt", "in/a.txt"]
    facts = (folder / "b.txt").stat()
    assert (facts.st_mtime, facts.st_mode & 0o777) == (1e9, 0o640)


def test_an_older_copy_of_ours_is_replaced(folder: Path, move: Call) -> None:
    move("in/a.txt", "b.txt", mode="copy")
    (folder / "in/a.txt").write_text("changed")
    assert move("in/a.txt", "b.txt", mode="copy") == "b.txt"
    assert (folder / "b.txt").read_text() == "changed"
    (folder / "b.txt").write_text("by hand")
    assert move("in/a.txt", "b.txt", mode="copy") == "b-1.txt"


def test_another_file_in_its_place_stays(folder: Path, move: Call) -> None:
    (folder / "b.txt").write_text("mine")
    assert refused(move, "in/a.txt", "b.txt", on_exists="fail") == (
        f"'{folder / 'b.txt'}' exists already, and `on_exists` is `fail`. "
        "Move it away, or set `on_exists` to `rename` or `replace`."
    )
    assert move("in/a.txt", "b.txt") == "b-1.txt"
    assert (folder / "b.txt").read_text() == "mine"
    assert move("b-1.txt", "b.txt", on_exists="replace") == "b.txt"
    assert (folder / "b.txt").read_text() == "hello"


def test_two_items_with_the_same_name_get_two_names(folder: Path, outputs: FakeOutputs) -> None:
    (folder / "in2").mkdir()
    (folder / "in2/a.txt").write_text("other")

    async def both() -> list[str]:
        hands = tools(folder, outputs=outputs)
        params = [FilesMoveParams(path=f"{name}/a.txt", to="done/") for name in ("in", "in2")]
        done = await asyncio.gather(*(FilesMove().run(one, hands) for one in params))
        return sorted(Path(one.path).name for one in done)

    assert asyncio.run(both()) == ["a-1.txt", "a.txt"]


def test_what_a_killed_run_has_moved_is_known_again(folder: Path, move: Call) -> None:
    (folder / "b.txt").write_text("mine")
    assert move("in/a.txt", "b.txt") == "b-1.txt"
    assert move("in/a.txt", "b.txt") == "b-1.txt", "it is gone, and we moved it"
    (folder / "b-1.txt").write_text("edited")
    assert refused(move, "in/a.txt", "b.txt") == f"'{folder}/in/a.txt' does not exist."


def test_across_devices_it_is_copied_first(
    folder: Path, move: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "a.txt":
            raise OSError(errno.EXDEV, "another device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert move("in/a.txt", "b.txt") == "b.txt"
    assert files(folder) == ["b.txt"]
    assert (folder / "b.txt").read_text() == "hello"


def test_a_file_is_deleted_once(folder: Path, move: Call) -> None:
    assert move("in/a.txt", None, mode="delete") == "in/a.txt"
    assert move("in/a.txt", None, mode="delete") == "in/a.txt"
    assert files(folder) == []


def test_folders_and_what_lies_elsewhere_are_refused(folder: Path, move: Call) -> None:
    assert refused(move, "in", "out") == (
        f"'{folder / 'in'}' is a folder; `files.move` takes files."
    )
    assert "is a folder; `files.move` deletes files." in refused(move, "in", None, mode="delete")
    assert "leads outside the pipeline's folders" in refused(move, "in/a.txt", "../b")
    (folder / "away").symlink_to("/tmp")
    assert "leads outside" in refused(move, "in/a.txt", "away/")
    assert refused(move, "in/a.txt", None, mode="copy") == (
        "`to` is missing. `mode: copy` needs it."
    )


def test_a_full_disk_ends_the_run_and_leaves_nothing_half(
    folder: Path, move: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(TemporaryFile, "replace", full)
    with pytest.raises(StepError) as caught:
        move("in/a.txt", "b.txt", mode="copy")
    assert caught.value.is_fatal
    assert files(folder) == ["in/a.txt"]
