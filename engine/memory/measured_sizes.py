"""Sizes of models that were measured at an earlier load, kept in `sizes.json`.

They belong to a file, a layout and a device. The file is only a cache: without it arithmetic on the
model's header counts (`model_layout`).
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path

from paddock.engine.system.files import read_json_object, write_json_atomically
from paddock.engine.system.records import Struct, asdict, known_record
from paddock.engine.workers.worker_protocol import WorkerMemory, WorkerOptions


class MeasuredSize(Struct, frozen=True):
    taken: WorkerMemory
    load_s: float


def size_key(digest: str, load: WorkerOptions, device: str) -> str:
    """Return the name under which a load's size is kept.

    >>> load = WorkerOptions("x.gguf", "chat", 2048, 8192, 4, 512, 2)
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
        *(["mtp"] if load.uses_mtp else ()),
    )
    besides = filter(None, (*load.adapters, load.projector, load.draft_path))
    return " ".join((digest[:16], device, *parts, *besides))


class MeasuredSizes(Struct, eq=False, dict=True):
    """Reads and writes `sizes.json`. What was seen last counts, so that sizes can also shrink."""

    _file: Path

    @cached_property
    def _known(self) -> dict[str, MeasuredSize]:
        return _read_sizes(self._file)

    def find(self, key: str) -> MeasuredSize | None:
        return self._known.get(key)

    def note(self, key: str, taken: WorkerMemory, load_s: float) -> None:
        before = self.find(key)
        self._known[key] = MeasuredSize(taken, load_s)
        if before is None or taken != before.taken:
            known = {**_read_sizes(self._file), **self._known}
            rows = {key: asdict(size) for key, size in known.items()}
            with suppress(OSError):  # only a cache
                write_json_atomically(self._file, rows)


def _read_sizes(file: Path) -> dict[str, MeasuredSize]:
    return known_record(dict[str, MeasuredSize], read_json_object(file)) or {}
