"""Tell which file systems do not say what changes on them. The deciding part is pure.

On a network share the system reports only what this machine itself does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_SILENT = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "webdav", "davfs",
        "9p", "drvfs", "virtiofs", "vboxsf", "prl_fs", "vmhgfs", "ceph", "glusterfs", "lustre",
        "gpfs", "beegfs", "ocfs2", "gfs2", "osxfs",
    )
)  # fmt: skip


def is_silent(file_system: str) -> bool:
    """Tell whether changes on it must be looked for.

    >>> [is_silent(name) for name in ("ext4", "nfs4", "fuse.sshfs", "fuseblk", "tmpfs")]
    [False, True, True, False, False]
    """
    name = file_system.lower()
    # fuseblk is a local disk (NTFS) whose every change goes through this machine's kernel.
    return name in _SILENT or (name.startswith("fuse") and name != "fuseblk")


def file_system_of(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """Give the type of the file system that a path lies on; `mounts`: (mount point, type).

    >>> file_system_of(Path("/mnt/a/b"), [("/", "ext4"), ("/mnt/a", "nfs4"), ("/mnt/ab", "cifs")])
    'nfs4'
    """
    best, found = "", ""
    for point, kind in mounts:
        # The later one of two at the same place lies on top.
        if path.is_relative_to(point) and len(point) >= len(best):
            best, found = point, kind
    return found


def mounted() -> list[tuple[str, str]]:
    """Give (mount point, type) of every file system."""
    import psutil

    try:
        partitions = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError):
        return []  # a container without /proc: then what the system tells is believed
    return [(one.mountpoint, one.fstype) for one in partitions]


def needs_polling(root: Path) -> str | None:
    """Give the name of the file system under a root where it says nothing of changes."""
    kind = file_system_of(Path(os.path.realpath(root)), mounted())
    return kind if is_silent(kind) else None
