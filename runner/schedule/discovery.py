"""Find the pipeline files below some folders: new, changed, faulty and removed ones.

Lock each folder for one `paddock up`. Polls every few seconds: file-system events are lost on
network folders. A file counts once it has stayed the same for a moment, so that one saved half is
not read; a faulty file is reported once, and its last sound version stays. When a whole folder is
gone its pipelines stay: it may have been unmounted. A file in a folder where documents arrive or
are written (see `work_folders`) is never a pipeline, since others may be able to put one there. In
a pipeline's own folder that holds for files that come after the pipeline. A file that is left out
decides nothing, whatever folders it names. Runs in a thread; knows no Prefect.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from paddock.engine.system import files
from paddock.engine.system.records import Struct, field
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.bind.variations import comparison_notes
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.settings import read_settings

from .triggered_pipeline import (
    TriggeredPipeline,
    looks_triggered,
    read_triggered_pipeline,
    work_folders,
)

SETTLE_S = 1.0  # editors write at once, or to a temporary file that they rename
TRY_AGAIN_S = 10.0  # a faulty file may need another file, such as a prompt
GONE_AFTER = 2  # scans without the file: version control removes and rewrites files
MOST_BYTES = 1 << 20
MOST_FILES = 5_000
_LEFT_ALONE = ("node_modules", "__pycache__")

FileStamp = tuple[int, int, int]
"""Size, modification time and inode: they change when a file does."""


class PipelineChanges(Struct, frozen=True):
    triggered: tuple[TriggeredPipeline, ...]
    added: tuple[TriggeredPipeline, ...] = ()
    """New pipelines, and changed ones in their new form."""
    messages: tuple[str, ...] = ()
    """Messages for people, each once."""


class _KnownFile(Struct):
    stamp: FileStamp
    since: float
    look: int = 0
    """Number of the first scan that saw it."""
    folders: tuple[Path, ...] = ()
    """Where its documents arrive or are written, if it is a pipeline."""
    left_out: str = ""
    triggered: TriggeredPipeline | None = None
    links: tuple[str, ...] = ()
    """Where the links in the paths of its watches led when it was read."""
    read_at: float | None = None
    is_sound: bool = True
    n_missed: int = 0


class PipelineFinder(Struct, dict=True):
    """Finds pipelines. `flags` are the command line's settings.

    `consents` stores what a person allowed each file. All existing files get consent when
    something is newly allowed, and at the first scan if the person who starts this is present
    (`is_attended`).
    """

    folders: Sequence[Path]
    flags: dict[str, object] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    consents: Consents | None = None
    is_attended: bool = False

    def __post_init__(self) -> None:
        self._known: dict[Path, _KnownFile] = {}
        self._reported: dict[str, str] = {}
        self._n_looks = 0
        self._counted: dict[Path, tuple[Path, ...]] = {}
        """The pipeline files that count, each with the folders of its documents."""
        if self.consents is not None:
            self._counted = self.consents.counted(self.folders)
        self._earlier = frozenset(self._counted)
        self._begin_scan()

    def _begin_scan(self) -> None:
        self._added: list[TriggeredPipeline] = []
        self._messages: list[str] = []

    def scan_folders(self) -> PipelineChanges:
        """Scan once. Changed files are read once settled; the first scan reads all."""
        now = self.clock()
        is_first = not self._n_looks
        self._n_looks += 1
        self._begin_scan()
        # What the current settings let pipelines access; None when they cannot be read.
        try:
            allowed = read_settings(flags=self.flags).allow
        except SettingsError:  # shown with each file
            allowed = None
        # Whether a person now consents to what all existing files ask for
        if self.consents is None or not allowed:
            agrees = False
        else:
            is_asked_for = is_first and self.is_attended
            agrees = is_asked_for or self.consents.is_wider(self.folders, allowed)
        seen = dict(self._files())
        due = self._texts_to_read(seen, now, at_once=is_first or agrees)
        left_out = self._left_out(seen)
        for path in seen:
            known = self._known[path]
            was_left_out, known.left_out = bool(known.left_out), left_out.get(path, "")
            if known.left_out:
                if was_left_out and path not in due:
                    continue
                known.is_sound, known.triggered = True, None
                if looks_triggered(_text_of(path) or ""):
                    self._report(str(path), known.left_out)
                else:
                    self._reported.pop(str(path), None)
            elif path in due:
                self._read(path, due[path], known, agrees=agrees)
            elif was_left_out:
                known.read_at = None
        self._gone(set(seen))
        self._store_state(allowed)
        standing = tuple(known.triggered for known in self._known.values() if known.triggered)
        return PipelineChanges(standing, tuple(self._added), tuple(self._messages))

    def _store_state(self, allowed: frozenset[str] | None) -> None:
        if self.consents is None:
            return
        counted = {
            path: known.folders
            for path, known in self._known.items()
            if not known.left_out and (known.folders or known.triggered)
        }
        with suppress(OSError):  # the next scan tries again, which changes nothing
            if allowed is not None:
                self.consents.note(self.folders, allowed)
            if counted != self._counted:
                for folder in filter(_is_folder_there, self.folders):
                    below = {path: counted[path] for path in counted if path.is_relative_to(folder)}
                    self.consents.note_counted(folder, below)
                self._counted = counted

    def _texts_to_read(
        self, seen: Mapping[Path, FileStamp], now: float, *, at_once: bool
    ) -> dict[Path, str | None]:
        """Return the files to be read now, each with its text; None: it cannot be read."""
        due: dict[Path, str | None] = {}
        for path, stamp in seen.items():
            known = self._known.setdefault(
                path, _KnownFile(stamp, now, self._n_looks, self._counted.get(path, ()))
            )
            if known.stamp != stamp:
                known.stamp, known.since, known.read_at = stamp, now, None
            elif known.triggered is not None and known.links != _watched_links(known.triggered):
                known.read_at = None  # a watch goes to where its link leads now
            known.n_missed = 0
            if known.read_at is None:
                is_due = now - known.since >= SETTLE_S
            else:
                is_due = not known.is_sound and now - known.read_at >= TRY_AGAIN_S
            if is_due or (at_once and not (known.is_sound and known.read_at is not None)):
                known.read_at = now
                due[path] = _text_of(path)
                named = work_folders(path, due[path] or "")
                known.folders = known.folders if named is None else named
        return due

    def pipeline_files(self) -> dict[Path, FileStamp]:
        """Return the files that may be pipelines, without those in folders of documents.

        Only to be shown: every file in a pipeline's own folder is one of them.
        """
        self._begin_scan()
        seen = dict(self._files())
        self._texts_to_read(seen, self.clock(), at_once=True)
        self._gone(set(seen))
        left_out = self._left_out(seen)
        return {path: stamp for path, stamp in seen.items() if path not in left_out}

    def faults(self) -> dict[str, str]:
        return dict(self._reported)

    def lacks_pipelines(self) -> bool:
        return any(not (known.is_sound or known.triggered) for known in [*self._known.values()])

    def _left_out(self, seen: Iterable[Path]) -> dict[Path, str]:
        """Return the files in folders of documents, each with the reason to ignore it.

        Files decide in the order in which they came, and of those that came at once outer ones
        first, links last; one that is left out names no folder.
        """
        owners: dict[_FolderName, list[tuple[Path, Path]]] = {}
        """The folders of documents, by path and identity, each with its pipeline's file."""
        names: dict[Path, tuple[_FolderName, ...]] = {}
        reasons: dict[Path, str] = {}

        def order(path: Path) -> tuple[int, bool, int, Path]:
            return self._came(path), path.is_symlink(), len(path.parts), path

        for path in sorted(seen, key=order):
            resolved = files.resolved(path) or path  # it may be a link
            around = (*path.parents, *resolved.parents) if owners else ()
            names |= {folder: _names_of(folder) for folder in around if folder not in names}
            claims = (
                claim
                for folder in around
                for name in names[folder]
                for claim in owners.get(name, ())
            )
            for place, owner in claims:
                is_own = files.identity_of_path(place) == files.identity_of_path(owner.parent)
                if not is_own or self._came(path) > self._came(owner):
                    reasons[path] = _left_out_reason(path, owner, None if is_own else place)
                    break
            else:
                known = self._known[path]
                running = known.triggered.bound if known.triggered else None
                for place in {*known.folders, *(running.folders if running else ())}:
                    for name in _names_of(place):
                        owners.setdefault(name, []).append((place, path))
        return reasons

    def _came(self, path: Path) -> int:
        """Return when a file came: 0, before this start; else the number of its first scan.

        At an attended start a person takes what is there for pipelines.
        """
        look = self._known[path].look
        return 0 if path in self._earlier or (self.is_attended and look == 1) else look

    def _read(self, path: Path, text: str | None, known: _KnownFile, *, agrees: bool) -> None:
        known.is_sound = False
        try:
            text = files.read_text(path, "utf-8-sig") if text is None else text
            settings = read_settings(path.parent, flags=self.flags)
            triggered = read_triggered_pipeline(
                path, text, settings, was_pipeline=known.triggered is not None,
                consents=self.consents, agrees=agrees,
            )  # fmt: skip
        except Exception as error:  # no file's error may affect the others
            kept = " Its last valid version stays in service." if known.triggered else ""
            self._report(str(path), f"{_error_text(path, error)}\n  It does not run.{kept}")
            return
        known.is_sound = True
        self._reported.pop(str(path), None)
        before = known.triggered and known.triggered.text, known.links
        known.triggered = triggered
        known.links = () if triggered is None else _watched_links(triggered)
        if triggered is not None and before != (triggered.text, known.links):
            self._added.append(triggered)
            self._messages += comparison_notes(triggered.pipeline)

    def _gone(self, seen: set[Path]) -> None:
        """Drop files that are gone for good, unless their whole folder is gone."""
        away = [folder for folder in self.folders if not _is_folder_there(folder)]
        for path in [path for path in self._known if path not in seen]:
            if any(path.is_relative_to(folder) for folder in away):
                continue
            known = self._known[path]
            known.n_missed += 1
            if known.n_missed >= GONE_AFTER:
                del self._known[path]
                self._reported.pop(str(path), None)

    def _files(self) -> Iterator[tuple[Path, FileStamp]]:
        n_files = 0
        for folder in self.folders:
            if not _is_folder_there(folder):
                kept = "Its pipelines are kept until it is back."
                self._report(str(folder), f"{folder}: this folder cannot be read. {kept}")
                continue
            self._reported.pop(str(folder), None)
            for path, stamp in walk_yaml_files(folder):
                n_files += 1
                if n_files > MOST_FILES:
                    message = (
                        f"{folder}: has more than {MOST_FILES} YAML files; the rest is ignored."
                    )
                    self._report("too many", message)
                    return
                yield path, stamp

    def _report(self, about: str, message: str) -> None:
        if self._reported.get(about) != message:
            self._reported[about] = message
            self._messages.append(message)


