"""Runs that have ended and that Prefect does not show yet, kept as files until it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import record
from .place import folder_of

MOST_KEPT = 100


def keep(state_dir: Path, update: dict[str, Any]) -> None:
    """Write down how a run ended. Raise OSError where the folder cannot be written."""
    folder = _folder(state_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    record.write(folder / f"{update['id']}.json", update)
    for old in sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime)[MOST_KEPT:]:
        old.unlink(missing_ok=True)


def kept(state_dir: Path) -> list[dict[str, Any]]:
    """Return the runs that were kept and are not shown yet, the oldest first."""
    found = (record.read(file) for file in _folder(state_dir).glob("*.json"))
    return sorted((one for one in found if one.get("end")), key=lambda one: float(one["began"]))


def forget(state_dir: Path, id_: str) -> None:
    """Remove a run that is shown."""
    (_folder(state_dir) / f"{id_}.json").unlink(missing_ok=True)


def _folder(state_dir: Path) -> Path:
    return folder_of(state_dir) / "unshown"
