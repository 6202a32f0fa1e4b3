"""What models really took on this machine, kept so that the next load need not guess.

A size belongs to a file, a layout and a device. It is only a cache: without it, or where its folder
cannot be written, the arithmetic of `fit` counts.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from paddock.engine.system import private
from paddock.engine.workers.load import Load, Taken


@dataclass(frozen=True, slots=True)
class Measured:
    """One load as it was."""

    taken: Taken
    load_s: float


def size_key(digest: str, load: Load, device: str) -> str:
    """Return the name under which a load's size is kept.

    >>> load = Load("x.gguf", "chat", 2048, 8192, 4, 512, 2)
    >>> size_key("0123456789abcdef", load, "cpu")
    '0123456789abcdef cpu cells=8192 sequences=4 batch=512 cache=f16 auto flash=auto layers=-1'
    """
    n_devices = load.visible_devices.count(",") + 1
    parts = (
        f"cells={load.n_cells} sequences={load.n_parallel} batch={load.n_batch_tokens}",
        f"cache={load.kv_cache_type} {load.cache_layout} flash={load.flash_attention}",
        f"layers={load.n_gpu_layers}",
        *([f"experts={load.n_cpu_experts}"] if load.n_cpu_experts else ()),
        *([f"devices={n_devices}"] if n_devices > 1 else ()),
    )
    return " ".join((digest[:16], device, *parts, *load.adapters))


class SizeBook:
    """Reads and writes `sizes.json`. What was seen last counts, so that sizes can also shrink."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, Measured] | None = None

    def find(self, key: str) -> Measured | None:
        """Return what is known of a load."""
        return self._all().get(key)

    def note(self, key: str, taken: Taken, load_s: float) -> None:
        """Keep what a load took with its context at its full length."""
        before, seen = self.find(key), Measured(taken, load_s)
        self._known = {**self._all(), key: seen}
        if before is None or taken != before.taken:
            self._write()

    def _all(self) -> dict[str, Measured]:
        if self._known is None:
            self._known = _read(self._file)
        return self._known

    def _write(self) -> None:
        rows = {
            key: [one.taken.host_bytes, one.taken.device_bytes, round(one.load_s, 3)]
            for key, one in {**_read(self._file), **self._all()}.items()
        }
        aside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            private.folder(self._file.parent)
            private.write(aside, json.dumps(rows))
            aside.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()


def _read(file: Path) -> dict[str, Measured]:
    try:
        rows = json.loads(file.read_text("utf-8"))
        return {
            str(key): Measured(Taken(int(host), int(device)), float(load_s))
            for key, (host, device, load_s) in rows.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
