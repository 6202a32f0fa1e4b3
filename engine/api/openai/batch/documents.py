"""JSON documents and their data on disk, whole or not there: for files and batches.

Knows no HTTP. A document gets its name by one rename, after its bytes are on the disk; so neither
a power cut nor `kill -9` leaves half of one. Only this user may read them: they hold prompts.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from paddock.engine.store.locks import bring_to_disk, writing
from paddock.engine.system import private


class Documents:
    """One folder of documents, each under its id. Blocks: not for the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, document_id: str, kind: str) -> Path:
        """Tell where something of a document lies; ids are our own, so they are safe names."""
        return self.folder / f"{document_id}.{kind}"

    def read(self, document_id: str) -> dict[str, Any] | None:
        """Give a document, or None where there is none that can be read."""
        try:
            value = json.loads(self.path(document_id, "json").read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def all(self) -> Iterator[dict[str, Any]]:
        """Give every document that can be read, in no order."""
        for path in self.folder.glob("*.json"):
            found = self.read(path.stem)
            if found is not None:
                yield found

    def write(self, document_id: str, value: Mapping[str, Any]) -> None:
        """Put a document in its place, or in that of an older one.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        with writing(self.folder):
            aside = self.aside()
            try:
                with self.opened(aside) as file:
                    file.write(json.dumps(value).encode())
                    settle(file)
                self.place(aside, self.path(document_id, "json"))
            finally:
                aside.unlink(missing_ok=True)

    def aside(self) -> Path:
        """Give the path of a file that is not yet anything."""
        private.folder(self.folder)
        return self.folder / f"{secrets.token_hex(8)}.part"

    def opened(self, path: Path) -> IO[bytes]:
        """Open a new file, or an older one for more, that only this user may read."""
        return private.opened(path, "ab")

    def place(self, aside: Path, path: Path) -> None:
        """Give a file that is on the disk its name."""
        aside.replace(path)
        bring_to_disk(self.folder)

    def delete(self, document_id: str, *kinds: str) -> None:
        """Take a document away, and then what belongs to it."""
        for kind in ("json", *kinds):
            with suppress(FileNotFoundError):
                self.path(document_id, kind).unlink()


def settle(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def append(path: Path, data: bytes) -> None:
    """Write behind what a file has, and wait until it is on the disk; makes it if need be.

    Raises:
        EngineError: the disk is full, or cannot be written.
    """
    with writing(path.parent):
        private.folder(path.parent)
        with private.opened(path, "ab") as file:
            file.write(data)
            settle(file)
