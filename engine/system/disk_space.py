"""Room on a disk, and whether an error says that a machine lacks some, or fails for now."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

# A quota and a limit on file sizes (`ulimit -f`) count as a full disk too.
_DISK_FULL_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_TRANSIENT_ERRNOS = frozenset((
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS, errno.EIO, errno.ESTALE,
    errno.ETXTBSY,
))  # fmt: skip


def is_disk_full(error: object) -> bool:
    return getattr(error, "errno", None) in _DISK_FULL_ERRNOS


def is_transient(error: BaseException) -> bool:
    """Return whether an error is the machine's as it is now: files, processes, memory ran out."""
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS


def free_disk_bytes(folder: Path) -> int:
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return 0
