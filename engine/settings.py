"""How a pool is set up: plain values, read elsewhere (`paddock.runner.settings`), passed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CacheType = Literal["f16", "q8_0"]
Switch = Literal["auto", "on", "off"]
CacheLayout = Literal["auto", "unified", "split"]
SplitMode = Literal["none", "layer", "row"]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool on one machine. `None` means: decided from the machine or the model."""

    models_dir: Path = field(default_factory=lambda: Path.home() / ".paddock" / "models")
    """A store in Ollama's layout."""
    cache_dir: Path = field(default_factory=lambda: Path.home() / ".paddock" / "cache")
    """Digests of model files, so that they are read once, and the sizes that models really had."""
    keep_alive_s: float = 300.0
    """Negative: for ever; 0: gone as soon as idle."""
    num_parallel: int | None = None
    """Sequences that one model decodes at once."""
    max_loaded_models: int | None = None
    """None: 3 for each graphics device, 3 without one."""
    max_queue: int = 512
    """Requests that wait for one model; beyond it callers here wait, others get `Busy`."""
    max_wait_s: float = 5.0
    """How long a model that has work holds up another one that needs its room."""
    lease_s: float = 3600.0
    """After it a run's lease of its models is no longer heeded."""
    wait_timeout_s: float = 600.0
    """A request that waits outside is given up when nothing at all moves for so long."""
    n_ctx_tokens: int | None = None
    """Context of one request where nobody says; None: the smaller of 4,096 and the model's own."""
    n_batch_tokens: int = 512
    """Tokens of one decode at most, prompts and answers together."""
    n_threads: int | None = None
    n_gpu_layers: int = -1
    """-1: all layers on the device, where there is one."""
    allow_cpu: bool = False
    """Whether layers that the device has no room for may be computed by the processor."""
    main_gpu: int | None = None
    """None: the device with the most free memory."""
    split_mode: SplitMode | None = None
    """How a model is spread over several devices; None: by layers, and only if it must be."""
    gpu_overhead_bytes: int = 0
    """Left free on each graphics device."""
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    cache_layout: CacheLayout = "auto"
    """`auto`: by what the profile says of the job at hand."""
    n_cells: int | None = None
    """Tokens that one model's KV cache holds, over all sequences; None: decided."""
    draft_models: Mapping[str, str] = field(default_factory=dict)
    """For a model's name, a smaller one of the same vocabulary that guesses ahead for it."""
    shelf_bytes: int = 256 * 1024 * 1024
    """Main memory of one model for finished conversations that may be continued."""
    profile_s: float = 4.0
    """How long a model is measured when a device first loads it; 0: not at all."""
    load_timeout_s: float = 300.0
    step_timeout_s: float = 120.0
    """A worker that has work and makes no step within it is killed and started again."""
