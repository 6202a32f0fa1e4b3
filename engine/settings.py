"""How a pool is set up: plain values, read elsewhere (`paddock.runner.settings`), passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CacheType = Literal["f16", "q8_0"]
Switch = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool on one machine. `None` means: decided from the machine or the model."""

    models_dir: Path = field(default_factory=lambda: Path.home() / ".paddock" / "models")
    """A store in Ollama's layout."""
    cache_dir: Path = field(default_factory=lambda: Path.home() / ".paddock" / "cache")
    """Digests of model files, so that they are read once."""
    keep_alive_s: float = 300.0
    """Negative: for ever; 0: gone as soon as idle."""
    num_parallel: int | None = None
    """Sequences that one model decodes at once."""
    max_loaded_models: int = 3
    max_queue: int = 512
    """Requests that one model holds back; callers in the process wait beyond it."""
    n_ctx_tokens: int | None = None
    """Context of one request where nobody says; None: the smaller of 4,096 and the model's own."""
    n_batch_tokens: int = 512
    """Tokens of one decode at most, prompts and answers together."""
    n_threads: int | None = None
    n_gpu_layers: int = -1
    """-1: all layers on the device, where there is one."""
    main_gpu: int = 0
    flash_attention: Switch = "auto"
    kv_cache_type: CacheType = "f16"
    load_timeout_s: float = 300.0
    step_timeout_s: float = 120.0
    """A worker that has work and makes no step within it is killed and started again."""
