"""Files that can be made again are kept within bounds, for their owner alone."""

import os
import stat
import time
from pathlib import Path

import pytest

from paddock.engine.system import disk_cache
from paddock.engine.system.disk_cache import KeptFiles


def kept(folder: Path, most_bytes: int = 100) -> KeptFiles:
    return KeptFiles(folder, most_bytes, 60.0)


def unused_for(file: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(file, (at, at))


def test_what_was_written_is_read_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    files, file = kept(tmp_path / "kept"), tmp_path / "kept" / "own" / "a"
    assert files.read(file) is None
    files.write(file, b"rows")
    assert files.read(file) == b"rows"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)]
    assert modes == [0o600, 0o700]


def test_the_longest_unused_make_room_and_a_use_counts(tmp_path: Path) -> None:
    files = kept(tmp_path)
    names = [tmp_path / folder / name for folder in "ab" for name in "cd"]
    for age, file in zip((40, 30, 20, 10), names, strict=True):
        files.write(file, bytes(25))
        unused_for(file, age)
    files.read(names[0])
    files.write(tmp_path / "e", bytes(50))
    assert [file.exists() for file in names] == [True, False, False, True]
    files.write(tmp_path / "f", bytes(101))
    assert not (tmp_path / "f").exists(), "nothing makes room for what exceeds the bound"
    assert names[0].exists()


def test_what_was_unused_for_too_long_goes(tmp_path: Path) -> None:
    files, old, new = kept(tmp_path), tmp_path / "old", tmp_path / "new"
    files.write(old, b"123")
    unused_for(old, 61)
    assert files.remove(is_dry=True) == (1, 3)
    assert old.exists()
    files.write(new, b"12")
    assert (old.exists(), new.exists()) == (False, True)
    unused_for(new, 20)
    assert files.remove(unused_s=30) == (0, 0)
    assert files.remove(unused_s=10) == (1, 2)
    assert kept(tmp_path / "missing").remove() == (0, 0)


def test_a_disk_without_room_keeps_nothing_and_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    kept(tmp_path / "file").write(tmp_path / "file" / "a", b"1")
    monkeypatch.setattr(disk_cache, "free_disk_bytes", lambda _: 40)
    kept(tmp_path).write(tmp_path / "b", bytes(11))
    kept(tmp_path).write(tmp_path / "c", bytes(10))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c", "file"]
