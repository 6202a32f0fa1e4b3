"""What is known of places elsewhere: which documents were copied from one, what was sent to one.

It lies in the state folder of the pipelines, which is this user's own, and not beside copies or
outputs, where anyone may write. A place is known by its address: of another one there is another
file. So is another folder of copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from paddock.engine.system.files import read_json_object, write_json_atomically
from paddock.engine.system.records import Struct, asdict, record_from

_FOLDER = "places"
_T = TypeVar("_T", bound=Struct)


class PlaceStates(Struct, frozen=True):
    folder: Path
    base: Path
    """Of the pipelines."""

    @classmethod
    def of(cls, state: Path) -> PlaceStates:
        """`state`: the state folder of the pipelines, which was checked."""
        base = state.parent.resolve()
        return cls(base / state.name / _FOLDER, base)

    def file(self, kind: str, address: str, folder: Path | None = None) -> Path:
        of_folder = "" if folder is None else f"-{_short(self.relative(folder))}"
        return self.folder / f"{kind}-{_short(address)}{of_folder}.json"

    def elsewhere(self, kind: str, address: str, folder: Path) -> Iterator[Path]:
        """Yield the files of the same place for other folders of copies."""
        own = self.file(kind, address, folder)
        found = self.folder.glob(f"{kind}-{_short(address)}-*.json")
        yield from sorted(path for path in found if path != own)

    def of_folder(self, folder: Path) -> dict[Path, int]:
        """Return the files of all places for a folder of copies, and when each was written."""
        found = sorted(self.folder.glob(f"*-*-{_short(self.relative(folder))}.json"))
        return {path: path.stat().st_mtime_ns for path in found}

    def relative(self, folder: Path) -> str:
        """Return a folder as seen from that of the pipelines, which may be moved as a whole."""
        is_inside = folder.is_relative_to(self.base)
        return folder.relative_to(self.base).as_posix() if is_inside else str(folder)

    def absolute(self, folder: str) -> Path:
        return self.base / folder


def read_state(file: Path, kind: type[_T]) -> _T | None:
    """Return what is known; None: nothing, as the file is lost or damaged."""
    try:
        return record_from(kind, read_json_object(file)) if file.exists() else None
    except ValueError:
        return None


def write_state(file: Path, state: Struct) -> None:
    write_json_atomically(file, asdict(state), is_durable=True)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
