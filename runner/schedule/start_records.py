"""Starts of runs, as `paddock up` knows them after it was killed and started again."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paddock.engine.system import files


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
