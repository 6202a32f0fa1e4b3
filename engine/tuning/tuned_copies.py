"""Records of tuned copies: which model has one, where it lies, what was measured of it.

Imports no llama_cpp. A copy is a blob of its own beside the others, under its own digest; the
original stays. The record lies in the cache's folder, since it holds for this machine. A copy
whose file was removed counts as none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from paddock.engine.system import files

_FOLDER = "tuned"
RECORD_VERSION = 1


@dataclass(frozen=True, slots=True)
class CopySpeeds:
    """Tokens per second."""

    prompts: float
    answer: float
    """One answer alone."""
    answers: float
    """Eight at once, together."""
    share: float = 1.0
    """What the threads got of the processor's time."""
    n_prompt_tokens: int = 256
    """The length of the prompts that were measured."""


@dataclass(frozen=True, slots=True)
class TunedCopy:
    """One model's tuned copy."""

    name: str
    """Of the model, as it was asked for."""
    original: str
    """sha256 of the file that the name stands for."""
    digest: str
    """sha256 of the copy."""
    path: str
    format: str
    size_bytes: int
    more_bytes: int
    """Than the original has."""
    agreement: float
    """The share of places in real text where both would go on with the same token."""
    n_compared: int
    """Places that were compared."""
    before: CopySpeeds
    after: CopySpeeds
    made_at: float
    exact_before: float | None = None
    """The same share between the original, as this device computes it, and exact arithmetic."""
    exact_after: float | None = None
    """And between the copy and exact arithmetic with the original's weights."""
    n_documents: int = 0
    """Documents of the user's on which all this was measured; 0: text that comes with Paddock."""
    changed_from: str = ""
    """The formats that the changed matrices had, where not all low-bit ones were changed."""
    n_changed: int = 0
    """Matrices that were changed, where they were chosen one by one."""
    n_kept: int = 0
    """Low-bit matrices that stay bit for bit, since this machine is quick with their format."""
    is_ours: bool = True
    """Whether the blob was made for this, and not there before."""
    version: int = RECORD_VERSION

    @property
    def label(self) -> str:
        """Name the format; where only some matrices are in it, also what they were in before."""
        return f"{self.changed_from} as {self.format}" if self.n_kept else self.format

    @property
    def prompts_ratio(self) -> float:
        """How many times as fast the copy reads prompts."""
        return self.after.prompts / self.before.prompts

    @property
    def answer_ratio(self) -> float:
        """How many times as fast the copy writes one answer."""
        return self.after.answer / self.before.answer

    @property
    def answers_ratio(self) -> float:
        """How many times as fast the copy writes eight answers at once."""
        return self.after.answers / self.before.answers


class TunedCopyStore:
    """Reads and writes the records."""

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / _FOLDER

    def find(self, original: str) -> TunedCopy | None:
        """Return the copy of a model's file, if it is there and whole."""
        tuned = _read_record(self._file(original))
        if tuned is None or tuned.original != original:
            return None
        try:
            is_whole = Path(tuned.path).stat().st_size == tuned.size_bytes
        except OSError:
            return None
        return tuned if is_whole else None

    def all(self) -> Iterator[TunedCopy]:
        """Yield every copy that is there, by the name of its model."""
        read = (_read_record(file) for file in sorted(self.folder.glob("*.json")))
        there = (one for one in read if one is not None and self.find(one.original) == one)
        yield from sorted(there, key=lambda one: one.name)

    def keep(self, tuned: TunedCopy) -> None:
        """Write a record; a copy that it replaces is removed.

        Raises:
            OSError: the folder cannot be written.
        """
        before = _read_record(self._file(tuned.original))
        files.private_folder(self.folder)
        file = self._file(tuned.original)
        aside = file.with_name(f"{file.name}.{os.getpid()}")
        with files.open_private(aside) as stream:
            stream.write(json.dumps(asdict(tuned)))
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
        if before is not None and before.path != tuned.path:
            self._remove_blob(before)

    def forget(self, original: str) -> TunedCopy | None:
        """Undo a copy: its record goes first, then its file; gives what it was."""
        tuned = _read_record(self._file(original))
        self._file(original).unlink(missing_ok=True)
        if tuned is not None:
            self._remove_blob(tuned)
        return tuned

    def _remove_blob(self, tuned: TunedCopy) -> None:
        path = Path(tuned.path)
        if tuned.is_ours and not _is_named_by_manifest(path):
            with suppress(OSError):
                path.unlink()

    def _file(self, original: str) -> Path:
        return self.folder / f"{original}.json"


def _is_named_by_manifest(blob: Path) -> bool:
    """Return whether a manifest of the store has come to name this blob too."""
    manifests = blob.parent.parent / "manifests"
    digest = blob.name.replace("-", ":", 1)
    for manifest in manifests.glob("*/*/*/*"):
        with suppress(OSError):
            if digest in manifest.read_text("utf-8", errors="replace"):
                return True
    return False


def _read_record(file: Path) -> TunedCopy | None:
    try:
        data = json.loads(file.read_text("utf-8"))
        if data["version"] != RECORD_VERSION:
            return None
        speeds = {name: CopySpeeds(**data[name]) for name in ("before", "after")}
        tuned = TunedCopy(**{**data, **speeds})
        return tuned if min(tuned.before.prompts, tuned.before.answer) > 0 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
