"""Records of tuned copies: which model has one, where, what was measured; which has none, and why.

Imports no llama_cpp. A copy is a blob of its own in the model store, under its own digest; the
original stays. The record is in the cache folder, since it is valid for this machine. A copy whose
file was removed does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from paddock.engine.system import files
from paddock.engine.system.light_dataclasses import asdict, dataclass, fields
from paddock.engine.wire import from_plain

_FOLDER, _VERDICT = "tuned", ".verdict"
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
    """Share of the processor's time that the threads got."""
    n_prompt_tokens: int = 256
    """Length of the measured prompts."""


@dataclass(frozen=True, slots=True)
class TunedCopy:
    """One model's tuned copy."""

    name: str
    """The model's name."""
    original: str
    """sha256 of the model's file."""
    digest: str
    """sha256 of the copy."""
    path: str
    format: str
    size_bytes: int
    more_bytes: int
    """Compared with the original."""
    agreement: float
    """Share of positions in real text at which both predict the same token; of an embedding model
    the mean cosine of both vectors."""
    n_compared: int
    """Number of compared positions or vectors."""
    before: CopySpeeds
    after: CopySpeeds
    made_at: float
    exact_before: float | None = None
    """Agreement of the original, as this device computes it, with exact arithmetic."""
    exact_after: float | None = None
    """Agreement of the copy with exact arithmetic on the original's weights."""
    n_documents: int = 0
    """Number of the user's documents for the measurements; 0: text that comes with Paddock."""
    changed_from: str = ""
    """Former formats of the changed matrices, if they were chosen one by one."""
    n_changed: int = 0
    """Number of changed matrices, if they were chosen one by one."""
    n_kept: int = 0
    """Low-bit matrices that stay bit for bit, since their format is quick on this machine."""
    is_ours: bool = True
    """Whether the blob was made for this record."""
    original_path: str = ""
    """The model's file."""
    is_embedder: bool = False
    is_near: bool = False
    """Whether it is farther from exact arithmetic than the original, within the bound of `near`."""
    divergence: float | None = None
    """Mean KL divergence from exact arithmetic in nats, or mean cosine distance."""
    version: int = RECORD_VERSION

    @property
    def label(self) -> str:
        """The format, the former one if only some matrices were changed, and if it is `near`."""
        label = f"{self.changed_from} as {self.format}" if self.n_kept else self.format
        return f"{label} (near)" if self.is_near else label

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


@dataclass(frozen=True, slots=True)
class TuningVerdict:
    """Why a model has no tuned copy, so that it is not tried again and again."""

    name: str
    """The model's name."""
    place: str
    """Device and build of llama.cpp for which it holds; "": for all."""
    text: str = ""
    """Why there is none; "": trials have begun, and none has ended."""
    is_advice: bool = False
    """Whether a copy would help, and is made when the user asks for it."""
    n_attempts: int = 0
    """Number of trials in the background that have begun."""
    original_path: str = ""
    """The model's file."""
    is_near: bool = False
    """Whether copies within the bound of `near` were tried, too."""

    @property
    def sentence(self) -> str:
        remedy = f"; `paddock tune {self.name}` makes one" if self.is_advice else ""
        return f"{self.name} has no tuned copy: {self.text}{remedy}"


_Record = TypeVar("_Record", TunedCopy, TuningVerdict)


