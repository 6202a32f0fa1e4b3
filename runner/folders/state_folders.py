"""Which ledgers a search finds: those beside pipelines; what lies among documents is data.

`ledger.own_state` decides whose a state folder is, this module whether it lies where one belongs:

1. Beside a pipeline that was named: always.
2. In or below a folder in which documents of another pipeline arrive or are written: never.
3. Beside a pipeline that is there, or was: one that the ledger has runs of.

What is left out is named, and not opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from paddock.engine.system.files import read_text
from paddock.engine.system.text import one_line
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.known_ledgers import entry_of
from paddock.runner.ledger.own_state import LEDGER_FILE, ForeignState, is_own_file, is_own_state
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.settings import STATE_FOLDER, read_settings

MAX_FOLDERS = 50_000
_NOT_SEARCHED = frozenset(("node_modules", "__pycache__", "venv"))
_HAS_STEPS = re.compile(r"^steps\s*:", re.MULTILINE)
_MOST_YAML_BYTES = 1 << 20  # as `schedule.discovery`

_MOST_NOTES = 5  # who can write among documents can make thousands
Note = Callable[[str], None]


def find_ledgers(paths: Iterable[Path], note: Note = lambda text: None) -> list[LedgerFolder]:
    """Return the ledgers of these pipelines, or at and below these folders, each once.

    `note` is called with a sentence on each state folder that is left out, up to some.
    """
    found: dict[LedgerFolder, None] = {}
    states: set[Path] = set()
    for path in map(Path.absolute, paths):
        if path.is_dir():
            # `_walk_below` skips the user's own state folder, which has the same name.
            states.update(_walk_below(path))
        else:
            found[LedgerFolder(path.parent / STATE_FOLDER, path.name)] = None
    return [*found, *_counting(states, note)]


def ledgers_around(paths: Iterable[Path], note: Note = lambda text: None) -> list[LedgerFolder]:
    """Return the ledgers in folders around these paths, the nearest of each first."""
    around = dict.fromkeys(
        folder / STATE_FOLDER for path in paths for folder in (path, *path.parents)
    )
    states = [state for state in around if state.is_dir() and is_state_folder(state)]
    counting = {place.state: place for place in _counting(states, note)}
    return [counting[state] for state in states if state in counting]


def _counting(states: Iterable[Path], note: Note) -> list[LedgerFolder]:
    """Return the ledgers of those state folders that count, outer ones first."""
    found: list[LedgerFolder] = []
    left_out: list[str] = []
    pipelines = _Pipelines()
    scanned: dict[Path, Path] = {}
    """Folders of documents that ledgers know, each with the folder of the pipelines."""
    ordered = sorted(states, key=lambda state: (len(state.parts), state))
    for state in ordered:
        place, folder = LedgerFolder(state), state.parent.resolve()
        what = f"{one_line(str(state))} is not used:"
        known = (scanned.get(around) for around in (folder, *folder.parents))
        owner = next((by for by in known if by not in (None, folder)), None)
        owner = owner or pipelines.with_documents_at(folder)
        if owner is not None:
            left_out.append(
                f"{what} documents of a pipeline in {owner} arrive or are written there. "
                "Where a pipeline of yours lies there, name its file."
            )
            continue
        try:
            if not is_own_state(state):
                continue
            if not read_settings(state.parent).ledger_url:
                entry_of(state / LEDGER_FILE)
            has_pipeline = bool(pipelines.beside(folder))
            if len(ordered) > 1 or not has_pipeline:
                with open_for_reading(place) as ledger:
                    roots = ledger.rows(queries.ROOTS)
                    has_pipeline = has_pipeline or bool(ledger.rows(queries.KNOWS_PIPELINES))
                    is_empty = not ledger.rows(queries.HAS_META)
                scanned.update({folder / path: folder for (path,) in roots})
        except ForeignState as error:
            left_out.append(str(error))
            continue
        except (LedgerError, SettingsError, OSError):  # reported where the ledger is used
            has_pipeline = True
        if has_pipeline:
            found.append(place)
        elif not is_empty:
            left_out.append(f"{what} no pipeline is beside it, and it knows of none that was.")
    for text in left_out[:_MOST_NOTES]:
        note(text)
    if n_more := len(left_out) - len(left_out[:_MOST_NOTES]):
        note(f"{n_more:,} more state folders are not used.")
    return found


def is_state_folder(folder: Path) -> bool:
    """Return whether a folder has a ledger, or cannot be looked into."""
    names = (LEDGER_FILE, "id")
    is_closed = not os.access(folder, os.X_OK)
    return is_closed or any(os.path.lexists(folder / name) for name in names)


def _walk_below(folder: Path) -> Iterator[Path]:
    """Yield state folders below a folder; skip hidden folders and links, which may form cycles."""
    waiting = [folder]
    n_seen = 0
    while waiting and n_seen < MAX_FOLDERS:
        at = waiting.pop()
        n_seen += 1
        try:
            with os.scandir(at) as entries:
                folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # not readable, or deleted meanwhile
        for entry in sorted(folders, key=lambda entry: entry.name, reverse=True):
            if entry.name == STATE_FOLDER and is_state_folder(Path(entry.path)):
                yield Path(entry.path)
            elif not entry.name.startswith(".") and entry.name not in _NOT_SEARCHED:
                waiting.append(Path(entry.path))


class _Pipelines:
    """Files of this user that look like pipelines, as far as they were asked for."""

    def __init__(self) -> None:
        self._beside: dict[Path, tuple[Path, ...]] = {}
        self._documents: dict[Path, tuple[Path, ...]] = {}

    def beside(self, folder: Path) -> tuple[Path, ...]:
        if folder not in self._beside:
            try:
                files = [file for file in folder.iterdir() if file.suffix in (".yaml", ".yml")]
            except OSError:
                files = []
            self._beside[folder] = tuple(filter(_is_own_pipeline, sorted(files)))
        return self._beside[folder]

    def with_documents_at(self, folder: Path) -> Path | None:
        """Return the folder around this one with a pipeline whose documents lie here, if any."""
        for around in reversed(folder.parents):
            for file in self.beside(around):
                if any(folder.is_relative_to(at) for at in self._documents_of(file)):
                    return around
        return None

    def _documents_of(self, file: Path) -> tuple[Path, ...]:
        if file not in self._documents:
            from paddock.runner.bind.bind import document_folders  # takes half a second

            try:
                self._documents[file] = document_folders(file)
            except Exception:  # its faults are reported where it is used
                self._documents[file] = ()
        return self._documents[file]


def _is_own_pipeline(file: Path) -> bool:
    try:
        is_small = file.stat().st_size <= _MOST_YAML_BYTES
        return (
            is_small and is_own_file(file) and bool(_HAS_STEPS.search(read_text(file, "utf-8-sig")))
        )
    except (OSError, ValueError):
        return False
