"""Which ledgers a search finds: those of pipelines that were named, and those that count here.

`ledger.own_state` and `known_ledgers` decide what counts. A ledger that counts only because
its folder is trusted is not found below the folder of another: documents may arrive there. What is
left out is named, and not opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from paddock.engine.system.text import one_line
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.ledger.database.known_ledgers import entry_of
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.own_state import LEDGER_FILE, ForeignState, is_own_state
from paddock.runner.ledger.run_history import LedgerFolder
from paddock.runner.settings import STATE_FOLDER, read_settings

MAX_FOLDERS = 50_000
_NOT_SEARCHED = frozenset(("node_modules", "__pycache__", "venv"))
_MOST_NOTES = 5  # who can write among documents can make thousands
Note = Callable[[str], None]


def find_ledgers(paths: Iterable[Path], note: Note = lambda text: None) -> list[LedgerFolder]:
    """Return the ledgers of these pipelines, or at and below these folders, each once.

    `note` is called with a sentence on each state folder that is left out, up to some.
    """
    named: dict[LedgerFolder, None] = {}
    states: set[Path] = set()
    for path in map(Path.absolute, paths):
        if path.is_dir():
            # `_walk_below` skips the user's own state folder, which has the same name.
            states.update(_walk_below(path))
        else:
            named[LedgerFolder(path.parent / STATE_FOLDER, path.name)] = None
    return [*named, *_counting(states, note)]


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
    counting: list[LedgerFolder] = []
    left_out: list[str] = []
    for state in sorted(states, key=lambda state: (len(state.parts), state)):
        try:
            if not is_own_state(state):
                continue
            url = read_settings(state.parent).ledger_url
            around = next((at.folder for at in counting if at.folder in state.parents), None)
            if not url and not entry_of(state / LEDGER_FILE).is_kept and around is not None:
                left_out.append(
                    f"{one_line(str(state))} is not used: it lies below {around}, as what arrives "
                    "there may. Where a pipeline of yours lies there, name its file."
                )
                continue
        except ForeignState as error:
            left_out.append(str(error))
            continue
        except (LedgerError, SettingsError, OSError):
            pass  # reported where the ledger is used
        counting.append(LedgerFolder(state))
    for text in left_out[:_MOST_NOTES]:
        note(text)
    if n_more := len(left_out) - len(left_out[:_MOST_NOTES]):
        note(f"{n_more:,} more state folders are not used.")
    return counting


def is_state_folder(folder: Path) -> bool:
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
