"""The real machine and the real files, as layouts are made of them.

Headers are read once, in a thread, because vocabularies are long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from paddock.engine.gguf import GgufHeader
from paddock.engine.models.model_finder import ModelFiles
from paddock.engine.profile.profile import PoolProfiles
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_protocol import (
    IMAGE_BYTES,
    LoadBroken,
    WorkerMemory,
    WorkerOptions,
)

from .device_memory import Device, this_device
from .measured_sizes import MeasuredSizes, size_key
from .model_layout import LayoutRequest, ModelLayout, layouts, wider

log = logging.getLogger(__name__)
_REFUSED_S = 3600.0  # a driver may be mended meanwhile


class MachineProbe:
    """Reads this machine. Headers are read once, in a thread: vocabularies are long."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._book = MeasuredSizes(settings.cache_dir / "sizes.json")
        self._profiles = PoolProfiles(settings)
        self._files = ModelFiles(settings.cache_dir)
        self._device_name = ""
        self._refusals: dict[tuple[str, str], tuple[str, float]] = {}
        """By a model's digest ("": all) and a device's UUID: llama.cpp's words, and since when."""

    async def probe_device(self) -> Device:
        device = await asyncio.to_thread(this_device)
        self._device_name = device.name
        return self._corrected(device)

    def refuse(self, load: WorkerOptions, error: LoadBroken) -> bool:
        """Note if llama.cpp lacks devices of a load, or crashes there with its model; return if so.

        CUDA stops at the first device that it has not.
        """
        n = error.n_devices
        digest = load.digest
        uuids = load.visible_devices.split(",")
        if not load.has_device or (n is None and not error.end.is_crash):
            return False
        if n is not None:
            digest = ""
            uuids = uuids[n : n + 1] or uuids
        why = error.end.line or error.end.how
        log.info("%s is laid out without %s: %s", load.path, load.device, why)
        self._refusals |= {(digest, uuid): (why, time.monotonic()) for uuid in uuids}
        return True

    def _corrected(self, device: Device, digest: str = "") -> Device:
        """Return the device with what workers have said of it; after a while it is tried again."""
        if not device.is_gpu or not self._refusals:
            return device
        whys = {
            uuid: why
            for (of, uuid), (why, since) in self._refusals.items()
            if of in ("", digest) and time.monotonic() - since < _REFUSED_S
        }
        gpus = [replace(gpu, refusal=whys.get(gpu.uuid, "")) for gpu in device.gpus]
        is_lost = whys and all(gpu.refusal for gpu in gpus)
        refusal = next(iter(whys.values())) if is_lost else ""
        return replace(device, gpus=tuple(gpus), refusal=refusal)

    async def layouts(self, request: LayoutRequest, device: Device) -> tuple[ModelLayout, ...]:
        """Return the ways to load a model, the good ones first.

        Raises:
            ModelBroken: its file cannot be read.
        """
        header = await self._header(request.facts)
        device = self._corrected(device, request.facts.digest)
        profile = None
        if device.is_gpu:
            profile = self._profiles.find(request.facts.digest, device.n_threads, device.name)
        draft = await self._draft_header(request.facts)
        return layouts(
            replace(request, extra_bytes=_extra_bytes(request), draft=draft),
            header,
            self._settings,
            device,
            lambda load: self._book.find(size_key(request.facts.digest, load, device.name)),
            profile,
        )

    async def wider(
        self, request: LayoutRequest, layout: ModelLayout, n_ctx_tokens: int
    ) -> tuple[ModelLayout, ...]:
        header, draft = await self._header(request.facts), await self._draft_header(request.facts)
        return wider(layout, n_ctx_tokens, header, draft)

    def learn(
        self, request: LayoutRequest, load: WorkerOptions, taken: WorkerMemory, load_s: float
    ) -> None:
        if taken.host_bytes or taken.device_bytes:
            key = size_key(request.facts.digest, load, self._device_name)
            self._book.note(key, taken, load_s)

    async def _draft_header(self, facts: ModelFacts) -> GgufHeader | None:
        own = replace(facts, path=facts.draft_path, parts=())
        return await self._header(own) if _is_file(own.path) else None

    async def _header(self, facts: ModelFacts) -> GgufHeader:
        parts = tuple(map(Path, facts.parts))
        return await asyncio.to_thread(self._files.header, Path(facts.path), parts)


def _extra_bytes(request: LayoutRequest) -> int:
    """Return what is loaded with the model; the worker reports missing files."""
    facts = request.facts
    paths = (*request.adapters, facts.projector or "", facts.draft_path)
    n_bytes = sum(Path(path).stat().st_size for path in paths if _is_file(path))
    return n_bytes + (IMAGE_BYTES if facts.projector else 0)


def _is_file(path: str) -> bool:
    return bool(path) and Path(path).is_file()