class TunedCopyStore:
    """Reads and writes the records."""

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / _FOLDER

    def find(self, original: str) -> TunedCopy | None:
        """Return the copy of a model's file, if it exists and is complete."""
        file = self._file(original)
        tuned = _read_record(file) if file.exists() else None  # of most models there is none
        if tuned is None or tuned.original != original:
            return None
        try:
            is_whole = Path(tuned.path).stat().st_size == tuned.size_bytes
        except OSError:
            return None
        return tuned if is_whole else None

    def all(self) -> Iterator[TunedCopy]:
        """Yield every existing copy, sorted by the name of its model."""
        read = (_read_record(file) for file in sorted(self.folder.glob("*.json")))
        there = (
            tuned for tuned in read if tuned is not None and self.find(tuned.original) == tuned
        )
        yield from sorted(there, key=lambda tuned: tuned.name)

    def damaged(self) -> list[Path]:
        """Return the records and verdicts of this version that cannot be read."""
        found = [file for file in self.folder.glob("*.json") if _read_record(file) is None]
        found += [file for file in self.folder.glob(f"*{_VERDICT}") if _read_verdict(file) is None]
        own = (None, RECORD_VERSION)
        return [
            file for file in sorted(found) if files.read_json_object(file).get("version") in own
        ]

    def keep(self, tuned: TunedCopy) -> None:
        """Write a record; remove a copy that it replaces, and the verdict.

        Raises:
            OSError: the folder cannot be written.
        """
        before = _read_record(self._file(tuned.original))
        self._verdict_file(tuned.original).unlink(missing_ok=True)
        files.write_json_atomically(self._file(tuned.original), asdict(tuned), is_durable=True)
        if before is not None and before.path != tuned.path:
            self._remove_blob(before)

    def forget(self, original: str) -> TunedCopy | None:
        """Remove a copy, first its record, then its file; return the record."""
        tuned = _read_record(self._file(original))
        self._file(original).unlink(missing_ok=True)
        if tuned is not None:
            self._remove_blob(tuned)
        return tuned

    def verdict(self, original: str, place: str | None = None) -> TuningVerdict | None:
        """Return why a model's file has no copy on this device and build; None: unknown.

        Without `place`, the last one.
        """
        found = _read_verdict(self._verdict_file(original))
        if found is None or (place is not None and found.place not in ("", place)):
            return None
        return found

    def verdicts(self) -> Iterator[TuningVerdict]:
        """Yield every verdict that says why, sorted by the name of its model."""
        read = map(_read_verdict, self.folder.glob(f"*{_VERDICT}"))
        yield from sorted(
            (verdict for verdict in read if verdict and verdict.text),
            key=lambda verdict: verdict.name,
        )

    def keep_verdict(self, original: str, verdict: TuningVerdict) -> None:
        """Write a verdict.

        Raises:
            OSError: the folder cannot be written.
        """
        files.write_json_atomically(self._verdict_file(original), asdict(verdict), is_durable=True)

    def forget_others(self, is_there: Callable[[str, str], bool]) -> list[TunedCopy]:
        """Remove copies and verdicts of models that are gone, by digest and path; return them."""
        gone = [tuned for tuned in self.all() if not is_there(tuned.original, tuned.original_path)]
        for copy in gone:
            self.forget(copy.original)
        for file in self.folder.glob(f"*{_VERDICT}"):
            verdict = _read_verdict(file)
            original = file.name.removesuffix(_VERDICT)
            if verdict is None or not is_there(original, verdict.original_path):
                file.unlink(missing_ok=True)
        return gone

    def _verdict_file(self, original: str) -> Path:
        return self.folder / f"{original}{_VERDICT}"

    def _remove_blob(self, tuned: TunedCopy) -> None:
        path = Path(tuned.path)
        if tuned.is_ours and not _is_named_by_manifest(path):
            with suppress(OSError):
                path.unlink()

    def _file(self, original: str) -> Path:
        return self.folder / f"{original}.json"


def _is_named_by_manifest(blob: Path) -> bool:
    manifests = blob.parent.parent / "manifests"
    digest = blob.name.replace("-", ":", 1)
    for manifest in manifests.glob("*/*/*/*"):
        with suppress(OSError):
            if digest in manifest.read_text("utf-8", errors="replace"):
                return True
    return False


def _read_record(file: Path) -> TunedCopy | None:
    tuned = _read(TunedCopy, file)
    if tuned is None or tuned.version != RECORD_VERSION:
        return None
    return tuned if min(tuned.before.prompts, tuned.before.answer) > 0 else None


def _read_verdict(file: Path) -> TuningVerdict | None:
    return _read(TuningVerdict, file)


def _read(kind: type[_Record], file: Path) -> _Record | None:
    """Return what a file holds; None where it is damaged: a name or a type is another one."""
    data = files.read_json_object(file)
    known = {field.name for field in fields(kind)}
    try:
        return from_plain(kind, data) if data.keys() <= known else None
    except ValueError:
        return None
