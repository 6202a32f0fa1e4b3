"""How a model can be laid out here: sequences, cells, devices, and what that takes. Pure.

What is known beforehand is arithmetic on the file's header; what was measured at an earlier load
goes before it (`sizes`). A layout on a graphics device has all layers there, unless the settings
say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from paddock.engine.gguf import Header
from paddock.engine.profile.choice import n_reserved
from paddock.engine.request import ModelFacts
from paddock.engine.settings import CacheType, PoolSettings
from paddock.engine.workers.load import Load, Taken

from .devices import Device
from .placement import Placement, placements
from .room import Room
from .sizes import Measured

# On 2 cores with SmolLM2-135M and documents of 700 tokens, 1, 2, 4 and 8 at once made 16 to 19 a
# minute, within the noise: what a common pass over the weights saves goes into attention over the
# unified cache. Some at once keep a long document from holding up short ones.
N_PARALLEL_CPU = 8
N_PARALLEL_GPU = 16
N_PARALLEL_EMBED = 32

# Beyond it, more cells only hold more idle prefixes; admission by cells copes with fewer.
MAX_CELLS_BY_DEFAULT = 32_768

_BYTES_PER_VALUE: dict[CacheType, float] = {"f16": 2.0, "q8_0": 34 / 32}
_COMPUTE_BYTES = 256 * 1024 * 1024  # scratch buffers of a context with 512-token batches
_PROCESS_BYTES = 512 * 1024 * 1024  # main memory of a worker whose weights are on a device
_READ_BYTES_PER_S = 1e9  # how fast a file is taken to load before that was measured

Known = Callable[[Load], Measured | None]
"""Tells what a load took earlier."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to load a model."""

    load: Load
    room: Room
    load_s: float
    is_good: bool = True
    """Worth waiting for: it computes at least half of the wanted sequences at once, all on the
    device."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks of a model's layout."""

    facts: ModelFacts
    n_ctx_tokens: int
    adapters: tuple[str, ...] = ()
    n_parallel_at_most: int | None = None
    """After it ran out of memory."""
    extra_bytes: int = 0
    """Of the files that are loaded with it: adapters, a projector, a draft model."""


def cell_bytes(header: Header, kind: CacheType) -> float:
    """Tell what one token takes in the KV cache, over all layers."""
    n_heads = header.number("attention.head_count")
    n_heads_kv = header.number("attention.head_count_kv", n_heads)
    head_size = header.number("embedding_length") // max(1, n_heads)
    key = header.number("attention.key_length", head_size)
    value = header.number("attention.value_length", head_size)
    n_values = header.number("block_count") * n_heads_kv * (key + value)
    return n_values * _BYTES_PER_VALUE[kind]


