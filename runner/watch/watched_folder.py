"""A watched folder: its files, which folder it is, which deletions count, what people are told.

On a network share the system reports only this machine's changes, and an unmounted share leaves an
ordinary folder behind that is empty or holds what was written there since. So a folder has an
identity besides its path, and files count as deleted only in the folder in which they were seen,
and in a watch only when two listings, some time apart, missed them. Links to folders are not
followed; a folder that cannot be read proves nothing. Listing blocks; knows no clock.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .watch_spec import FileVersion, WatchFilter, WatchSpec

_SILENT_FILE_SYSTEMS = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "webdav", "davfs",
        "9p", "drvfs", "virtiofs", "vboxsf", "prl_fs", "vmhgfs", "ceph", "glusterfs", "lustre",
        "gpfs", "beegfs", "ocfs2", "gfs2", "osxfs",
    )
)  # fmt: skip


_INODES_OF_THE_SERVER = frozenset(("nfs", "nfs4", "ceph", "lustre"))


def reports_no_events(file_system: str) -> bool:
    """Return whether a file system does not report changes that other machines make.

    >>> [reports_no_events(name) for name in ("ext4", "nfs4", "fuse.sshfs", "fuseblk", "tmpfs")]
    [False, True, True, False, False]
    """
    name = file_system.lower()
    # fuseblk is a local disk (NTFS): every change passes this machine's kernel.
    return name in _SILENT_FILE_SYSTEMS or (name.startswith("fuse") and name != "fuseblk")


@dataclass(frozen=True, slots=True)
class FolderIdentity:
    """Which folder lies at a path."""

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

    def lost(self, now: FolderIdentity) -> tuple[str, ...]:
        """Return the mount points below it at which nothing, or something else, is mounted now."""
        return tuple(at for at, what in self.mounts.items() if now.mounts.get(at) != what)


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system."""

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


def file_system_of(path: Path) -> str:
    """Return the type of the file system that a path lies on; empty when unknown."""
    return mount_of(os.path.realpath(path), mounted()).kind


def mounted() -> list[Mount]:
    try:
        partitions = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError):
        return []  # a container without /proc: trust the events
    return [Mount(one.mountpoint, one.fstype, one.device) for one in partitions]


def needs_polling(root: Path) -> str | None:
    """Return the type of a root's file system if it reports no changes; else None."""
    kind = file_system_of(root)
    return kind if reports_no_events(kind) else None


def known_folder(
    now: FolderIdentity | None, kept: Iterable[FolderIdentity]
) -> FolderIdentity | None:
    """Return the folder that was seen before: of several machines' the one that is there now.

    `kept` begins with what this machine saw, if it saw any.
    """
    several = list(kept)
    same = (one for one in several if now is not None and one.identity == now.identity)
    return next(same, several[0] if several else None)


def is_other_folder(
    before: FolderIdentity | None, now: FolderIdentity, n_absent: int, n_present: int
) -> bool:
    """Return whether this is another folder than the one in which files were seen.

    A folder that has all of them is the same one at another place: that deletes nothing. When the
    former folder is not known, one present file is enough.
    """
    if before is None:
        return n_absent > 0 and n_present == 0
    return before.identity != now.identity and n_absent > 0


def is_mass_deletion(n_deleted: int, n_known: int, most: float) -> bool:
    """Return whether so many files are gone at once that a person is asked.

    One file alone is not asked about, unless every deletion is (`most` is 0).

    >>> [is_mass_deletion(n, n_known, 0.5) for n, n_known in ((1, 1), (2, 3), (5, 10), (6, 10))]
    [False, True, False, True]
    """
    return n_deleted > most * n_known and (n_deleted > 1 or most == 0)


class MissingFiles:
    """Files that the last listings missed."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._missing: dict[str, float] = {}
        """Path → when a listing missed it first."""

    def look(self, missed: Collection[str], now: float) -> list[str]:
        """Take the files that a full listing missed; return those that count as deleted."""
        gone = [
            relpath
            for relpath in missed
            if relpath in self._missing and now - self._missing[relpath] >= self._settle_s
        ]
        taken = frozenset(gone)
        self._missing = {
            relpath: self._missing.get(relpath, now) for relpath in missed if relpath not in taken
        }
        return gone

    def forget(self) -> None:
        """Start again: the folder is another one."""
        self._missing.clear()

    def next_at(self) -> float | None:
        """Return when a second listing can confirm the first."""
        return min((since + self._settle_s for since in self._missing.values()), default=None)


@dataclass
class FolderListing:
    """The files below a root at a time."""

    root: FolderIdentity
    """Which folder lay at the root: it may have been mounted, unmounted or made again."""
    files: dict[str, FileVersion] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be read, with a slash at the end."""
    n_folders: int = 0

    def is_known(self, relpath: str, before: FolderIdentity | None = None) -> bool:
        """Return whether a path that `files` lacks is known to be absent.

        `before` is the folder in which it was seen: nothing is known below a lost mount.
        """
        lost = () if before is None else before.lost(self.root)
        hidden = (*self.unreadable, *(f"{point}/" for point in lost))
        return not any(relpath.startswith(folder) for folder in hidden)


