"""The pipelines under some folders: which files there are, what changed, what is at fault.

Looks again every few seconds rather than waiting to be told: events are lost on network folders.
A file counts once it has stayed the same for a moment, so that one saved half is not taken for
the whole; one with faults is told once, and what was sound before stays. A folder that is gone as a
whole takes nothing with it: it may have been unmounted. Runs in a thread; knows no Prefect.

A file in a folder where documents arrive or are written (see `work_folders`) is never a pipeline:
others may be able to put one there. In a pipeline's own folder that rule holds for files that come
after the pipeline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from paddock.pipelines.errors import PipelineError
from paddock.runner.settings import SettingsError, read_settings

from .consents import Consents
from .standing import Standing, looks_meant, read_standing, work_folders

SETTLE_S = 1.0  # editors write in one go, or aside and rename
TRY_AGAIN_S = 10.0  # what a faulty file lacks may be another file, such as a prompt
GONE_AFTER = 2  # looks without a file: version control removes and writes anew
MOST_BYTES = 1 << 20
MOST_FILES = 5_000
_LEFT_ALONE = ("node_modules", "__pycache__")

Stamp = tuple[int, int, int]
"""Size, time of change and inode: what changes when a file does."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What one look found. `standing` is all there is now."""

    standing: tuple[Standing, ...]
    added: tuple[Standing, ...] = ()
    """New ones, and changed ones in their new form."""
    removed: tuple[Standing, ...] = ()
    told: tuple[str, ...] = ()
    """What a person should know, each once."""


@dataclass
class _Known:
    stamp: Stamp
    since: float
    look: int = 0
    """The number of the look that saw it first."""
    folders: tuple[Path, ...] = ()
    """Where its documents arrive or are written, if it is a pipeline."""
    left_out: str = ""
    """Why it is no pipeline, in words."""
    standing: Standing | None = None
    read_at: float | None = None
    is_sound: bool = True
    n_missed: int = 0


