"""State that only its owner may read, whatever the umask and whatever was there before."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.system import private_files


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def test_folders_and_files_are_the_owners_alone_with_all_above_that_were_made(
    tmp_path: Path,
) -> None:
    folder = private_files.private_folder(tmp_path / "home/a/b")
    private_files.write_private(folder / "note.json", "{}")
    with private_files.open_private(folder / "log", "ab") as file:
        file.write(b"x")
    assert [mode(path) for path in (tmp_path / "home", folder.parent, folder)] == [0o700] * 3
    assert [mode(folder / name) for name in ("note.json", "log")] == [0o600] * 2


def test_what_was_open_to_others_is_narrowed_when_it_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o777)
    (folder / "log").touch(0o666)
    (folder / "read-only").touch(0o444)
    private_files.private_folder(folder)
    private_files.open_private(folder / "log", "a").close()
    private_files.make_private(folder / "read-only")
    assert (mode(folder), mode(folder / "log")) == (0o700, 0o600)
    assert mode(folder / "read-only") == 0o400


def test_what_sqlite_makes_next_to_a_database_is_the_owners_alone(tmp_path: Path) -> None:
    file = private_files.private_database(tmp_path / "x.sqlite")
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("create table a (b)")
    names = ("x.sqlite", "x.sqlite-wal", "x.sqlite-shm")
    assert {name: mode(tmp_path / name) for name in names} == dict.fromkeys(names, 0o600)
    for name in names:
        (tmp_path / name).chmod(0o666)
    private_files.private_database(file)
    assert {name: mode(tmp_path / name) for name in names} == dict.fromkeys(names, 0o600)
    connection.close()


def test_a_database_that_is_opened_again_keeps_the_locks_of_this_process(tmp_path: Path) -> None:
    file = private_files.private_database(tmp_path / "x.sqlite")
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("create table a (b)")
    connection.execute("BEGIN EXCLUSIVE")
    private_files.private_database(file)
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute({!r})"
    command = [sys.executable, "-c", script.format("select * from a"), str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "database is locked" in ended.stderr
    connection.close()


def test_folders_that_are_not_state_keep_their_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "people/me"))
    shared, documents = tmp_path / "tmp", tmp_path / "documents"
    home = tmp_path / "people/me"
    for folder, bits in ((shared, 0o1777), (documents, 0o755), (home.parent, 0o755), (home, 0o755)):
        folder.mkdir()
        folder.chmod(bits)
    link = tmp_path / "link"
    link.symlink_to(documents)
    for folder in (shared, home, home.parent, link):
        private_files.private_folder(folder)
    assert (mode(shared), mode(documents), mode(home)) == (0o1777, 0o755, 0o755)
    assert mode(home.parent) == 0o755