def list_folder(root: Path, wanted: WatchFilter) -> FolderListing:
    """List every wanted file.

    Raises:
        OSError: the root is missing, not a folder, or cannot be read.
    """
    listing = FolderListing(folder_identity_at(root))
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            waiting += _entries(folder, prefix, wanted, listing)
            listing.n_folders += 1
        except OSError as error:
            if not prefix:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                listing.unreadable.append(prefix)
    return listing


def _entries(
    folder: str, prefix: str, wanted: WatchFilter, listing: FolderListing
) -> list[tuple[str, str]]:
    """Add the files of one folder to the listing; return the folders to list next."""
    below: list[tuple[str, str]] = []
    files = listing.files
    with os.scandir(folder) as entries:
        for entry in entries:
            relpath = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if wanted.wants_folder(relpath):
                    below.append((entry.path, f"{relpath}/"))
            elif wanted.wants_file(relpath):
                seen = file_version_at(entry.path, relpath)
                if seen is not None:
                    files[relpath] = seen
    return below


def look_at_paths(
    root: Path, relpaths: Iterable[str], wanted: WatchFilter
) -> dict[str, FileVersion | None]:
    """Look at some paths; a folder stands for all files in it. None: it does not exist."""
    found: dict[str, FileVersion | None] = {}
    for relpath in relpaths:
        path = f"{root}{os.sep}{relpath}"
        if _is_folder(path):
            found.update(_files_below(root, relpath, wanted))
        elif wanted.wants(relpath):
            found[relpath] = file_version_at(path, relpath)
        elif not os.path.lexists(path):
            found[relpath] = None
    return found


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _files_below(root: Path, relpath: str, wanted: WatchFilter) -> dict[str, FileVersion]:
    parts = relpath.split("/")
    if not all(wanted.wants_folder("/".join(parts[: end + 1])) for end in range(len(parts))):
        return {}
    listing = FolderListing(FolderIdentity(""))
    waiting = [(f"{root}{os.sep}{relpath}", f"{relpath}/")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            waiting += _entries(folder, prefix, wanted, listing)
        except OSError:
            continue  # the next full listing finds it
    return listing.files


def file_version_at(path: str, relpath: str) -> FileVersion | None:
    """Return a file's version; None when it does not exist or is not a file."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - 100,000 times in a look
    except (OSError, ValueError):
        return None  # gone since it was listed, or a dangling link
    if not stat.S_ISREG(facts.st_mode):
        return None
    return FileVersion(relpath, facts.st_size, facts.st_mtime_ns, facts.st_ino)


def root_identity(root: Path) -> tuple[int, int]:
    """Return the (st_dev, st_ino) of a watch's root.

    Raises:
        OSError: it is missing, not a folder, or cannot be read.
    """
    facts = os.stat(root)  # noqa: PTH116 - in the thread that may hang
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    return facts.st_dev, facts.st_ino


_NO_ROOM = frozenset((errno.ENOSPC, errno.EMFILE, errno.ENFILE))
_MOST_NAMES = 3


class WatchMessages:
    """Report changes of the watch of `root`; `say` takes one line."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._root = root
        self._say = say
        self._told: dict[str, str] = {}

    def tell(self, topic: str, text: str) -> None:
        """Report a message, unless it was the last one of this topic."""
        if self._told.get(topic) != text:
            self._told[topic] = text
            self._say(f"watch '{self._root}': {text}")

    def over(self, topic: str, text: str = "") -> None:
        """Forget a topic, and report `text` if the topic had a message."""
        if self._told.pop(topic, None) is not None and text:
            self._say(f"watch '{self._root}': {text}")


def away_message(error: OSError) -> str:
    """Return the message that a watched folder cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "the folder does not exist. The watch starts when it does."
    if isinstance(error, NotADirectoryError):
        return "this is a file, not a folder. The watch starts when it is one."
    why = error.strerror or type(error).__name__
    return f"the folder cannot be read ({why}). Retrying."


def other_folder_message(spec: WatchSpec, n_absent: int) -> str:
    """Return the message that files missing from another folder do not count as deleted."""
    what = "file was" if n_absent == 1 else "files were"
    return (
        f"this is not the folder in which {n_absent:,} missing {what} seen: "
        f"it was made again, or something is not mounted. Nothing counts as deleted. "
        f"If it is the right one: `paddock run {spec.file} --yes`."
    )


def polling_message(why: OSError | str | None, every_s: float) -> str:
    """Return the message that a folder is polled, and why."""
    every = f"Polling every {every_s:g} s"
    if why is None:
        return f"the system cannot watch all its folders. {every}."
    if isinstance(why, str):
        return f"a file system of type {why} reports no changes. {every}."
    if why.errno in _NO_ROOM:
        return (
            f"the system has no watches left. {every}; "
            f"a higher fs.inotify.max_user_watches and max_user_instances helps."
        )
    words = why.strerror or type(why).__name__
    return f"the system reports no changes ({words}). {every}."


def some_names(names: Collection[str]) -> str:
    """Return the first names in quotes, and how many more there are."""
    listed = sorted(names)
    shown = ", ".join(f"'{name}'" for name in listed[:_MOST_NAMES])
    left = len(listed) - _MOST_NAMES
    return f"{shown} and {left} more" if left > 0 else shown
