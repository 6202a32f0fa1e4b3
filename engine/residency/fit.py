"""How a model is laid out on this machine: sequences, cells, threads, and whether it fits.

What is known beforehand is arithmetic on the file's header; what a device makes of it will be
measured (the profile).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from paddock.engine.errors import ModelTooLarge
from paddock.engine.gguf import Header
from paddock.engine.hardware import read_cpu, read_memory
from paddock.engine.request import ModelFacts
from paddock.engine.settings import CacheType, PoolSettings
from paddock.engine.workers.load import Load

# On 2 cores with SmolLM2-135M and documents of 700 tokens, 1, 2, 4 and 8 at once made 16 to 19 a
# minute, within the noise: what a common pass over the weights saves goes into attention over the
# unified cache. Some at once keep a long document from holding up short ones.
N_PARALLEL_CPU = 4
N_PARALLEL_GPU = 16
N_PARALLEL_EMBED = 32

# Beyond it, more cells only hold more idle prefixes; admission by cells copes with fewer.
MAX_CELLS_BY_DEFAULT = 32_768

# A build of llama.cpp for a graphics device brings one of these beside libggml.
_GPU_BACKENDS = ("cuda", "hip", "metal", "vulkan", "sycl", "musa", "cann")

_BYTES_PER_VALUE: dict[CacheType, float] = {"f16": 2.0, "q8_0": 34 / 32}
_COMPUTE_BYTES = 256 * 1024 * 1024  # scratch buffers of a context with 512-token batches


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model will run, as far as the layout depends on it."""

    n_threads: int
    free_bytes: int
    is_gpu: bool


def this_device() -> Device:
    """Read this machine: its usable cores, its free memory, and what llama.cpp was built for."""
    cpu = read_cpu()
    n_threads = max(1, min(cpu.n_cores, cpu.n_usable))
    return Device(n_threads, read_memory().free_bytes, is_gpu=_is_gpu_build())


def _is_gpu_build() -> bool:
    """Look beside the installed package, which is slow to import."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = (
        [Path(place) / "lib" for place in (spec.submodule_search_locations or ())] if spec else []
    )
    return any(
        backend in file.name
        for folder in folders
        for file in folder.glob("*ggml-*")
        for backend in _GPU_BACKENDS
    )


def cell_bytes(header: Header, kind: CacheType) -> float:
    """Tell what one token takes in the KV cache, over all layers."""
    n_heads = header.number("attention.head_count")
    n_heads_kv = header.number("attention.head_count_kv", n_heads)
    head_size = header.number("embedding_length") // max(1, n_heads)
    key = header.number("attention.key_length", head_size)
    value = header.number("attention.value_length", head_size)
    n_values = header.number("block_count") * n_heads_kv * (key + value)
    return n_values * _BYTES_PER_VALUE[kind]


def lay_out(
    facts: ModelFacts, header: Header, settings: PoolSettings, device: Device, n_ctx_tokens: int
) -> Load:
    """Decide how a worker loads this model for requests of at most `n_ctx_tokens`.

    Raises:
        ModelTooLarge: not even one sequence fits, with both numbers.
    """
    if facts.role == "embed":
        return _embedding_load(facts, settings, device)
    per_cell = cell_bytes(header, settings.kv_cache_type)
    fixed = facts.size_bytes + _COMPUTE_BYTES
    wanted = settings.num_parallel or (N_PARALLEL_GPU if device.is_gpu else N_PARALLEL_CPU)
    for n_parallel in range(wanted, 0, -1):
        n_cells = _n_cells(n_parallel, n_ctx_tokens)
        needed = int(fixed + n_cells * per_cell)
        if device.is_gpu or needed <= device.free_bytes:
            return _load(facts, settings, device, n_ctx_tokens, n_cells, n_parallel)
    raise ModelTooLarge(facts.name, needed, device.free_bytes)


def _n_cells(n_parallel: int, n_ctx_tokens: int) -> int:
    """Room for every sequence, within bounds; llama.cpp pads to 256."""
    n_cells = max(n_ctx_tokens, min(n_parallel * n_ctx_tokens, MAX_CELLS_BY_DEFAULT))
    return -(-n_cells // 256) * 256


def _load(
    facts: ModelFacts,
    settings: PoolSettings,
    device: Device,
    n_ctx_tokens: int,
    n_cells: int,
    n_parallel: int,
) -> Load:
    return Load(
        path=facts.path,
        role=facts.role,
        n_ctx_tokens=n_ctx_tokens,
        n_cells=n_cells,
        n_parallel=n_parallel,
        n_batch_tokens=settings.n_batch_tokens,
        n_threads=settings.n_threads or device.n_threads,
        n_gpu_layers=settings.n_gpu_layers,
        main_gpu=settings.main_gpu,
        flash_attention=settings.flash_attention,
        kv_cache_type=settings.kv_cache_type,
    )


def _embedding_load(facts: ModelFacts, settings: PoolSettings, device: Device) -> Load:
    """Whole texts only: a batch must hold the longest one."""
    needed = facts.size_bytes + _COMPUTE_BYTES
    if not device.is_gpu and needed > device.free_bytes:
        raise ModelTooLarge(facts.name, needed, device.free_bytes)
    n_tokens = min(facts.n_ctx_train_tokens, 8192)
    load = _load(facts, settings, device, n_tokens, n_tokens, N_PARALLEL_EMBED)
    return replace(load, n_batch_tokens=n_tokens, kv_cache_type="f16")
