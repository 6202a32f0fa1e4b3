"""What is read of model files, kept while they are what they were: headers, digests, abilities.

Used by many threads at once. A header takes 8 to 50 ms to read and a template 2 to 15 ms to study,
which every request would otherwise pay.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from paddock.engine.errors import ModelBroken
from paddock.engine.gguf import Header, joined, read_header
from paddock.engine.system import private

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

# Some 100 kB each for large models. A list looks at all of them: were there fewer places than
# models, each would be read again every time (92 models: 1.1 s).
_N_KEPT = 256

Stamp = tuple[str, int, int, int]
"""Path, size, mtime in ns, inode: equal ones are the same file, unchanged."""


class ModelFiles:
    """Reads files, each once."""

    def __init__(self, cache_dir: Path) -> None:
        self._digests = _DigestCache(cache_dir / "digests.json")
        self._headers: _Kept[Stamp, Header] = _Kept()
        self._abilities: _Kept[str, frozenset[str]] = _Kept()

    def header(self, path: Path, parts: Sequence[Path] = ()) -> Header:
        """Read a model's header; `parts`: the files of a split model after the first.

        Raises:
            ModelBroken: it is not a whole GGUF file.
        """
        return joined([self._header(file) for file in (path, *parts)])

    def _header(self, path: Path) -> Header:
        try:
            mark = stamp(path)
        except OSError as error:
            why = error.strerror or str(error)
            raise ModelBroken(str(path), f"the file cannot be read: {why}") from error
        return self._headers.get(mark, lambda: read_header(path))

    def digest(self, path: Path, parts: Sequence[Path] = ()) -> str:
        """Return a file's sha256, hexadecimal; of a split model, that of its parts' digests.

        Raises:
            OSError: it cannot be read.
        """
        digests = [self._digests.of(file) for file in (path, *parts)]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if parts else digests[0]

    def abilities(self, template: str) -> frozenset[str]:
        """Tell what a chat template has words for: tools, insert, thinking."""
        from paddock.engine.dialogue.capabilities import capabilities_of_template  # Jinja2: 40 ms

        return self._abilities.get(template, lambda: frozenset(capabilities_of_template(template)))


def stamp(path: Path) -> Stamp:
    """Give what changes when a file does.

    Raises:
        OSError: it is not there.
    """
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino


class _Kept(Generic[_K, _V]):
    """The last few values that were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K, make: Callable[[], _V]) -> _V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > _N_KEPT:
                self._values.popitem(last=False)
        return value


class _DigestCache:
    """The sha256 of model files, kept by path, size, mtime and inode: a file is read once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, path: Path) -> str:
        if path.parent.name == "blobs" and path.name.startswith("sha256-"):
            return path.name.removeprefix("sha256-")  # verified before it got its name
        name, *mark = stamp(path)
        known = self._read()
        entry = known.get(name)
        if entry is not None and entry[:3] == mark:
            return str(entry[3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._write({**known, name: [*mark, digest]})
        return digest

    def _read(self) -> dict[str, list[object]]:
        try:
            data = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, entries: dict[str, list[object]]) -> None:
        """Replace the cache; it is only a cache, so a folder that cannot be written is no fault."""
        aside = self._file.with_name(f"{self._file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            private.folder(self._file.parent)
            private.write(aside, json.dumps(entries))
            aside.replace(self._file)
        except OSError:
            aside.unlink(missing_ok=True)