@dataclass
class Finder:
    """Looks for pipelines. `flags` are settings given by hand.

    `consents` keeps what a person agreed to for each file. All files that are there are agreed to
    when something is allowed that was not before, and at the first look where the person who
    starts this is there (`is_attended`).
    """

    folders: Sequence[Path]
    flags: dict[str, object] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    consents: Consents | None = None
    is_attended: bool = False

    def __post_init__(self) -> None:
        """Begin with nothing known."""
        self._known: dict[Path, _Known] = {}
        self._said: dict[str, str] = {}
        self._n_looks = 0

    def look(self) -> Changes:
        """Look once. What changed is read when it has settled; the first look waits for nothing."""
        now = self.clock()
        is_first = not self._n_looks
        self._n_looks += 1
        told: list[str] = []
        allowed = self._allowed()
        agrees = self._agrees(allowed, is_first=is_first)
        seen = dict(self._files(told))
        added: list[Standing] = []
        removed: list[Standing] = []
        due: dict[Path, str | None] = {}
        for path, stamp in seen.items():
            known = self._known.get(path)
            if known is None:
                known = self._known[path] = _Known(stamp, now, self._n_looks)
            elif known.stamp != stamp:
                known.stamp, known.since, known.read_at = stamp, now, None
            known.n_missed = 0
            if self._is_to_be_read(known, now, at_once=is_first or agrees):
                known.read_at = now
                due[path] = _text_of(path)
                known.folders = work_folders(path, due[path] or "")
        left_out = self._left_out(seen)
        for path in seen:
            known, words = self._known[path], left_out.get(path, "")
            was_left_out, known.left_out = bool(known.left_out), words
            if words:
                if path in due or not was_left_out:
                    self._leave_out(path, known, removed, told)
            elif path in due:
                self._read(path, due[path], known, added, removed, told, agrees=agrees)
            elif was_left_out:
                known.read_at = None
        self._gone(set(seen), removed)
        if self.consents is not None and allowed is not None:
            with suppress(OSError):  # the next look agrees again, which changes nothing
                self.consents.note(self.folders, allowed)
        return Changes(self._standing(), tuple(added), tuple(removed), tuple(told))

    def faults(self) -> dict[str, str]:
        """Give what is wrong now: by file or folder, in words."""
        return dict(self._said)

    def _allowed(self) -> frozenset[str] | None:
        """Return what pipelines may reach by what a person says now; None: it cannot be read."""
        try:
            return read_settings(flags=self.flags).allow
        except SettingsError:  # shown with each file
            return None

    def _agrees(self, allowed: frozenset[str] | None, *, is_first: bool) -> bool:
        """Return whether a person agrees now to what all the files that are there ask for."""
        if self.consents is None or not allowed:
            return False
        is_asked_for = is_first and self.is_attended
        return is_asked_for or self.consents.is_wider(self.folders, allowed)

    def _is_to_be_read(self, known: _Known, now: float, *, at_once: bool) -> bool:
        if known.read_at is None:
            return at_once or now - known.since >= SETTLE_S
        return not known.is_sound and (at_once or now - known.read_at >= TRY_AGAIN_S)

    def _standing(self) -> tuple[Standing, ...]:
        return tuple(known.standing for known in self._known.values() if known.standing)

    def _left_out(self, seen: Iterable[Path]) -> dict[Path, str]:
        """Return the files that lie in folders of documents, each with the reason in words."""
        by_folder: dict[Path | tuple[int, int], list[tuple[Path, Path]]] = {}
        for path, known in self._known.items():
            running = known.standing.bound if known.standing else None
            for folder in {*known.folders, *(running.folders if running else ())}:
                for name in (folder, _identity(folder)):
                    if name is not None:
                        by_folder.setdefault(name, []).append((folder, path))
        if not by_folder:
            return {}
        names: dict[Path, tuple[Path | tuple[int, int], ...]] = {}

        def around(path: Path) -> Iterator[tuple[Path, Path]]:
            for folder in path.parents:
                if folder not in names:
                    names[folder] = (folder, *filter(None, (_identity(folder),)))
                for name in names[folder]:
                    yield from by_folder.get(name, ())

        found: dict[Path, str] = {}
        for path in seen:
            for folder, owner in around(_resolved(path)):
                is_own = _identity(folder) == _identity(owner.parent)
                is_earlier = self._known[path].look <= self._known[owner].look
                if not is_own or not (path == owner or is_earlier):
                    found[path] = _why_left_out(path, folder, owner, is_own=is_own)
                    break
        return found

    def _leave_out(
        self, path: Path, known: _Known, removed: list[Standing], told: list[str]
    ) -> None:
        """Let go of a file in a folder of documents; a person is told of one that is a pipeline."""
        known.is_sound = True
        if known.standing is not None:
            removed.append(known.standing)
            known.standing = None
        if looks_meant(_text_of(path) or ""):
            self._tell(str(path), known.left_out, told)
        else:
            self._said.pop(str(path), None)

    def _read(
        self,
        path: Path,
        text: str | None,
        known: _Known,
        added: list[Standing],
        removed: list[Standing],
        told: list[str],
        *,
        agrees: bool,
    ) -> None:
        """Read a file that has settled."""
        known.is_sound = False
        try:
            text = path.read_text("utf-8-sig") if text is None else text
            settings = read_settings(path.parent, flags=self.flags)
            made = read_standing(
                path, text, settings, has_stood=known.standing is not None,
                consents=self.consents, agrees=agrees,
            )  # fmt: skip
        except Exception as error:  # whatever a file has in store, the others must not mind
            kept = " What it said before goes on." if known.standing else ""
            self._tell(str(path), f"{_words(path, error)}\n  It is not carried out.{kept}", told)
            return
        known.is_sound = True
        self._said.pop(str(path), None)
        old, known.standing = known.standing, made
        if made is not None and (old is None or old.text != made.text):
            added.append(made)
        elif made is None and old is not None:
            removed.append(old)

    def _gone(self, seen: set[Path], removed: list[Standing]) -> None:
        """Let go of files that are gone for good, unless their whole folder is."""
        away = [folder for folder in self.folders if not _is_there(folder)]
        for path in [path for path in self._known if path not in seen]:
            if any(path.is_relative_to(folder) for folder in away):
                continue
            known = self._known[path]
            known.n_missed += 1
            if known.n_missed >= GONE_AFTER:
                del self._known[path]
                self._said.pop(str(path), None)
                if known.standing is not None:
                    removed.append(known.standing)

    def _files(self, told: list[str]) -> Iterator[tuple[Path, Stamp]]:
        """Give every YAML file and its stamp."""
        n_files = 0
        for folder in self.folders:
            if not _is_there(folder):
                kept = "What stood in it is kept until it is back."
                self._tell(str(folder), f"{folder}: this folder cannot be read. {kept}", told)
                continue
            self._said.pop(str(folder), None)
            for path, stamp in _walk(folder):
                n_files += 1
                if n_files > MOST_FILES:
                    words = (
                        f"{folder}: has more than {MOST_FILES} YAML files; the rest is left out."
                    )
                    self._tell("too many", words, told)
                    return
                yield path, stamp

    def _tell(self, about: str, words: str, told: list[str]) -> None:
        """Say it once, until it changes."""
        if self._said.get(about) != words:
            self._said[about] = words
            told.append(words)


def _is_there(folder: Path) -> bool:
    try:
        with os.scandir(folder):
            return True
    except OSError:
        return False


def _walk(folder: Path) -> Iterator[tuple[Path, Stamp]]:
    """Give the YAML files below a folder; links to folders are not followed, so no circle ends."""
    stack = [folder]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:
            continue  # not ours to read, or gone since
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _LEFT_ALONE:
                continue
            if entry.is_dir(follow_symlinks=False):
                stack.append(Path(entry.path))
            elif entry.name.endswith((".yaml", ".yml")) and entry.is_file():
                stamp = _stamp(entry)
                if stamp is not None and stamp[0] <= MOST_BYTES:
                    yield Path(entry.path), stamp


def _text_of(path: Path) -> str | None:
    """Return a file's text; None: it cannot be read, which is told when it is read again."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, ValueError):
        return None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return device and inode: a folder has one identity, however its name is written."""
    try:
        facts = folder.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _why_left_out(path: Path, folder: Path, owner: Path, *, is_own: bool) -> str:
    if is_own:
        return (
            f"{path}: is left out: it came into the folder of {owner.name}, where documents of "
            f"that pipeline arrive.\n"
            f"  If it is a pipeline, move it into a folder of its own, or start `paddock up` again."
        )
    return (
        f"{path}: is left out: it lies in '{folder}', where documents of {owner} arrive or are "
        f"written.\n  If it is a pipeline, move it into another folder."
    )


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    try:
        facts = entry.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _words(path: Path, error: Exception) -> str:
    if isinstance(error, PipelineError | SettingsError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: is not UTF-8 text."
    why = getattr(error, "strerror", None) or error or type(error).__name__
    return f"{path}: cannot be read ({why})."
