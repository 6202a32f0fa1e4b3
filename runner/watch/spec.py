"""What a watch looks at, what it has seen, and what it hands on. Plain values; touches no file.

A file's identity is (watch, path below the root, size, mtime_ns); the inode only tells whether
it still is the same one while it settles. Its sha256 is taken by the run that reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

Identity: TypeAlias = tuple[int, int]
"""(size, mtime_ns) of one version of a file."""

UNKNOWN: Identity = (-1, -1)
"""What the ledger holds of a file that a run has taken and not yet seen through."""

EVERYTHING = ("**/*",)

PROCESSING, DONE, FAILED = "processing", "done", "failed"
HOT_FOLDERS = (PROCESSING, DONE, FAILED)
"""What a hot folder holds besides the documents that nobody has claimed yet."""


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """One entry of `on.watch`, with its path rendered."""

    name: str
    """Its identity in the ledger: the pipeline's file and the root."""
    root: Path
    """Absolute; need not be there yet."""
    include: tuple[str, ...] = EVERYTHING
    exclude: tuple[str, ...] = ()
    settle_s: float = 2.0
    batch_s: float = 10.0
    reconcile_s: float = 600.0
    is_hot: bool = False
    file: str = ""
    """The pipeline's file, as a person names it."""
    ignored: tuple[Path, ...] = ()
    """Files and folders that are never looked at: what the pipeline itself writes."""

    @property
    def processing(self) -> Path:
        """Where a hot folder keeps what a run works on."""
        return self.root / PROCESSING


@dataclass(frozen=True, slots=True)
class Seen:
    """One version of a file, as it was seen. `relpath` has forward slashes."""

    relpath: str
    size: int
    mtime_ns: int
    inode: int = field(default=0, compare=False)

    @property
    def identity(self) -> Identity:
        """What the ledger keeps of it."""
        return (self.size, self.mtime_ns)

    def is_same(self, other: Seen) -> bool:
        """Tell whether nothing at all has happened to the file between two looks."""
        return self == other and self.inode == other.inode


@dataclass(frozen=True, slots=True)
class Batch:
    """What has settled and goes into one run."""

    watch: str
    files: tuple[Seen, ...]
    gone: tuple[str, ...] = ()
    """Files that were seen through once and have been deleted since."""
    idempotency_key: str = ""
    """The same for the same change, so that handing it on twice starts one run."""
    retries_failed: bool = False
    """A hot folder's: who drops a document again wants it tried again."""


Status: TypeAlias = Literal[
    "completed", "quarantined", "failed", "crashed", "budget", "interrupted", "skipped"
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run that took a batch ended."""

    run: str
    status: Status
    failed: Mapping[str, str] = field(default_factory=dict)
    """Items that failed, key → reason; in a block over files the key is the `relpath`."""
    again: Collection[str] = frozenset()
    """Those of them that failed for a passing reason: the next run tries them again."""
    message: str = ""
    """Why the run as a whole failed."""


def key_of(watch: str, epoch: int, files: Iterable[Seen], gone: Iterable[str]) -> str:
    """Give a batch's idempotency key.

    `epoch` counts what the watch has recorded, so that a version that comes back after another
    one, or a further try, is a change of its own.
    """
    digest = hashlib.sha256(f"{watch}\0{epoch}\0".encode("utf-8", "surrogateescape"))
    for seen in files:
        text = f"{seen.relpath}\0{seen.size}\0{seen.mtime_ns}\0"
        digest.update(text.encode("utf-8", "surrogateescape"))
    for relpath in gone:
        digest.update(f"{relpath}\0gone\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
