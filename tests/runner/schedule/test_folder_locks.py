"""One `paddock up` for a folder."""

import json
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


@pytest.mark.parametrize(
    ("holder", "says"),
    [
        ({"pid": 7, "host": "harbour", "since": 1e9}, "up` (process 7 on harbour, since 2"),
        ({"pid": 7, "host": "harbour", "since": 1e12, "run": ""}, "another `paddock up` serves"),
        ({"pid": 7, "host": "harbour", "since": float("nan")}, "another `paddock up` serves"),
    ],
    ids=["of an older version", "an impossible time", "no time"],
)  # fmt: skip
def test_a_holder_is_named_as_far_as_it_can_be_read(
    tmp_path: Path, holder: dict[str, object], says: str
) -> None:
    first, second = FolderLocks(tmp_path), FolderLocks(tmp_path)
    first.take(tmp_path)
    (tmp_path / ".paddock/up.json").write_text(json.dumps(holder))
    with pytest.raises(FolderTaken) as caught:
        second.take(tmp_path)
    first.close()
    assert says in str(caught.value)
