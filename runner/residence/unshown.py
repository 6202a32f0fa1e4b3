"""Runs whose end Prefect does not show yet, kept as files until it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddock.engine.system import private
from paddock.runner.shown import crashed

from . import record
from .place import folder_of

MOST_KEPT = 100  # some days of hourly runs that found nothing to do
_KEYS = {"id", "pid", "pipeline", "run", "parameters", "began", "tasks", "percent", "end"}


def keep(state_dir: Path, update: dict[str, Any]) -> None:
    """Write down that a run began or how it ended. Raise OSError where that cannot be written."""
    folder = _folder(state_dir)
    private.folder(folder)
    record.write(folder / f"{update['id']}.json", update)
    for old in sorted(folder.glob("*.json"), key=_written, reverse=True)[MOST_KEPT:]:
        old.unlink(missing_ok=True)


def kept(state_dir: Path) -> list[dict[str, Any]]:
    """Return the runs that have ended and are not shown yet, the oldest first.

    One without an end whose process is gone has crashed, together with the service that knew it.
    """
    from paddock.runner.history.past import is_there

    found = [record.read(file) for file in _folder(state_dir).glob("*.json")]
    whole = [one for one in found if one.keys() >= _KEYS]
    for one in whole:
        if one["end"] is None and not is_there(one["pid"], one["began"]):
            one["end"] = crashed(one["pid"])
    return sorted((one for one in whole if one["end"]), key=lambda one: float(one["began"]))


def forget(state_dir: Path, id_: str) -> None:
    """Remove a run that is shown."""
    (_folder(state_dir) / f"{id_}.json").unlink(missing_ok=True)


def _written(file: Path) -> float:
    """Return when a file was written; one that is gone by now counts as old."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _folder(state_dir: Path) -> Path:
    return folder_of(state_dir) / "unshown"
