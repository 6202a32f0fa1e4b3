"""One `paddock up` for a folder."""

import os
from pathlib import Path

import pytest

from paddock.runner.schedule.folder_locks import FolderLocks, FolderTaken


def test_the_second_says_who_holds_a_folder_and_gets_it_when_the_first_has_ended(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pipes"
    folder.mkdir()
    first, second = FolderLocks(tmp_path / "home1"), FolderLocks(tmp_path / "home2")
    first.take(folder)
    first.take(folder)
    with pytest.raises(FolderTaken) as caught:
        second.take(folder)
    words = str(caught.value)
    assert words.startswith(f"{folder}: `paddock up` (process {os.getpid()}, since 20")
    assert words.endswith(") serves this folder.\n  End it, or name other folders.")
    first.close()
    second.take(folder)
    second.close()


def test_a_folder_that_cannot_be_written_is_held_in_the_state_folder(tmp_path: Path) -> None:
    folder, home = tmp_path / "pipes", tmp_path / "home"
    folder.mkdir()
    (folder / ".paddock").write_text("a file where a folder should be")
    first, second = FolderLocks(home), FolderLocks(home)
    first.take(folder)
    with pytest.raises(FolderTaken):
        second.take(folder)
    first.close()
