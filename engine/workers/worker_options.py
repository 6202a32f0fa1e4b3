"""Options that a worker process is started with, and the memory that it takes.

Imports no llama_cpp, so that a pool need not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Role
from paddock.engine.settings import CacheLayout, CacheType, SplitMode, Switch


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is started with."""

    path: str
    role: Role
    n_ctx_tokens: int
    """The longest sequence."""
    n_cells: int
    """Of the context at its full length; fewer than planned once llama.cpp could not make it."""
    n_parallel: int
    n_batch_tokens: int
    n_threads: int
    n_pass_tokens: int = 0
    """Of a batch, what is computed in one pass at most; 0: all of it."""
    n_gpu_layers: int = -1
    n_cpu_experts: int = 0
    """Layers, from the first on, whose experts' weights stay in main memory."""
    main_gpu: int = 0
    """Among the devices that the worker may see."""
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()
    """Each visible device's share; empty: by their free memory."""
    visible_devices: str = ""
    """What the worker's CUDA_VISIBLE_DEVICES is set to; empty: it is left alone."""
    adapters: tuple[str, ...] = ()
    """Paths of LoRA adapters, laid over the weights in this order."""
    placed: str = ""
    """Where the layers lie and, where some are not on the device, why; for people."""
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    cache_layout: CacheLayout = "auto"
    n_shelf_tokens: int = 0
    is_gpu: bool = False
    projector: str = ""
    """The file by which the model sees images; empty: it does not."""
    draft_path: str = ""
    """A smaller model that guesses ahead; empty: none."""
    step_s: float = 30.0
    """How long a step should take at most; after several times as long it is taken for hung."""
    profile_s: float = 0.0
    """How long a model without a profile is measured before it is ready; 0: not at all."""
    profile: Mapping[str, Any] | None = None
    """What was measured earlier (`profile.Profile.as_json`)."""
    parts: tuple[str, ...] = ()
    """Of a split model: the files after the first one."""
    digest: str = ""
    """With `device` and `build`: what a new profile is of."""
    device: str = ""
    build: str = ""
    fallback: int = 0
    """What it goes without since llama.cpp crashed (`workers.fallback`); 0: nothing."""
    fallback_note: str = ""
    """The same for people: what, why, and how to get a sound build."""

    @property
    def n_devices(self) -> int:
        """Graphics devices that the layers are spread over; at least 1."""
        visible = self.visible_devices.count(",") + 1
        return max(visible, sum(share > 0 for share in self.tensor_split))

    @property
    def uses_extra_buffers(self) -> bool:
        """Whether weights may be packed for the processor (AMX, KleidiAI, repacking)."""
        return not self.fallback


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """What a worker takes with its context at its full length; 0 where it is not known."""

    host_bytes: int = 0
    device_bytes: int = 0
    """Of all graphics devices together."""
    host_growth_bytes: int = 0
    """Of these, cells that its context does not have yet: it grows with the requests."""
    device_growth_bytes: int = 0
