"""What a look at a folder gives, which folder it is, and whether its system says what changes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from paddock.runner.folders.file_filter import WatchFilter, WatchSpec
from paddock.runner.folders.folder_identity import (
    FolderIdentity,
    Mount,
    folder_identity_at,
    mount_of,
    reports_no_events,
)
from paddock.runner.folders.folder_listing import list_folder


def filter_of(root: Path, **options: object) -> WatchFilter:
    return WatchFilter(WatchSpec("w", root, **options))  # type: ignore[arg-type]


def write(root: Path, *relpaths: str) -> None:
    for relpath in relpaths:
        (root / relpath).parent.mkdir(parents=True, exist_ok=True)
        (root / relpath).write_text(relpath)


def test_circles_of_links_end_and_links_to_files_are_looked_through(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    write(root, "a.txt", "sub/b.txt")
    write(tmp_path, "elsewhere/c.txt")
    (root / "sub/up").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "broken").symlink_to("nothing")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "c.txt").symlink_to(tmp_path / "elsewhere/c.txt")
    assert sorted(list_folder(root, filter_of(root)).files) == ["a.txt", "c.txt", "sub/b.txt"]


def test_include_exclude_hidden_and_temporary_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.md", "b.txt", "sub/c.md", ".git/d.md", "drafts/e.md", "sub/drafts/f.md", "g.md.part",
        ".paddock/h.md", "@eaDir/i.md", "index.lance/rows.lance/j.md",
    )  # fmt: skip
    file_filter = filter_of(tmp_path, include=("**/*.md",), exclude=("drafts/",))
    assert sorted(list_folder(tmp_path, file_filter).files) == ["a.md", "sub/c.md"]


def test_own_outputs_and_a_hot_folders_own_folders_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "a.md.sum", "b.md", "done/c.md", "failed/d.md", "processing/e.md")
    file_filter = filter_of(tmp_path, is_hot=True, ignored=(tmp_path / "b.md",))
    file_filter.owned = frozenset((str(tmp_path / "a.md.sum"),))
    assert sorted(list_folder(tmp_path, file_filter).files) == ["a.md"]


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Take the right to read a folder away, from root too."""
    folder.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_read_is_told_and_nothing_is_concluded() -> None:
    with TemporaryDirectory() as made:
        root = Path(made)
        write(root, "a.md", "locked/b.md")
        root.chmod(0o755)
        with without_rights(root / "locked"):
            listing = list_folder(root, filter_of(root))
    assert (sorted(listing.files), listing.unreadable) == (["a.md"], ["locked/"])
    assert not listing.is_known("locked/b.md")
    assert listing.is_known("c.md")


def test_pipes_and_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    write(tmp_path, "naïve.txt")
    assert sorted(list_folder(tmp_path, filter_of(tmp_path)).files) == ["naïve.txt"]


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_folder(tmp_path / "nowhere", filter_of(tmp_path))


# --- which folder it is


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb2", "smb3", "fuse", "fuse.sshfs", "fuse.rclone", "9p"]
)
def test_a_network_file_system_says_nothing(kind: str) -> None:
    assert reports_no_events(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", "fuseblk", ""]
)
def test_a_local_one_does(kind: str) -> None:
    assert not reports_no_events(kind)


def test_the_mount_that_lies_on_top_counts() -> None:
    kinds = [("/", "ext4"), ("/mnt", "tmpfs"), ("/mnt/share", "autofs"), ("/mnt/share", "nfs4")]
    mounts = [Mount(*kind) for kind in kinds]
    assert mount_of("/mnt/share/inbox", mounts).kind == "nfs4"
    assert mount_of("/mnt/shared", mounts).kind == "tmpfs"
    assert mount_of("/home", mounts).kind == "ext4"
    assert mount_of("/home", []).kind == ""


def test_a_folder_is_the_same_after_a_rename_and_another_one_after_it_was_made_again(
    tmp_path: Path,
) -> None:
    inbox, away = tmp_path / "inbox", tmp_path / "away"
    inbox.mkdir()
    before = folder_identity_at(inbox)
    inbox.rename(away)
    inbox.mkdir()
    assert folder_identity_at(inbox).identity != before.identity
    inbox.rmdir()
    away.rename(inbox)
    (tmp_path / "link").symlink_to(inbox)
    assert folder_identity_at(inbox) == folder_identity_at(tmp_path / "link") == before
    assert FolderIdentity.of_text(before.as_text()) == before


def test_what_is_mounted_below_and_is_not_there_any_more_is_told() -> None:
    before = FolderIdentity("1:1", {"nas": "cifs //nas/papers .", "usb": "7:1"})
    assert before.lost_mounts(FolderIdentity("1:1", {"usb": "7:1"})) == ("nas",)
    assert before.lost_mounts(
        FolderIdentity("1:1", {"nas": "cifs //nas/papers .", "usb": "8:1"})
    ) == ("usb",)
    assert before.lost_mounts(before) == ()
