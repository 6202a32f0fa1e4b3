"""No part of a path is a link when it is opened, whatever was there when it was checked."""

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paddock.engine.system import files, no_links

SECOND_USER = 54321


@pytest.fixture(params=["kernel", "parts"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Open by `openat2`, and folder by folder as macOS does."""
    if request.param == "parts":
        monkeypatch.setattr(no_links, "_has_openat2", lambda: False)
    elif not no_links._has_openat2():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/a.txt").write_text("own")
    (tmp_path / "private").mkdir()
    (tmp_path / "private/a.txt").write_text("secret")
    return tmp_path.resolve()


@pytest.fixture
def all_handles_closed() -> Iterator[None]:
    before = sorted(Path("/dev/fd").iterdir())
    yield
    assert sorted(Path("/dev/fd").iterdir()) == before


@pytest.mark.usefixtures("all_handles_closed")
def test_a_file_is_read_and_hashed(folder: Path) -> None:
    path = folder / "in/sub/a.txt"
    assert no_links.read_file(path, 10) == b"own"
    assert no_links.read_file(path, 1) == b"ow", "one more, so that the caller sees it"
    assert files.sha256_of(path, follows_links=False) == files.sha256_of(path)
    with pytest.raises(FileNotFoundError):
        no_links.open_file(folder / "in/nothing")
    with pytest.raises(ValueError, match="embedded null"):
        no_links.open_file(folder / "in/a\0b")
    with pytest.raises(ValueError, match="not an absolute path"):
        no_links.open_file("in/a.txt")


@pytest.mark.usefixtures("all_handles_closed")
@pytest.mark.parametrize("place", ["in/sub/a.txt", "in/sub", "in"])
def test_a_link_in_any_part_of_a_path_is_refused(folder: Path, place: str) -> None:
    (folder / place).rename(folder / "away")
    (folder / place).symlink_to(folder / ("private/a.txt" if "." in place else "private"))
    path = folder / "in/sub/a.txt"
    acts: list[Callable[[], object]] = [
        lambda: no_links.open_file(path),
        lambda: no_links.open_folder(folder / place),
        lambda: files.rename_without_links(folder / "away", path),
        lambda: no_links.remove(path),
    ]
    for act in acts[: 2 if "." in place else 4]:
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR), caught.value
        assert "symbolic link" in str(caught.value) or place.endswith(".txt")
    assert (folder / "private/a.txt").read_text() == "secret"


@pytest.mark.usefixtures("all_handles_closed")
def test_what_is_no_regular_file_is_refused_at_once(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        for name in ("pipe", "socket"):
            for follows_links in (False, True):
                with pytest.raises(no_links.NotRegularFile, match="it is a device or a pipe"):
                    no_links.open_file(folder / name, follows_links=follows_links)
    with pytest.raises(no_links.NotRegularFile, match="it is a device or a pipe"):
        files.sha256_of("/dev/zero")
    with pytest.raises(no_links.NotRegularFile, match="it is a folder"):
        no_links.open_file(folder / "in")


@pytest.mark.usefixtures("all_handles_closed")
def test_a_temporary_file_stays_in_the_folder_that_was_opened(folder: Path) -> None:
    target = folder / "in/new/deep/a.txt"
    file = files.TemporaryFile.written(target, b"text", follows_links=False)
    (folder / "in/new/deep").rename(folder / "in/new/away")
    (folder / "in/new/deep").symlink_to(folder / "private")
    file.replace(target)
    file.close()
    assert (folder / "in/new/away/a.txt").read_text() == "text"
    assert (folder / "private/a.txt").read_text() == "secret"
    with pytest.raises(OSError, match="symbolic link"):
        files.TemporaryFile.written(target, b"text", follows_links=False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is found by its name")
@pytest.mark.usefixtures("all_handles_closed")
def test_a_folder_that_is_held_stays_the_one_that_was_opened(folder: Path) -> None:
    with closing(no_links.HeldFolder(folder / "in/new", is_made=True)) as held:
        (folder / "in/new").rename(folder / "away")
        (folder / "in/new").symlink_to(folder / "private")
        (held.path / "a.txt").write_text("text")
        done = subprocess.run(["ls"], cwd=held.path, capture_output=True, text=True, check=True)
    assert done.stdout == "a.txt\n"
    assert (folder / "away/a.txt").read_text() == "text"
    assert (folder / "private/a.txt").read_text() == "secret"
    with pytest.raises(OSError, match="symbolic link"):
        no_links.HeldFolder(folder / "in/new")


@pytest.mark.usefixtures("all_handles_closed")
def test_files_are_renamed_and_removed_by_their_folders(folder: Path) -> None:
    files.rename_without_links(folder / "in/sub/a.txt", folder / "out/new/b.txt")
    moved = folder / "out/new/b.txt"
    assert moved.read_text() == "own"
    own = no_links.identity_of_stat(no_links.facts_of(moved))
    (folder / "private/a.txt").replace(moved)
    assert not no_links.remove(moved, only=own), "it is another file now"
    assert no_links.remove(moved, only=no_links.identity_of_stat(no_links.facts_of(moved)))
    assert not moved.exists()


def test_links_are_resolved_as_the_system_does(folder: Path) -> None:
    (folder / "in/up").symlink_to("../private")
    (folder / "in/whole").symlink_to(folder / "in/sub")
    (folder / "in/chain").symlink_to("up/../in/whole/a.txt")
    for path in ("in/up/a.txt", "in/whole/a.txt", "in/chain", "in/up/new/b.txt", "in/./sub/../x"):
        assert no_links.resolve(str(folder / path), [folder]) == (folder / path).resolve()
    (folder / "cycle").symlink_to("cycle")
    with pytest.raises(RuntimeError, match="form a cycle"):
        no_links.resolve(str(folder / "cycle/a.txt"), [folder])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's links")
def test_another_users_link_leads_only_to_what_is_theirs(folder: Path) -> None:
    (folder / "in/link").symlink_to(folder / "private/a.txt")
    path = str(folder / "in/link")
    assert no_links.resolve(path, [folder]) == folder / "private/a.txt"
    os.chown(path, SECOND_USER, SECOND_USER, follow_symlinks=False)
    with pytest.raises(OSError, match="another user's symbolic link"):
        no_links.resolve(path, [folder])
    assert no_links.resolve(path, [folder / "private"]), "the caller's own path leads through it"
    with no_links.open_named(path) as file:
        assert file.read(), "only we may make links in its folder"
    (folder / "in").chmod(0o777)
    with pytest.raises(OSError, match="another user's symbolic link"):
        no_links.open_named(path)
    os.chown(folder / "private/a.txt", SECOND_USER, SECOND_USER)
    assert no_links.resolve(path, [folder]) == folder / "private/a.txt"
    no_links.open_named(path).close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_folders_that_may_be_passed_but_not_listed_are_passed() -> None:
    with tempfile.TemporaryDirectory(prefix="paddock-no-links-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        (folder / "a.txt").write_text("own")
        pid = os.fork()
        if pid == 0:
            try:
                os.setuid(SECOND_USER)
                os._exit(0 if no_links.read_file(folder / "a.txt", 9) == b"own" else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
