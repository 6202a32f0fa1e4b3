"""What the actor asks about the machine and its models; the real answers and how they are kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from paddock.engine.gguf import Header, joined, read_header
from paddock.engine.profile.store import Profiles
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.load import Load, Taken

from .devices import Device, this_device
from .fit import Layout, Wanted, layouts, wider
from .sizes import SizeBook, size_key


class Surveyor(Protocol):
    """Knows the machine."""

    async def look(self) -> Device:
        """Tell what is free now."""
        ...

    async def layouts(self, wanted: Wanted, device: Device) -> tuple[Layout, ...]:
        """Give the ways to load a model, the good ones first.

        Raises:
            ModelBroken: its file cannot be read.
        """
        ...

    async def wider(self, wanted: Wanted, layout: Layout, n_ctx_tokens: int) -> tuple[Layout, ...]:
        """Give the ways in which a loaded model can take longer sequences."""
        ...

    def learn(self, wanted: Wanted, load: Load, taken: Taken, load_s: float) -> None:
        """Keep what a load really took."""
        ...


class Survey:
    """The real one. Headers are read once, beside the event loop: vocabularies are long."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._book = SizeBook(settings.cache_dir / "sizes.json")
        self._profiles = Profiles(settings)
        self._headers: dict[str, Header] = {}
        self._device_name = ""

    async def look(self) -> Device:
        """Tell what is free now."""
        device = await asyncio.to_thread(this_device)
        self._device_name = device.name
        return device

    async def layouts(self, wanted: Wanted, device: Device) -> tuple[Layout, ...]:
        """Give the ways to load a model."""
        header = await self._header(wanted.facts)
        profile = None
        if device.is_gpu:
            profile = self._profiles.find(wanted.facts.digest, device.n_threads, device.name)
        return layouts(
            replace(wanted, extra_bytes=_extra_bytes(wanted)),
            header,
            self._settings,
            device,
            lambda load: self._book.find(size_key(wanted.facts.digest, load, device.name)),
            profile,
        )

    async def wider(self, wanted: Wanted, layout: Layout, n_ctx_tokens: int) -> tuple[Layout, ...]:
        """Give the ways in which a loaded model can take longer sequences."""
        return wider(layout, n_ctx_tokens, await self._header(wanted.facts))

    def learn(self, wanted: Wanted, load: Load, taken: Taken, load_s: float) -> None:
        """Keep what a load really took."""
        if taken.host_bytes or taken.device_bytes:
            key = size_key(wanted.facts.digest, load, self._device_name)
            self._book.note(key, taken, load_s)

    async def _header(self, facts: ModelFacts) -> Header:
        known = self._headers.get(facts.path)
        if known is None:
            paths = [Path(path) for path in (facts.path, *facts.parts)]
            known = joined([await asyncio.to_thread(read_header, path) for path in paths])
            self._headers[facts.path] = known
        return known


def _extra_bytes(wanted: Wanted) -> int:
    """Give the sizes of what is loaded beside the model; a missing file is told by the worker."""
    facts = wanted.facts
    paths = (*wanted.adapters, facts.projector or "", facts.draft_path)
    return sum(Path(path).stat().st_size for path in paths if path and Path(path).is_file())
