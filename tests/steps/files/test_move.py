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
from tests.fakes.tools import FakeOutputs, tools


@pytest.fixture
def outputs() -> FakeOutputs:
    return FakeOutputs()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("hello")
    return tmp_path.resolve()


def move(folder: Path, outputs: FakeOutputs, path: str, to: str | None, **wishes: Any) -> str:
    outputs.intended.clear()  # a run of its own
    params = FilesMoveParams(path=path, to=to, **wishes)
    done = asyncio.run(FilesMove().run(params, tools(folder, outputs=outputs)))
    return str(Path(done.path).relative_to(folder))


def refused(folder: Path, outputs: FakeOutputs, path: str, to: str | None, **wishes: Any) -> str:
    with pytest.raises(StepError) as caught:
        move(folder, outputs, path, to, **wishes)
    return str(caught.value)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_is_moved_noted_before_and_keeps_its_name_in_a_folder(
    folder: Path, outputs: FakeOutputs
) -> None:
    assert move(folder, outputs, "in/a.txt", "done/2026/b.txt") == "done/2026/b.txt"
    assert files(folder) == ["done/2026/b.txt"]
    assert outputs.events == [
        ("intend", folder / "done/2026/b.txt"), ("brings_away", folder / "in/a.txt")
    ], "pruning takes outputs only"  # fmt: skip
    assert move(folder, outputs, "done/2026/b.txt", "in/") == "in/b.txt"
    assert move(folder, outputs, "in/b.txt", "done") == "done/b.txt"
    assert move(folder, outputs, "done/b.txt", "done/") == "done/b.txt"


def test_a_copy_is_an_output(folder: Path, outputs: FakeOutputs) -> None:
    os.utime(folder / "in/a.txt", (1e9, 1e9))
    (folder / "in/a.txt").chmod(0o640)
    assert move(folder, outputs, "in/a.txt", "b.txt", mode="copy") == "b.txt"
    assert [event for event, _ in outputs.events] == ["intend", "wrote"]
    assert files(folder) == ["b.txt", "in/a.txt"]
    facts = (folder / "b.txt").stat()
    assert (facts.st_mtime, facts.st_mode & 0o777) == (1e9, 0o640)


def test_an_older_copy_of_ours_is_replaced(folder: Path, outputs: FakeOutputs) -> None:
    move(folder, outputs, "in/a.txt", "b.txt", mode="copy")
    (folder / "in/a.txt").write_text("changed")
    assert move(folder, outputs, "in/a.txt", "b.txt", mode="copy") == "b.txt"
    assert (folder / "b.txt").read_text() == "changed"
    (folder / "b.txt").write_text("by hand")
    assert move(folder, outputs, "in/a.txt", "b.txt", mode="copy") == "b-1.txt"


def test_another_file_in_its_place_stays(folder: Path, outputs: FakeOutputs) -> None:
    (folder / "b.txt").write_text("mine")
    assert refused(folder, outputs, "in/a.txt", "b.txt", on_exists="fail") == (
        f"'{folder / 'b.txt'}' exists already, and `on_exists` is `fail`. "
        "Move it away, or set `on_exists` to `rename` or `replace`."
    )
    assert move(folder, outputs, "in/a.txt", "b.txt") == "b-1.txt"
    assert (folder / "b.txt").read_text() == "mine"
    assert move(folder, outputs, "b-1.txt", "b.txt", on_exists="replace") == "b.txt"
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


def test_what_a_killed_run_has_moved_is_known_again(folder: Path, outputs: FakeOutputs) -> None:
    (folder / "b.txt").write_text("mine")
    assert move(folder, outputs, "in/a.txt", "b.txt") == "b-1.txt"
    assert move(folder, outputs, "in/a.txt", "b.txt") == "b-1.txt", "it is gone, and we moved it"
    (folder / "b-1.txt").write_text("edited")
    assert refused(folder, outputs, "in/a.txt", "b.txt") == f"'{folder}/in/a.txt' does not exist."


def test_across_devices_it_is_copied_first(
    folder: Path, outputs: FakeOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "a.txt":
            raise OSError(errno.EXDEV, "another device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert move(folder, outputs, "in/a.txt", "b.txt") == "b.txt"
    assert files(folder) == ["b.txt"]
    assert (folder / "b.txt").read_text() == "hello"


def test_a_file_is_deleted_once(folder: Path, outputs: FakeOutputs) -> None:
    assert move(folder, outputs, "in/a.txt", None, mode="delete") == "in/a.txt"
    assert move(folder, outputs, "in/a.txt", None, mode="delete") == "in/a.txt"
    assert files(folder) == []


def test_folders_and_what_lies_elsewhere_are_refused(folder: Path, outputs: FakeOutputs) -> None:
    assert refused(folder, outputs, "in", "out") == (
        f"'{folder / 'in'}' is a folder; `files.move` takes files."
    )
    assert "is a folder; `files.move` deletes files." in refused(
        folder, outputs, "in", None, mode="delete"
    )
    assert "leads outside the pipeline's folders" in refused(folder, outputs, "in/a.txt", "../b")
    (folder / "away").symlink_to("/tmp")
    assert "leads outside" in refused(folder, outputs, "in/a.txt", "away/")
    assert refused(folder, outputs, "in/a.txt", None, mode="copy") == (
        "`to` is missing. `mode: copy` needs it."
    )


def test_a_full_disk_ends_the_run_and_leaves_nothing_half(
    folder: Path, outputs: FakeOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(TemporaryFile, "replace", full)
    with pytest.raises(StepError) as caught:
        move(folder, outputs, "in/a.txt", "b.txt", mode="copy")
    assert caught.value.is_fatal
    assert files(folder) == ["in/a.txt"]
