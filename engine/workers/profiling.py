"""The profile of a worker's model: the known one, or one measured before the worker is ready."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from paddock.engine.native.model import Model
from paddock.engine.profile.bench import Shape
from paddock.engine.profile.measure import Unmeasured, measure
from paddock.engine.profile.profile import Profile, ProfileUnreadable, read

from .frames import Head
from .load import Load

# Texts of an embedding model are measured in batches of at most so many tokens.
_EMBED_TOKENS = 512
# However few sequences the first load wants, later ones may want sixteen.
_CHAT_CELLS = 16 * 192
# Enough for sixteen sequences of 512 tokens; more would only be memory that is touched for nothing.
# On a graphics device, for 128 of 1,024.
_MOST_CELLS, _MOST_GPU_CELLS = 16 * 576, 128 * 1280


@dataclass(frozen=True, slots=True)
class Profiled:
    """What is known of the model's speed, and whether that is news."""

    profile: Profile | None = None
    is_new: bool = False
    note: str = ""
    """Why there is none."""
    took_s: float = 0.0

    def as_head(self) -> Head:
        """Give what a `ready` frame tells of it."""
        new = self.profile.as_json() if self.profile is not None and self.is_new else None
        return {"profile": new, "profile_note": self.note, "profiling_s": self.took_s}


def profiled(load: Load, model: Model) -> Profiled:
    """Give the load's profile; without one the model is measured, if that is wanted."""
    if load.profile is not None:
        try:
            return Profiled(read(load.profile))
        except ProfileUnreadable:
            pass  # of another version: it is measured anew
    if load.profile_s <= 0:
        return Profiled()
    # This process was started for the model, so its age is what loading took.
    load_s = time.time() - psutil.Process().create_time()
    began = time.perf_counter()
    try:
        profile = _measured(load, model, load_s)
    except Unmeasured as error:
        return Profiled(note=str(error), took_s=time.perf_counter() - began)
    return Profiled(profile, is_new=True, took_s=time.perf_counter() - began)


def _measured(load: Load, model: Model, load_s: float) -> Profile:
    path = Path(load.path)
    measured = measure(model, path, _shape(load), load.profile_s)
    return Profile(
        digest=load.digest,
        device=load.device,
        build=load.build,
        measured_at=time.time(),
        n_threads=load.n_threads,
        load_s=round(load_s, 3),
        weight_bytes=path.stat().st_size,
        cell_bytes=measured.cell_bytes,
        prefill=tuple(measured.prefill),
        decode=tuple(measured.decode),
        copy_s=measured.copy_s,
        formats=tuple(measured.formats),
        weights=measured.weights,
        agreements=tuple(measured.agreements),
    )


def _shape(load: Load) -> Shape:
    embeds = load.role != "chat"
    most = min(_EMBED_TOKENS, load.n_batch_tokens) if embeds else load.n_batch_tokens
    most_cells = _MOST_GPU_CELLS if load.is_gpu else _MOST_CELLS
    return Shape(
        n_cells=most if embeds else max(_CHAT_CELLS, min(load.n_cells, most_cells)),
        n_batch_tokens=most,
        n_threads=load.n_threads,
        flash_attention=load.flash_attention,
        kv_cache_type=load.kv_cache_type,
        embeds=embeds,
        is_gpu=load.is_gpu,
        uses_extra_buffers=load.uses_extra_buffers,
    )
