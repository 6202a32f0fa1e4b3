"""Processes of runs, as `paddock up` knows them after it was killed and started again."""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from paddock.engine.system import files


def process_mark(pid: int) -> str:
    """Return a mark that no later process with the same number has."""
    return f"{socket.gethostname()}:{pid}:{_start_time(pid)}"


def _start_time(pid: int) -> str:
    """Return when a process began, independent of changes to the machine's clock."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot[:8]}.{ticks[19]}"  # the 22nd field, counted from behind the name
    except (OSError, IndexError):
        pass
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return "0"


def is_process_alive(mark: str) -> bool:
    """Return whether the process of a mark still runs on this machine."""
    host, _, rest = mark.rpartition(":")[0].partition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        process = psutil.Process(int(rest))
        return process_mark(int(rest)) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@dataclass(frozen=True, slots=True)
class StartRecord:
    """The last start of a flow run."""

    attempt: int = 1
    """The number of starts since the run's last progress, from 1."""
    mark: str = ""
    """Of its process; empty until that is there."""
    run: str = ""
    """Its name in the ledger, once it is known."""
    is_stopped: bool = False
    """It was at work when `paddock up` was asked to end, so a killed process is no crash."""


class StartRecords:
    """The starts of runs that have not ended, by flow run, in a file of this machine.

    Prefect may be others', so no process is signalled by what a flow run says.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._records: dict[str, StartRecord] = {}
        for id_, facts in files.read_json_object(file).items():
            with suppress(TypeError):  # of another version
                self._records[id_] = StartRecord(**facts)

    def get(self, id_: str) -> StartRecord | None:
        return self._records.get(id_)

    def note(self, id_: str, **changes: Any) -> StartRecord:
        """Change what is known of a run's start, on the disk too."""
        record = self._records[id_] = replace(self._records.get(id_) or StartRecord(), **changes)
        self._write()
        return record

    def forget(self, ids: Collection[str]) -> None:
        if found := self._records.keys() & set(ids):
            for id_ in found:
                del self._records[id_]
            self._write()

    def _write(self) -> None:
        with suppress(OSError):  # a full disk: what runs goes on
            facts = {id_: asdict(record) for id_, record in self._records.items()}
            files.write_json_atomically(self._file, facts)
