"""Room on a disk, and whether an error says that there is none."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

# A quota and a limit on file sizes (`ulimit -f`) count as a full disk too.
_DISK_FULL_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def is_disk_full(error: object) -> bool:
    return getattr(error, "errno", None) in _DISK_FULL_ERRNOS


def free_disk_bytes(folder: Path) -> int:
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return 0
