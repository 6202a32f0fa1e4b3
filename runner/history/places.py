"""Where ledgers lie: the `.paddock` folders beside pipelines, at and below some places."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = ".paddock"  # as `paddock.runner.session` has it, which takes 0.2 s to import
MOST_FOLDERS = 50_000
_LEFT_ALONE = frozenset(("node_modules", "__pycache__", "venv"))


@dataclass(frozen=True, slots=True)
class Place:
    """One folder of pipelines with a ledger."""

    state: Path
    """The `.paddock` folder."""
    file: str | None = None
    """The name of the pipeline's file that is asked for; None: all."""

    @property
    def folder(self) -> Path:
        """The pipelines' folder."""
        return self.state.parent


def places(paths: Iterable[Path]) -> list[Place]:
    """Give the ledgers of these pipelines, or at and below these folders, each once."""
    found: dict[Place, None] = {}
    for path in paths:
        if path.is_dir():
            # The user's own state folder is called so, too, and is no pipeline's.
            found.update({Place(state): None for state in _below(path.absolute())})
        else:
            file = path.absolute()
            found[Place(file.parent / STATE_FOLDER, file.name)] = None
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    """Walk down; hidden folders and links to folders are left alone, so that no circle ends."""
    waiting = [folder]
    n_seen = 0
    while waiting and n_seen < MOST_FOLDERS:
        at = waiting.pop()
        n_seen += 1
        try:
            with os.scandir(at) as entries:
                folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # not ours to read, or gone since
        for entry in sorted(folders, key=lambda entry: entry.name, reverse=True):
            if entry.name == STATE_FOLDER and _is_state(Path(entry.path)):
                yield Path(entry.path)
            elif not entry.name.startswith(".") and entry.name not in _LEFT_ALONE:
                waiting.append(Path(entry.path))


def _is_state(folder: Path) -> bool:
    return (folder / "ledger.sqlite").exists() or (folder / "id").exists()
