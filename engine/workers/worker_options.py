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
    """Options of a worker process."""

    path: str
    role: Role
    n_ctx_tokens: int
    """Longest sequence."""
    n_cells: int
    """Cells of the context at its full length; fewer after llama.cpp could not make it."""
    n_parallel: int
    n_batch_tokens: int
    n_threads: int
    n_pass_tokens: int = 0
    """Most tokens of a batch that are computed in one pass; 0: all."""
    n_gpu_layers: int = -1
    n_cpu_experts: int = 0
    """Layers, from the first on, whose experts' weights stay in main memory."""
    main_gpu: int = 0
    """Among the devices that the worker may see."""
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()
    """Each visible device's share; empty: by free memory."""
    visible_devices: str = ""
    """The worker's CUDA_VISIBLE_DEVICES; empty: unchanged."""
    adapters: tuple[str, ...] = ()
    """Paths of LoRA adapters, in order."""
    placed: str = ""
    """For people: where the layers are and, if some are not on the device, why."""
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    cache_layout: CacheLayout = "auto"
    n_host_cache_tokens: int = 0
    is_gpu: bool = False
    projector: str = ""
    """File of the multimodal projector for images; empty: none."""
    draft_path: str = ""
    """File of the draft model; empty: none."""
    has_mtp: bool = False
    """Whether the model has a layer that guesses tokens ahead (multi-token prediction)."""
    step_s: float = 30.0
    """Longest planned duration of a step; the watchdog waits several times as long."""
    profile_s: float = 0.0
    """How long a model without a profile is measured before it is ready; 0: not at all."""
    profile: Mapping[str, Any] | None = None
    """Known profile (`Profile.as_json`)."""
    parts: tuple[str, ...] = ()
    """The files of a split model after the first one."""
    digest: str = ""
    """Digest of the model, for a new profile, like `device` and `build`."""
    device: str = ""
    build: str = ""
    fallback: int = 0
    """Fallback after a crash of llama.cpp (`workers.crashes`); 0: none."""
    fallback_note: str = ""
    """For people: the fallback, why, and how to get a sound build."""

    @property
    def n_devices(self) -> int:
        """Number of graphics devices that share the layers; at least 1."""
        visible = self.visible_devices.count(",") + 1
        return max(visible, sum(share > 0 for share in self.tensor_split))

    @property
    def uses_mtp(self) -> bool:
        """Whether that layer is loaded: not next to a draft model, nor after a crash."""
        return self.has_mtp and not self.draft_path and not self.fallback

    @property
    def uses_extra_buffers(self) -> bool:
        """Whether weights may be packed for the processor (AMX, KleidiAI, repacking)."""
        return not self.fallback


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Memory of a worker with its context at its full length; 0: unknown."""

    host_bytes: int = 0
    device_bytes: int = 0
    """Sum over all graphics devices."""
    host_growth_bytes: int = 0
    """Part for cells that the context does not have yet: it grows with the requests."""
    device_growth_bytes: int = 0
