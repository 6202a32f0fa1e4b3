from pathlib import Path

import pytest

from paddock.runner.folders.folder_identity import (
    FolderIdentity,
    Mount,
    file_system_of,
    folder_identity_at,
    mount_of,
    needs_polling,
    reports_no_events,
)


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


def test_this_machine_has_mounts_and_its_temporary_folder_is_local(tmp_path: Path) -> None:
    assert file_system_of(tmp_path) != ""
    assert needs_polling(tmp_path) is None


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


def test_a_network_share_is_known_by_its_source_and_never_by_the_device(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    path = str(tmp_path / "inbox")
    share = Mount(str(tmp_path), "cifs", "//nas/papers")
    assert share.identity_of(path) == "cifs //nas/papers inbox"
    nfs = Mount(str(tmp_path), "nfs4", "nas:/papers").identity_of(path)
    assert nfs == f"nfs4 nas:/papers inbox {(tmp_path / 'inbox').stat().st_ino}"
    local = Mount(str(tmp_path), "ext4", "/dev/sda1").identity_of(path)
    assert len({share.identity_of(path), nfs, local}) == 3


def test_what_is_mounted_below_and_is_not_there_any_more_is_told() -> None:
    before = FolderIdentity("1:1", {"nas": "cifs //nas/papers .", "usb": "7:1"})
    assert before.lost(FolderIdentity("1:1", {"usb": "7:1"})) == ("nas",)
    assert before.lost(FolderIdentity("1:1", {"nas": "cifs //nas/papers .", "usb": "8:1"})) == (
        "usb",
    )
    assert before.lost(before) == ()