def _watched_links(triggered: TriggeredPipeline) -> tuple[str, ...]:
    """Return the first link in each watch's path and its target, which may not answer."""
    links: list[str] = []
    for watch in triggered.bound.watches if triggered.bound else ():
        for part in (*reversed(watch.path.parents), watch.path):
            with suppress(OSError):  # it is no link
                links.append(f"{part} {part.readlink()}")
                break
    return tuple(links)


def _is_folder_there(folder: Path) -> bool:
    try:
        with os.scandir(folder):
            return True
    except OSError:
        return False


def walk_yaml_files(folder: Path) -> Iterator[tuple[Path, FileStamp]]:
    """Yield the YAML files below a folder, by name; links to folders are not followed (cycles)."""
    stack = [folder]
    while stack:
        try:
            entries = sorted(os.scandir(stack.pop()), key=lambda entry: entry.name)
        except OSError:
            continue  # no permission, or gone since
        n_left = len(stack)
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _LEFT_ALONE:
                continue
            if entry.is_dir(follow_symlinks=False):
                stack.insert(n_left, Path(entry.path))  # the first by name is next
            elif entry.name.endswith((".yaml", ".yml")) and entry.is_file():
                with suppress(OSError):  # gone since
                    facts = entry.stat()
                    if facts.st_size <= MOST_BYTES:
                        yield Path(entry.path), (facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _text_of(path: Path) -> str | None:
    """Return None when the file cannot be read, which the next read reports."""
    try:
        return files.read_text(path, "utf-8-sig")
    except (OSError, ValueError):
        return None


def _left_out_reason(path: Path, owner: Path, folder: Path | None) -> str:
    """Return why a file in a folder of documents of `owner`'s is ignored; None: in its own."""
    if folder is None:
        return (
            f"{path}: is ignored: it came into the folder of {owner.name}, where documents of that "
            "pipeline arrive.\n  If it is a pipeline, move it into a folder of its own, or start "
            "`paddock up` again at a terminal."
        )
    return (
        f"{path}: is ignored: it lies in '{folder}', where documents of {owner} arrive or are "
        "written.\n  If it is a pipeline, move it into another folder."
    )


_FolderName = Path | tuple[int, int]
"""A folder's path, or its identity: file system and inode."""


def _names_of(folder: Path) -> tuple[_FolderName, ...]:
    identity = files.identity_of_path(folder)
    return (folder,) if identity is None else (folder, identity)


def _error_text(path: Path, error: Exception) -> str:
    if isinstance(error, PipelineError | SettingsError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: is not UTF-8 text."
    why = getattr(error, "strerror", None) or error or type(error).__name__
    return f"{path}: cannot be read ({why})."
