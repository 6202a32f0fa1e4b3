"""Whether a file or folder is this user's own: no other user made it, or can change it.

Owner and mode are those of an open descriptor, or of an entry of an open folder. They mean nothing
where a mount or a user namespace shows every file as another user's; a person decides then
whether the folder counts.
"""

from __future__ import annotations

import enum
import os
import re
import stat
import sys
from functools import cache
from pathlib import Path

from .files import read_text

if sys.platform != "win32":
    import grp
    import pwd

_NO_OWNERS = frozenset((
    "9p", "cifs", "drvfs", "exfat", "fuseblk", "msdos", "ntfs", "ntfs3", "smb3", "vboxsf", "vfat",
))  # fmt: skip
"""File systems whose mount says whose all is; modes mean nothing there."""
_NO_INODES = frozenset(("exfat", "msdos", "vfat"))
NETWORK_FILE_SYSTEMS = frozenset((
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "webdav", "davfs",
    "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "fuse.sshfs", "fuse.rclone",
    "fuse.glusterfs", "fuse.s3fs",
))  # fmt: skip
"""File systems that several machines may write to; none of those that a host shows its guests."""
_ALL_USERS = ["0", "0", "4294967295"]
"""The map of users outside of user namespaces."""


class Stranger(enum.Enum):
    """Why something is not this user's own, as the end of a sentence."""

    OWNER = "it belongs to another user"
    WRITER = "other users can write to it"


def find_other_owner(
    facts: os.stat_result, *, is_reached: bool = True, is_for_groups: bool = False
) -> Stranger | None:
    """Return who else may have made or changed a file or folder; None: it is this user's own.

    `is_reached`: whether others can pass the folder in which it lies; `is_for_groups`: its group
    may write.
    """
    kind, mounted_by = _mount_of(facts.st_dev)
    if not (_is_own_number(facts.st_uid) and _is_own_number(mounted_by)):
        return Stranger.OWNER
    # In a sticky folder, as the root of a tmpfs, others cannot replace what is this user's.
    is_sticky = stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
    mode = facts.st_mode if is_reached and not stat.S_ISLNK(facts.st_mode) and not is_sticky else 0
    # With the umask 002 a group may write that has no other member than this user.
    is_for_groups = is_for_groups or not mode & 0o020 or _is_own_group(facts.st_gid)
    is_open = mode & 0o002 or not is_for_groups
    return Stranger.WRITER if is_open and kind not in _NO_OWNERS else None


def has_lasting_inodes(device: int) -> bool:
    """Return whether a file keeps its inode's number when its file system is mounted again."""
    kind = _mount_of(device)[0]
    return kind not in _NO_INODES and not kind.startswith("fuse")


def network_file_system(device: int) -> str:
    """Return the type of a file system that several machines may write to; empty: it is local."""
    kind = _mount_of(device)[0]
    return kind if kind in NETWORK_FILE_SYSTEMS else ""


def _is_own_number(uid: int) -> bool:
    """Return whether a number is this user's or the system administrator's.

    In a user namespace the overflow number stands for all users that it does not know.
    """
    if not hasattr(os, "geteuid") or uid == 0:
        return True
    is_anyone = str(uid) == _text_of("/proc/sys/kernel/overflowuid").strip()
    return uid == os.geteuid() and (
        not is_anyone or _text_of("/proc/self/uid_map").split() == _ALL_USERS
    )


def _is_own_group(gid: int) -> bool:
    try:
        group = grp.getgrgid(gid)
        return group.gr_name == pwd.getpwuid(os.geteuid()).pw_name and len(group.gr_mem) <= 1
    except KeyError:  # a container's user has no entry
        return gid == os.geteuid()


@cache
def _mount_of(device: int) -> tuple[str, int]:
    """Return a file system's type, empty where it is not known, and the user who mounted it.

    Users may mount file systems of FUSE, which name any owner for a file.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _text_of("/proc/self/mountinfo").splitlines():
        place, _, mount = line.partition(" - ")
        if place.split()[2:3] == [number]:
            by = re.search(r"\buser_id=(\d+)", mount) if mount.startswith("fuse") else None
            return mount.split()[0], 0 if by is None else int(by[1])
    return "", 0


def _text_of(file: str) -> str:
    try:
        return read_text(Path(file))
    except (OSError, ValueError):
        return ""
