"""Versions of a file: path below the root, size, and when content and attributes changed.

A file that replaces one of equal size and mtime has another time of its inode (ctime). The inode's
number only shows whether it is still the same file while it settles. The run that reads a file
computes its sha256.
"""

from __future__ import annotations

import os
import stat
from typing import TypeAlias

from paddock.engine.system.records import SelectiveFields, Struct

FileIdentity: TypeAlias = tuple[int, int]
"""(size, mtime_ns + ctime_ns) of one version of a file."""

_MOST_NS = (1 << 63) - 1  # of a database's integer

UNKNOWN_FILE: FileIdentity = (-1, -1)
"""The version of a file that is in an order."""


class FileVersion(SelectiveFields, Struct, frozen=True):
    """One version of a file, as it was seen. `relpath` has forward slashes."""

    uncompared = ("inode", "ctime_ns")

    relpath: str
    size: int
    mtime_ns: int
    inode: int = 0
    ctime_ns: int = 0
    """Our own renames change it."""

    @property
    def identity(self) -> FileIdentity:
        return (self.size, (self.mtime_ns + self.ctime_ns) & _MOST_NS)

    def is_same(self, other: FileVersion) -> bool:
        return self == other and self.inode == other.inode


def file_version_at(path: str, relpath: str) -> FileVersion | None:
    """Return a file's version; None when it does not exist or is not a file."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - 100,000 times in a look
    except (OSError, ValueError):
        return None  # gone since it was listed, or a dangling link
    if not stat.S_ISREG(facts.st_mode):
        return None
    return FileVersion(relpath, facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns)
