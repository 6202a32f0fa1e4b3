"""Settings of a pool and of the HTTP service: plain values, read in `paddock.runner.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.records import Struct, field

CacheType = Literal["f16", "q8_0", "q4_0"]
Switch = Literal["auto", "on", "off"]
CacheLayout = Literal["auto", "unified", "split"]
SplitMode = Literal["none", "layer", "row", "tensor"]


class PoolSettings(Struct, frozen=True):
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
    wait_timeout_s: float = 600.0
    """A request that waits outside is given up when nothing at all moves for so long."""
    n_ctx_tokens: int | None = None
    """Default context of a request; None: the smaller of 4,096 and the model's own."""
    n_batch_tokens: int | None = None
    """Tokens of one decode at most, prompts and answers together; None: 512 on a processor, 2,048
    on a graphics device."""
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
    shelf_bytes: int | None = None
    """Main memory of one model for finished conversations that may be continued; None: decided."""
    profile_s: float = 12.0
    """How long a model is measured in its first idle minute; 0: not at all."""
    is_exact: bool = False
    """Whether models are computed in their own form: tuned copies are neither made nor used."""
    load_timeout_s: float = 300.0
    step_timeout_s: float = 120.0
    """A worker that has work and makes no step within it is killed and started again."""


class ServiceSettings(Struct, frozen=True):
    """What stands in front of one pool: where it listens, who may ask, and how much."""

    host: str = "127.0.0.1"
    """A name or an address without brackets; `0.0.0.0` and `::` are every interface."""
    port: int = 11434
    origins: tuple[str, ...] = ()
    """Of browsers' pages, beyond those on this machine; `*` within one stands for anything."""
    api_keys_file: Path | None = None
    """One key in each line; None: no key is asked for."""
    is_insecure: bool = False
    """Whether more than this machine may ask without a key."""
    rate_per_minute: int | None = None
    """Requests of one key, or of one address where there are no keys; None: as many as come."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Of a request, models' files (blobs) aside."""
    header_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    """A connection that says nothing, or a body that stands still, for so long is closed."""
    stop_timeout_s: float = 30.0
    """After a signal to end, how long the answers under way may go on."""
    state_dir: Path = field(default_factory=lambda: Path.home() / ".paddock" / "service")
    """Uploaded files and batches."""
    trusted_hosts: tuple[str, ...] = ()
    """Where models may be brought from; empty: from anywhere, and it is said from where."""
    access_log: bool = True
    is_log_json: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return is_loopback(self.host)

    @property
    def netloc(self) -> str:
        """Host and port as an URL has them.

        >>> ServiceSettings(host="::1").netloc
        '[::1]:11434'
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
