"""Large values of the ledger: files in `objects/`, named by their sha256."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from paddock.engine.system import files, private_files


class ObjectStore:
    """A folder of values, each named by its sha256 and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, value: bytes) -> str:
        """Store a value and return its sha256; an existing one is not written again."""
        digest = hashlib.sha256(value).hexdigest()
        path = self._folder / digest
        try:
            os.utime(path)  # shows a concurrent sweep that it is in use again
        except OSError:
            private_files.private_folder(self._folder)
            with files.atomic_file(path) as file:
                file.write(value)
                file.sync()
        return digest

    def sweep(self) -> int:
        """Remove temporary files of killed processes; return how many."""
        return len(files.remove_stale_files(self._folder, waits=True))

    def get(self, digest: str) -> bytes | None:
        """Return a value; None if it is missing or damaged."""
        try:
            value = (self._folder / digest).read_bytes()
        except FileNotFoundError:
            return None
        return value if hashlib.sha256(value).hexdigest() == digest else None
