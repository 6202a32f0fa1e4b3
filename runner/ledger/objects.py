"""Large values by their digest: `objects/<sha256>`, written aside and renamed, once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from paddock.engine.system import private
from paddock.steps.aside import Aside, sweep


class Objects:
    """A folder of values that are never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, value: bytes) -> str:
        """Keep a value and give its sha256; a value that is there already is not written again."""
        digest = hashlib.sha256(value).hexdigest()
        path = self._folder / digest
        try:
            os.utime(path)  # so that whoever cleans sees that it is wanted again
        except OSError:
            private.folder(self._folder)
            aside = Aside.written(path, value, private.FILE)
            try:
                aside.replace(path)
            finally:
                aside.close()
        return digest

    def sweep(self) -> int:
        """Remove what was half written by a process that was killed; tells how many files went."""
        return len(sweep(self._folder))

    def get(self, digest: str) -> bytes | None:
        """Give a value back; None when it is gone or is not what it was."""
        try:
            value = (self._folder / digest).read_bytes()
        except FileNotFoundError:
            return None
        return value if hashlib.sha256(value).hexdigest() == digest else None