def n_cells(n_parallel: int, n_ctx_tokens: int, n_wished: int | None = None) -> int:
    """Return the cells for `n_parallel` jobs, within bounds or as wished, and for chats.

    The chats' seats come on top: with `n_wished` = n_parallel x n_ctx_tokens all jobs run at once.
    llama.cpp pads to 256.

    >>> n_cells(4, 2048), n_cells(16, 4096), n_cells(1, 100_000)
    (12288, 40960, 100096)
    """
    usual = min(n_parallel * n_ctx_tokens, MAX_CELLS_BY_DEFAULT)
    of_jobs = n_wished or usual
    wanted = max(n_ctx_tokens, of_jobs + of_jobs * n_reserved(n_parallel) // n_parallel)
    return -(-wanted // 256) * 256


def layouts(
    wanted: Wanted,
    header: Header,
    settings: PoolSettings,
    device: Device,
    known: Known = lambda load: None,
) -> tuple[Layout, ...]:
    """Give the ways to load a model, the best first; the good ones stand before the others."""
    most = _n_parallel(wanted, settings, device)
    ways: list[Layout] = []
    for n_parallel in _halved(most):
        load = _load(wanted, settings, device, n_parallel)
        n_shelf = settings.shelf_bytes / max(1.0, cell_bytes(header, load.kv_cache_type))
        load = replace(load, n_shelf_tokens=int(n_shelf) if load.role == "chat" else 0)
        is_good = n_parallel * 2 >= most
        ways += _placed(load, wanted, header, settings, device, is_good)
    # Few sequences on the device are faster than many of which the processor computes a part.
    ways.sort(key=lambda way: (not way.is_good, way.load.n_gpu_layers != settings.n_gpu_layers))
    return tuple(_corrected(way, known(way.load)) for way in ways)


def wider(layout: Layout, n_ctx_tokens: int, header: Header) -> tuple[Layout, ...]:
    """Give the ways in which a loaded model can take longer sequences, the roomiest first."""
    load = layout.load
    per_cell = cell_bytes(header, load.kv_cache_type)
    ways = []
    for n_parallel in _halved(load.n_parallel):
        cells = max(load.n_cells, n_cells(n_parallel, n_ctx_tokens))
        more_bytes = int((cells - load.n_cells) * per_cell)
        grown = replace(load, n_ctx_tokens=n_ctx_tokens, n_cells=cells)
        ways.append(replace(layout, load=grown, room=layout.room + _like(layout.room, more_bytes)))
    return tuple(ways)


def _n_parallel(wanted: Wanted, settings: PoolSettings, device: Device) -> int:
    if wanted.facts.role == "embed":
        return N_PARALLEL_EMBED
    usual = N_PARALLEL_GPU if device.is_gpu else N_PARALLEL_CPU
    return min(settings.num_parallel or usual, wanted.n_parallel_at_most or 1 << 30)


def _halved(most: int) -> list[int]:
    """Give `most`, its half, and so on down to 1.

    >>> _halved(6)
    [6, 3, 1]
    """
    return [most >> shift for shift in range(most.bit_length())]


def _load(wanted: Wanted, settings: PoolSettings, device: Device, n_parallel: int) -> Load:
    load = Load(
        path=wanted.facts.path,
        role=wanted.facts.role,
        n_ctx_tokens=wanted.n_ctx_tokens,
        n_cells=n_cells(n_parallel, wanted.n_ctx_tokens, settings.n_cells),
        n_parallel=n_parallel,
        n_batch_tokens=settings.n_batch_tokens,
        n_threads=settings.n_threads or device.n_threads,
        n_gpu_layers=settings.n_gpu_layers,
        flash_attention=settings.flash_attention,
        kv_cache_type=settings.kv_cache_type,
        adapters=wanted.adapters,
        cache_layout=settings.cache_layout,
        is_gpu=device.is_gpu,
        projector=wanted.facts.projector or "",
        draft_path=wanted.facts.draft_path,
        digest=wanted.facts.digest,
        device=device.name,
    )
    if wanted.facts.role == "chat":
        return load
    # Whole texts only: a batch must hold the longest one.
    n_tokens = min(wanted.facts.n_ctx_train_tokens, 8192)
    return replace(
        load,
        n_ctx_tokens=n_tokens,
        n_cells=n_tokens,
        n_batch_tokens=n_tokens,
        kv_cache_type="f16",
    )


def _placed(
    load: Load,
    wanted: Wanted,
    header: Header,
    settings: PoolSettings,
    device: Device,
    is_good: bool,
) -> list[Layout]:
    """Give the layouts of one load: on each device that may hold it, or on the processor."""
    size = wanted.facts.size_bytes + wanted.extra_bytes
    cache = 0.0 if load.role == "embed" else load.n_cells * cell_bytes(header, load.kv_cache_type)
    needed = int(size + cache + _COMPUTE_BYTES)
    load_s = size / _READ_BYTES_PER_S
    n_layers = header.number("block_count") + 1  # and the output
    n_there = n_layers if load.n_gpu_layers < 0 else min(load.n_gpu_layers, n_layers)
    if not device.is_gpu or not n_there:
        why = "num_gpu is 0" if device.is_gpu else device.why_no_gpu
        placed = f"all {n_layers} layers on the processor" + (f"; {why}" if why else "")
        at_home = replace(load, placed=placed)
        return [Layout(at_home, Room(needed), load_s, is_good)]
    if not device.gpus:  # it shares main memory
        placed = _where(n_there, n_layers, "")
        placed += f"; {device.why_no_gpu}" if device.why_no_gpu else ""
        return [Layout(replace(load, placed=placed), Room(needed), load_s)]
    found = _on_devices(load, needed, n_there, n_layers, device, settings)
    found = [replace(layout, load_s=load_s, is_good=is_good) for layout in found]
    if settings.allow_cpu and load.n_gpu_layers < 0:
        found += _spilled(load, needed, n_layers, device, settings, load_s)
    return found


def _on_devices(
    load: Load, needed: int, n_there: int, n_layers: int, device: Device, settings: PoolSettings
) -> list[Layout]:
    """Give the layouts with so many layers on graphics devices."""
    there, here = _divided(needed, n_there, n_layers)
    ways = placements(
        there,
        device.gpus,
        main_gpu=settings.main_gpu,
        split_mode=settings.split_mode,
        overhead_bytes=settings.gpu_overhead_bytes,
    )
    why = f"; num_gpu is {load.n_gpu_layers}" if n_there < n_layers else ""
    found = []
    for way in ways:
        names = ", ".join(device.gpus[i].name for i in way.gpus)
        put = replace(_put(load, way, device), placed=_where(n_there, n_layers, names) + why)
        room = way.room(there, device.gpus) + Room(here + _PROCESS_BYTES)
        found.append(Layout(put, room, 0.0))
    return found


def _spilled(
    load: Load, needed: int, n_layers: int, device: Device, settings: PoolSettings, load_s: float
) -> list[Layout]:
    """Give the layout with as many layers on the device as it has free memory for now."""
    way = placements(0, device.gpus, main_gpu=settings.main_gpu)[0]
    gpu = device.gpus[way.gpus[0]]
    taken_bytes = gpu.context_bytes + settings.gpu_overhead_bytes
    room_bytes = max(0, gpu.free_bytes - taken_bytes)
    n_there = min(n_layers - 1, int(room_bytes / (needed / n_layers)))
    if n_there < 1:
        placed = f"all {n_layers} layers on the processor; {gpu.name} has no room (allow_cpu)"
        at_home = replace(load, n_gpu_layers=0, placed=placed)
        return [Layout(at_home, Room(needed), load_s, is_good=False)]
    there, here = _divided(needed, n_there, n_layers)
    placed = _where(n_there, n_layers, gpu.name) + "; it has no room for more (allow_cpu)"
    put = replace(_put(load, way, device), n_gpu_layers=n_there, placed=placed)
    room = way.room(there, device.gpus) + Room(here + _PROCESS_BYTES)
    return [Layout(put, room, load_s, is_good=False)]


def _divided(needed: int, n_there: int, n_layers: int) -> tuple[int, int]:
    """Give the bytes on the device and those in main memory."""
    there = needed * n_there // n_layers
    return there, needed - there


def _put(load: Load, way: Placement, device: Device) -> Load:
    """Write a placement into a load: by UUIDs, since CUDA may count devices in another order."""
    uuids = [device.gpus[i].uuid for i in way.gpus]
    if all(uuids):  # the worker sees its own devices only, and so takes no memory on the others
        alone = len(uuids) == 1
        split = () if alone else way.shares
        return replace(
            load,
            visible_devices=",".join(uuids),
            split_mode="layer" if alone else way.split_mode,
            tensor_split=split,
        )
    if len(device.gpus) < 2:
        return load
    shares = [0.0] * len(device.gpus)
    for gpu, share in zip(way.gpus, way.shares, strict=True):
        shares[gpu] = share
    return replace(
        load, main_gpu=way.gpus[0], split_mode=way.split_mode, tensor_split=tuple(shares)
    )


def _where(n_there: int, n_layers: int, names: str) -> str:
    return f"{n_there} of {n_layers} layers on {names or 'the graphics device'}"


def _corrected(layout: Layout, seen: Measured | None) -> Layout:
    """Let what was measured go before what was computed."""
    if seen is None:
        return layout
    room = as_placed(seen.taken, layout.room)
    return replace(layout, room=room, load_s=seen.load_s or layout.load_s)


def as_placed(taken: Taken, planned: Room) -> Room:
    """Spread what was measured over the devices as it was planned: only its sum is known."""
    gpus, on_devices = planned.gpus, sum(planned.gpus)
    if taken.device_bytes and on_devices:
        gpus = tuple(taken.device_bytes * one // on_devices for one in gpus)
    return Room(taken.host_bytes or planned.host, gpus)


def _like(room: Room, n_bytes: int) -> Room:
    """Spread bytes as a room is spread: on the devices where there are any, else in main memory."""
    on_devices = sum(room.gpus)
    if not on_devices:
        return Room(n_bytes)
    return Room(0, tuple(n_bytes * one // on_devices for one in room.gpus))
