"""The backlog: runs whose end Prefect does not show yet, kept as files until it shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.runner.ledger.dead_runs import is_process_alive
from paddock.runner.progress.prefect_view import crashed_end

from .daemon_files import daemon_folder

MOST_KEPT_RUNS = 100  # some days of hourly runs without work
_UPDATE_KEYS = {"id", "pid", "pipeline", "run", "parameters", "began", "tasks", "percent", "end"}


def keep_run(state_dir: Path, update: dict[str, Any]) -> None:
    """Write a run's begin or end to the backlog. Raise OSError when that fails."""
    folder = _backlog_folder(state_dir)
    files.write_json_atomically(folder / f"{update['id']}.json", update)
    for old in sorted(folder.glob("*.json"), key=_mtime, reverse=True)[MOST_KEPT_RUNS:]:
        old.unlink(missing_ok=True)


def kept_runs(state_dir: Path) -> list[dict[str, Any]]:
    """Return the ended runs that are not shown yet, the oldest first.

    A run without an end whose process is gone has crashed, together with its daemon.
    """
    found = map(files.read_json_object, _backlog_folder(state_dir).glob("*.json"))
    whole = [update for update in found if update.keys() >= _UPDATE_KEYS]
    for update in whole:
        if update["end"] is None and not is_process_alive(update["pid"], update["began"]):
            update["end"] = crashed_end(update["pid"])
    return sorted(
        (update for update in whole if update["end"]), key=lambda update: float(update["began"])
    )


def forget_run(state_dir: Path, id_: str) -> None:
    (_backlog_folder(state_dir) / f"{id_}.json").unlink(missing_ok=True)


def _mtime(file: Path) -> float:
    """Return when a file was written; 0 when it is gone."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _backlog_folder(state_dir: Path) -> Path:
    return daemon_folder(state_dir) / "unshown"
