"""Mounted file systems: where each lies, of which kind, and who mounted it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .hardware import psutil_module
from .records import Struct


class Mount(Struct, frozen=True):
    point: str
    kind: str
    source: str = ""
    device: int | None = None
    """As `st_dev` has it; None: not known."""
    mounted_by: int = 0
    """Users may mount file systems of FUSE, which name any owner for a file."""


def mounted() -> list[Mount]:
    """Return all mounts, later ones on top; none where the system does not tell them."""
    try:
        table = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return [*_mounts_by_psutil()]
    return [*map(_mount_of_line, table.splitlines())]


def _mount_of_line(line: str) -> Mount:
    r"""Return the mount that a line of the kernel's table describes.

    >>> _mount_of_line(r"40 27 0:52 / /mnt/a\040b rw shared:1 - fuse.sshfs ada@host: rw,user_id=7")
    Mount(point='/mnt/a b', kind='fuse.sshfs', source='ada@host:', device=52, mounted_by=7)
    """
    place, _, mount = line.partition(" - ")
    _, _, number, _, point = place.split(" ")[:5]
    kind, source, options = mount.split(" ")[:3]
    by = re.search(r"\buser_id=(\d+)", options) if kind.startswith("fuse") else None
    device = os.makedev(*map(int, number.split(":")))
    return Mount(_plain(point), kind, _plain(source), device, int(by[1]) if by else 0)


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _mounts_by_psutil() -> Iterator[Mount]:
    try:
        found = psutil_module().disk_partitions(all=True)
    except (OSError, RuntimeError):  # a container without /proc
        return
    for each in found:
        yield Mount(each.mountpoint, each.fstype, each.device)
