"""Which folder lies at a path, and on which file system.

An unmounted share leaves an ordinary folder behind that is empty or holds what was written there
since, so a folder has an identity besides its path. On a network share the system reports only this
machine's changes. Blocks; knows no clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from paddock.engine.system.hardware import psutil_module
from paddock.engine.system.owners import NETWORK_FILE_SYSTEMS
from paddock.engine.system.records import Struct, field

_SILENT_FILE_SYSTEMS = NETWORK_FILE_SYSTEMS | {
    "9p", "drvfs", "osxfs", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"
}  # fmt: skip
_INODES_OF_THE_SERVER = frozenset(("nfs", "nfs4", "ceph", "lustre"))


def reports_no_events(file_system: str) -> bool:
    """Return whether a file system does not report changes that other machines make.

    >>> [reports_no_events(name) for name in ("ext4", "nfs4", "fuse.sshfs", "fuseblk", "tmpfs")]
    [False, True, True, False, False]
    """
    name = file_system.lower()
    # fuseblk is a local disk (NTFS): every change passes this machine's kernel.
    return name in _SILENT_FILE_SYSTEMS or (name.startswith("fuse") and name != "fuseblk")


class FolderIdentity(Struct, frozen=True):
    identity: str
    """File system and inode; of a network share its type, source and the path below the mount."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Mount points below it, relative, each with the identity of what is mounted there."""

    def as_text(self) -> str:
        return json.dumps({"is": self.identity, "mounts": dict(self.mounts)}, sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> FolderIdentity:
        kept = json.loads(text)
        return cls(kept["is"], kept["mounts"])

    def lost_mounts(self, now: FolderIdentity) -> tuple[str, ...]:
        """Return the mount points below it at which nothing, or something else, is mounted now."""
        return tuple(at for at, what in self.mounts.items() if now.mounts.get(at) != what)


class Mount(Struct, frozen=True):
    point: str
    kind: str
    source: str = ""

    def identity_of(self, path: str) -> str:
        """Return the identity of the folder at `path` on this mount. Blocks.

        The number of a device changes with each mount, so the file system's own identifier is used
        where there is one (ext4 and btrfs derive it from their UUID). Inodes of network shares
        depend on the client, except where the server sends them.

        Raises:
            OSError: the path cannot be looked at.
        """
        facts = os.stat(path)  # noqa: PTH116 - a text, and in the thread that may hang
        if not reports_no_events(self.kind):
            return f"{os.statvfs(path).f_fsid or facts.st_dev}:{facts.st_ino}"
        below = os.path.relpath(path, self.point or os.sep)
        inode = f" {facts.st_ino}" if self.kind in _INODES_OF_THE_SERVER else ""
        return f"{self.kind} {self.source} {below}{inode}"


def folder_identity_at(root: Path) -> FolderIdentity:
    """Return the identity of the folder at a path. Blocks.

    Raises:
        OSError: the path cannot be read.
    """
    path, mounts = os.path.realpath(root), mounted()
    identity = mount_of(path, mounts).identity_of(path)
    prefix = path.rstrip(os.sep) + os.sep
    below: dict[str, str] = {}
    for mount in mounts:
        at = mount.point.removeprefix(prefix)
        if at and at != mount.point and mount.kind != "autofs":
            try:
                below[at] = mount.identity_of(mount.point)
            except OSError:
                continue  # a mount that does not answer counts as missing
    return FolderIdentity(identity, below)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount:
    """Return the mount that a path lies on.

    >>> mounts = [Mount("/", "ext4"), Mount("/mnt/a", "nfs4"), Mount("/mnt/ab", "cifs")]
    >>> mount_of("/mnt/a/b", mounts).kind
    'nfs4'
    """
    best = Mount("", "")
    for mount in mounts:
        # The later one of two at the same path lies on top.
        if Path(path).is_relative_to(mount.point) and len(mount.point) >= len(best.point):
            best = mount
    return best


def mounted() -> list[Mount]:
    try:
        found = psutil_module().disk_partitions(all=True)
    except (OSError, RuntimeError):
        return []  # a container without /proc: trust the events
    return [Mount(each.mountpoint, each.fstype, each.device) for each in found]


def silent_file_system(root: Path) -> str | None:
    """Return the type of a root's file system if it reports no changes; else None."""
    kind = mount_of(os.path.realpath(root), mounted()).kind
    return kind if reports_no_events(kind) else None


def known_folder(
    now: FolderIdentity | None, kept: Iterable[FolderIdentity]
) -> FolderIdentity | None:
    """Return the folder that was seen before: of several machines' the one that is there now.

    `kept` begins with what this machine saw, if it saw any.
    """
    known = list(kept)
    same = (folder for folder in known if now is not None and folder.identity == now.identity)
    return next(same, known[0] if known else None)
