"""One `paddock up` for a folder."""

from pathlib import Path

import pytest

from paddock.runner.schedule.folder_locks import FolderLocks, FolderTaken


def test_a_folder_that_cannot_be_written_is_held_in_the_state_folder(tmp_path: Path) -> None:
    folder, home = tmp_path / "pipes", tmp_path / "home"
    folder.mkdir()
    (folder / ".paddock").write_text("a file where a folder should be")
    first, second = FolderLocks(home), FolderLocks(home)
    first.take(folder)
    with pytest.raises(FolderTaken):
        second.take(folder)
    first.close()
