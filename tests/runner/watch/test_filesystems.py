"""Which file systems are polled."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.runner.watch.filesystems import (
    file_system_of,
    is_silent,
    mounted,
    needs_polling,
)


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb2", "smb3", "fuse", "fuse.sshfs", "fuse.rclone", "9p"]
)
def test_a_network_file_system_says_nothing(kind: str) -> None:
    assert is_silent(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", "fuseblk", ""]
)
def test_a_local_one_does(kind: str) -> None:
    assert not is_silent(kind)


def test_the_mount_that_lies_on_top_counts() -> None:
    mounts = [("/", "ext4"), ("/mnt", "tmpfs"), ("/mnt/share", "autofs"), ("/mnt/share", "nfs4")]
    assert file_system_of(Path("/mnt/share/inbox"), mounts) == "nfs4"
    assert file_system_of(Path("/mnt/shared"), mounts) == "tmpfs"
    assert file_system_of(Path("/home"), mounts) == "ext4"
    assert file_system_of(Path("/home"), []) == ""


def test_this_machine_has_mounts_and_its_temporary_folder_is_local(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, mounted()) != ""
    assert needs_polling(tmp_path) is None
