"""Whether a folder can be shared by machines: written to, renamed in, and locked."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from paddock.engine.system import private

from .findings import Finding

STATE_FOLDER = ".paddock"


def look(folder: Path) -> list[Finding]:
    """Look at the folder of the pipelines."""
    name = f"shared folder {folder}"
    try:
        state = folder / STATE_FOLDER
        private.folder(state)
        _try_out(state)
    except OSError as error:
        words = f"it cannot be used ({error.strerror or error})."
        remedy = "Mount it for writing, by the same user on every machine."
        return [Finding(name, "wrong", words, remedy)]
    return [Finding(name, "ok", "writable"), *_how_shared(folder)]


def _try_out(folder: Path) -> None:
    """Write a file, rename it and take it away.

    Raises:
        OSError: one of these does not work.
    """
    aside, there = folder / f".try-{uuid4().hex}", folder / f".tried-{uuid4().hex}"
    try:
        with private.opened(aside, "wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(there)
        there.read_bytes()
    finally:
        aside.unlink(missing_ok=True)
        there.unlink(missing_ok=True)


def _how_shared(folder: Path) -> list[Finding]:
    from paddock.runner.watch.filesystems import file_system_of

    kind = file_system_of(folder)
    if kind.startswith("nfs"):
        words = f"by {kind}; mount it with lookupcache=positive, so that new files are seen at once"
        return [Finding("file system", "ok", words)]
    if kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", "ntfs", "zfs"):
        words = f"'{kind}' is a disk of this machine"
        remedy = "Other machines must have it mounted under the same path, by NFS or SMB."
        return [Finding("file system", "warning", words, remedy)]
    return [Finding("file system", "ok", kind or "unknown")]
