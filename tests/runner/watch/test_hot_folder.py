"""A hot folder: claims by rename, ends by rename, numbers where a name is taken."""

import sys
from pathlib import Path

import pytest

from paddock.runner.folders.file_filter import WatchFilter, WatchSpec
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.folders.folder_listing import list_folder
from paddock.runner.watch import hot_folder


def opened(root: Path) -> WatchSpec:
    spec = WatchSpec("w", root, is_hot=True)
    hot_folder.make_hot_folders(spec)
    return spec


def dropped(spec: WatchSpec, relpath: str, text: str = "x") -> dict[str, FileVersion]:
    path = spec.root / relpath
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {relpath: list_folder(spec.root, WatchFilter(spec)).files[relpath]}


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_what_has_changed_or_gone_since_it_settled_is_not_claimed(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    stable = dropped(spec, "a.txt") | dropped(spec, "b.txt")
    (tmp_path / "a.txt").write_text("longer")
    (tmp_path / "b.txt").unlink()
    assert hot_folder.claim_files(spec, stable, ()) == hot_folder.HotFolderMoves({}, {})
    assert everything(tmp_path) == ["a.txt"]


def test_what_lies_in_processing_is_never_replaced(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    (spec.processing / "a.txt").write_text("somebody's own")
    moved = hot_folder.claim_files(spec, dropped(spec, "a.txt"), ())
    assert moved.refused == {"a.txt": "a file of that name lies in 'processing' already"}
    assert (spec.processing / "a.txt").read_text() == "somebody's own"


def test_what_was_written_to_after_its_claim_stays_and_is_told_as_it_is_now(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    stable = dropped(spec, "a.txt", "begin") | dropped(spec, "b.txt")
    hot_folder.claim_files(spec, stable, ())
    with (spec.processing / "a.txt").open("a") as file:
        file.write(" and end")
    for failed in ({}, {"a.txt": "no end", "b.txt": "no end"}):
        moved = hot_folder.finish_files(spec, ["a.txt"], failed, stable)
        assert (moved.files, moved.refused) == ({}, {})
        assert moved.changed["a.txt"].size == len("begin and end")
    assert everything(tmp_path) == ["processing/a.txt", "processing/b.txt"]
    again = hot_folder.claim_files(spec, moved.changed, ["a.txt"])
    hot_folder.finish_files(spec, ["a.txt"], {}, again.files)
    assert (tmp_path / "done/a.txt").read_text() == "begin and end"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open")
def test_a_file_that_is_open_for_writing_is_neither_claimed_nor_finished(tmp_path: Path) -> None:
    spec = opened(tmp_path)
    stable = dropped(spec, "a.txt", "begin")
    with (tmp_path / "a.txt").open("a") as writer:
        assert hot_folder.claim_files(spec, stable, ()) == hot_folder.HotFolderMoves(
            {}, {"a.txt": hot_folder.OPEN_REASON}
        )
        (tmp_path / "a.txt").rename(spec.processing / "a.txt")
        assert hot_folder.finish_files(spec, ["a.txt"], {}, stable).refused == {
            "a.txt": hot_folder.OPEN_REASON
        }
        writer.write(" and end")
    assert list(hot_folder.finish_files(spec, ["a.txt"], {}, stable).changed) == ["a.txt"]


@pytest.mark.parametrize("letter", ["x", "é", "漢"])
def test_names_of_255_bytes_get_numbers_and_reasons_that_fit(tmp_path: Path, letter: str) -> None:
    spec = opened(tmp_path)
    room = 255 - len("..txt")
    filled = letter * (room // len(letter.encode()))
    filled += "-" * (room - len(filled.encode()))
    names = [f"{filled}{end}.txt" for end in "ab"]
    assert {len(name.encode()) for name in names} == {255}
    for _ in range(3):
        for name in names:
            hot_folder.finish_files(
                spec,
                hot_folder.claim_files(spec, dropped(spec, name), ()).files,
                {name: f"why {name}"},
            )
    assert everything(spec.processing) == []
    failed = [path.name for path in (tmp_path / "failed").iterdir()]
    assert len(failed) == len(names) * 6
    assert {name for name in failed if name.endswith(".reason.txt")} == {
        name for name in failed if "why" in (tmp_path / "failed" / name).read_text()
    }
    assert max(len(name.encode()) for name in failed) <= 255
    assert all(name.endswith(".txt") for name in failed)
