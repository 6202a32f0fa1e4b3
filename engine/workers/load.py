"""What a worker process is started with. Apart, so that a pool need not import llama_cpp."""

from __future__ import annotations

from dataclasses import dataclass

from paddock.engine.request import Role
from paddock.engine.settings import CacheType, Switch


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker is started with."""

    path: str
    role: Role
    n_ctx_tokens: int
    """The longest sequence."""
    n_cells: int
    n_parallel: int
    n_batch_tokens: int
    n_threads: int
    n_gpu_layers: int = -1
    main_gpu: int = 0
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
