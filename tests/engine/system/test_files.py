"""Temporary files: renamed whole or removed; those of a killed process are found and removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.engine.system.files import (
    TEMPORARY_SUFFIX,
    TemporaryFile,
    atomic_file,
    create_once,
    read_json,
    remove_stale_files,
    write_atomically,
    write_json_atomically,
    write_output,
)

DIES = """
import os, sys
from pathlib import Path
from paddock.engine.system.files import TemporaryFile
TemporaryFile.written(Path(sys.argv[1]), b"half")
os.kill(os.getpid(), 9)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def grown_old(folder: Path) -> None:
    """Make the files aside look as if they were written a minute ago."""
    for file in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        os.utime(file, (file.stat().st_mtime - 60,) * 2)


def test_a_file_aside_comes_into_place_whole(tmp_path: Path) -> None:
    aside = TemporaryFile.written(tmp_path / "a.md", b"whole", 0o640)
    assert names(tmp_path) == [aside.file.name]
    aside.replace(tmp_path / "a.md")
    aside.close()
    assert names(tmp_path) == ["a.md"]
    assert (tmp_path / "a.md").stat().st_mode & 0o777 == 0o640


def test_one_that_is_being_written_is_never_swept(tmp_path: Path) -> None:
    aside = TemporaryFile.written(tmp_path / "a.md", b"x")
    grown_old(tmp_path)
    assert remove_stale_files(tmp_path) == []
    aside.replace(tmp_path / "a.md")
    aside.close()
    assert names(tmp_path) == ["a.md"]


def test_one_of_a_killed_process_is_swept_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "a.md")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.md.") and left.name.endswith(TEMPORARY_SUFFIX)
    assert remove_stale_files(tmp_path) == []  # it may be just about to be held
    for other in (".hidden", f"shown{TEMPORARY_SUFFIX}", "a.md"):
        (tmp_path / other).write_text("x")
    (tmp_path / f".folder{TEMPORARY_SUFFIX}").mkdir()
    (tmp_path / f".link{TEMPORARY_SUFFIX}").symlink_to(tmp_path / "a.md")
    grown_old(tmp_path)
    assert remove_stale_files(tmp_path) == [left]
    assert not left.exists()
    assert len(names(tmp_path)) == 5


def test_a_file_is_put_with_its_folder_and_a_link_stays_one(tmp_path: Path) -> None:
    write_output(tmp_path / "new" / "a.html", "half a character: \ud800")
    assert (tmp_path / "new" / "a.html").read_text() == "half a character: \\ud800"
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "new" / "a.html")
    write_output(link, "b")
    assert link.is_symlink()
    assert (tmp_path / "new" / "a.html").read_text() == "b"
    assert names(tmp_path / "new") == ["a.html"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_rewritten_file_keeps_mode_and_owner_and_no_other_group_gets_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pipeline.yaml"
    for mode in (0o600, 0o640, 0o664):
        write_output(file, "old")
        file.chmod(mode)
        if os.geteuid() == 0:
            os.chown(file, 12345, 23456)
        write_output(file, "new")
        facts = file.stat()
        assert (file.read_text(), facts.st_mode & 0o7777) == ("new", mode)
        if os.geteuid() == 0:
            assert (facts.st_uid, facts.st_gid) == (12345, 23456)
        file.unlink()

    def refused(*_: object) -> None:
        raise PermissionError

    file.write_text("of another group")
    file.chmod(0o664)
    like = file.stat()
    strange = os.stat_result([*like[:5], like.st_gid + 1, *like[6:]])
    monkeypatch.setattr(os, "fchown", refused)
    TemporaryFile.written(file, b"x", like=strange).replace(file)
    assert file.stat().st_mode & 0o777 == 0o604


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_file_is_written_into_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output(pipe, "a report")
        assert os.read(reader, 100) == b"a report"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_output(Path("/dev/full"), "x")
    assert Path("/dev/full").is_char_device()


def test_an_atomic_write_is_private_and_makes_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "state" / "a.json"
    write_json_atomically(file, {"a": 1}, is_durable=True)
    assert read_json(file) == {"a": 1}
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert names(file.parent) == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with pytest.raises(ValueError, match="half way"), atomic_file(file) as temporary:
        temporary.write(b"new")
        raise ValueError("half way")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_what_is_no_json_reads_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    assert read_json(file) is None
    file.write_bytes(text.encode("latin-1"))
    assert read_json(file) is None


def test_a_file_that_is_there_is_not_created_again(tmp_path: Path) -> None:
    create_once(tmp_path / "id", "first")
    create_once(tmp_path / "id", "second")
    assert (tmp_path / "id").read_text() == "first"
    assert names(tmp_path) == ["id"]
