"""Store of consents to triggered pipelines, and of the files that counted at the last scan."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system import files
from paddock.engine.system.file_locks import LockTaken, lock_now

_CONSENTS_WAIT_S = 10.0


class Consents:
    """What a person has allowed each pipeline file under `paddock up` to access.

    `--allow` and the settings are the upper limit. Consent is given per file: for all files that
    exist when something is newly allowed, or when `up` starts at a terminal; for others by `paddock
    allow`. A file that comes later, or asks for more than before, does not run without it. Stored
    in one file in the state folder, which is read each time, since other processes write to it.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._folder = state_dir / "up"
        self._file = self._folder / "consents.json"

    def agreed(self, file: Path) -> frozenset[str]:
        return frozenset(self._read("files").get(str(file.resolve()), ()))

    def agree(self, file: Path, accesses: Collection[str]) -> None:
        """Consent to what a pipeline file asks for now; replaces its earlier consents.

        Raises:
            OSError: it cannot be written.
        """
        self._write("files", {str(file.resolve()): sorted(accesses)})

    def is_wider(self, folders: Iterable[Path], allowed: Collection[str]) -> bool:
        """Return whether more is allowed below one of the folders than at the last `note`."""
        known = self._read("folders")
        return any(
            not set(allowed) <= set(known.get(str(folder.resolve()), ())) for folder in folders
        )

    def note(self, folders: Iterable[Path], allowed: Collection[str]) -> None:
        """Record what is allowed below folders now.

        Raises:
            OSError: it cannot be written.
        """
        known = self._read("folders")
        for folder in folders:
            name = str(folder.resolve())
            if known.get(name, []) != sorted(allowed):
                self._write("folders", {name: sorted(allowed)})

    def counted(self, folders: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
        """Return the files that counted as pipelines, each with the folders of its documents."""
        by_folder = self._read("counted")
        return {
            Path(file): tuple(map(Path, names))
            for folder in folders
            for file, names in by_folder.get(str(folder.resolve()), {}).items()
        }

    def note_counted(self, folder: Path, counted: Mapping[Path, Iterable[Path]]) -> None:
        """Record the pipeline files that count below a folder, for the next start.

        Raises:
            OSError: it cannot be written.
        """
        value = {str(file): [*map(str, names)] for file, names in counted.items()}
        self._write("counted", {str(folder.resolve()): value})

    def written(self) -> dict[Path, tuple[str, str]]:
        """Return, of files that agreed runs wrote, the digests of what was there and what is now.

        The first is empty where there was no file.
        """
        return {Path(path): (before, now) for path, (before, now) in self._read("written").items()}

    def note_written(self, written: Mapping[Path, tuple[str, str]]) -> None:
        """Record what an agreed run wrote: digests of what was there, and what is.

        Raises:
            OSError: it cannot be written.
        """
        known = self.written()
        for path, (before, after) in written.items():
            first, last = known.get(path, ("", ""))
            known[path] = first if last == before else before, after
        if written:
            kept = {str(path): digests for path, digests in known.items() if path.exists()}
            self._write("written", kept, is_whole=True)

    def _read(self, kind: str) -> dict[str, Any]:
        values = files.read_json_object(self._file).get(kind)
        return values if isinstance(values, dict) else {}

    def _write(self, kind: str, values: Mapping[str, Any], *, is_whole: bool = False) -> None:
        try:
            with lock_now(self._folder / "consents.lock", wait_s=_CONSENTS_WAIT_S):
                known = files.read_json_object(self._file)
                kept = {} if is_whole else self._read(kind)
                whole = {**known, kind: {**kept, **values}}
                files.write_atomically(self._file, json.dumps(whole, indent=1, sort_keys=True))
        except LockTaken:
            raise TimeoutError(None, "another process holds the file", str(self._file)) from None
