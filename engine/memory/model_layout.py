"""Layouts of a model on this machine: sequences, KV cells, devices, and the memory that each takes.

`layouts` is pure: arithmetic on the file's header, overridden by sizes measured at an earlier
load (`measured_sizes`). On a graphics device all layers lie there, unless the settings say
otherwise. `machine_probe` reads the real machine and the real files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from paddock.engine.decoding.context_limits import MOST_MTP_SEQUENCES, ContextLimits, padded_cells
from paddock.engine.gguf import GgufHeader
from paddock.engine.profile.context_layout import (
    CPU_BATCH,
    GPU_BATCH,
    GPU_PASSES,
    gpu_parallel,
    n_chat_slots,
)
from paddock.engine.profile.profile import Profile
from paddock.engine.request import ModelFacts
from paddock.engine.settings import CacheType, PoolSettings
from paddock.engine.system.records import Struct, replace
from paddock.engine.workers.worker_protocol import WorkerMemory, WorkerOptions

from .device_memory import Device, MemoryAmount, Placement, gpu_groups, placements
from .measured_sizes import MeasuredSize

_BYTES_PER_VALUE: dict[CacheType, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_FLOAT_BYTES = 4
# Vectors of the embedding's length that live at once. SmolLM2-135M, batches of 512, without flash
# attention: 166.4 MiB reserved, 166.7 computed here.
_HIDDEN_VECTORS = 6
_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(up|down|gate|gate_up)_(ch|)exps")


def cell_bytes(header: GgufHeader, kind: CacheType) -> float:
    n_heads = header.number("attention.head_count")
    n_heads_kv = header.number("attention.head_count_kv", n_heads)
    head_size = header.number("embedding_length") // max(1, n_heads)
    key = header.number("attention.key_length", head_size)
    value = header.number("attention.value_length", head_size)
    n_values = header.number("block_count") * n_heads_kv * (key + value)
    return n_values * _BYTES_PER_VALUE[kind]


def compute_bytes(header: GgufHeader, load: WorkerOptions) -> int:
    """Return the size of a context's compute buffer; each device that holds layers has its own.

    The largest of what lives at one time counts: the logits of the wanted rows, or a layer's
    attention mask, scores and feed-forward values for a whole batch.
    """
    n_tokens = _n_pass(load)
    n_embd = header.number("embedding_length")
    n_chats = n_chat_slots(load.n_parallel)
    is_flash = not _n_scores(header, load)
    limits = ContextLimits(load.n_cells, load.n_parallel, n_reserved=n_chats, is_flash=is_flash)
    n_rows = limits.n_rows
    if load.role != "chat":  # llama.cpp computes logits of every token, where a model has any
        n_rows = 0 if header.is_encoder else n_tokens
    logits = n_rows * n_vocab(header) + 2 * n_tokens * n_embd
    # The feed-forward values of one token, over the experts that it goes through
    n_used = header.number("expert_used_count")
    each = header.number("expert_feed_forward_length", header.number("feed_forward_length"))
    n_feed_forward = max(header.number("feed_forward_length"), n_used * each)
    wide = max(2 * n_feed_forward, _n_scores(header, load))
    layer = _n_mask(load) + n_tokens * (wide + _HIDDEN_VECTORS * n_embd)
    n_values = max(logits, layer)
    if load.uses_mtp:  # a context of its own, and the hidden states that it reads
        rows = MOST_MTP_SEQUENCES * n_vocab(header) + load.n_batch_tokens * n_embd
        n_values += max(rows, layer) + load.n_batch_tokens * n_embd
    return _FLOAT_BYTES * n_values


def _n_mask(load: WorkerOptions) -> int:
    """Return the entries of the attention mask: in a split cache, those of a stream's cells."""
    unified = _n_pass(load) * load.n_cells
    if not load.is_gpu or load.cache_layout == "unified":
        return unified
    split = _n_pass(load) * min(load.n_cells, load.n_ctx_tokens)
    # A graphics device reads prompts in the smallest passes where its cache is unified.
    return max(split, min(_n_pass(load), GPU_PASSES[0]) * load.n_cells)


def _n_pass(load: WorkerOptions) -> int:
    if load.role != "chat":
        return load.n_cells
    return min(load.n_pass_tokens or load.n_batch_tokens, load.n_batch_tokens)


def n_vocab(header: GgufHeader) -> int:
    listed = header.array_lengths.get("tokenizer.ggml.tokens", 0)
    return max(listed, header.number("vocab_size"))


def expert_bytes(header: GgufHeader) -> tuple[int, ...]:
    """Return the size of the experts' weights of each layer; empty for a dense model."""
    by_layer = [0] * header.number("block_count")
    for tensor in header.tensors:
        found = _EXPERTS.match(tensor.name)
        if found and int(found[1]) < len(by_layer):
            by_layer[int(found[1])] += tensor.n_bytes
    return tuple(by_layer) if any(by_layer) else ()


def _n_scores(header: GgufHeader, load: WorkerOptions) -> int:
    """Return the attention scores of one token, which flash attention does without."""
    if load.flash_attention != "off":
        return 0
    is_split = load.cache_layout == "split"  # where a stream is one request
    n_seen = min(load.n_cells, load.n_ctx_tokens) if is_split else load.n_cells
    return n_seen * header.number("attention.head_count")


# On 2 cores with SmolLM2-135M and documents of 700 tokens, 1, 2, 4 and 8 at once made 16 to 19 a
# minute, within the noise: what a common pass over the weights saves goes into attention over the
# unified cache. Some at once keep a long document from holding up short ones.
N_PARALLEL_CPU = 8
# OpenVINO's attention runs over a sequence's own cells, so that more at once cost less each: steps
# of 8, 16 and 32 sequences of 640 tokens took 51, 76 and 94 ms (2 cores with AMX, SmolLM2-135M).
N_PARALLEL_IR = 32
N_PARALLEL_SHARED = 16  # of a graphics device that uses main memory
N_PARALLEL_EMBED = 32
MOST_PARALLEL = 252  # llama.cpp has 256 sequence ids (LLAMA_MAX_SEQ); chats take up to four

# In main memory, more cells only hold more idle prefixes; admission by cells copes with fewer.
MAX_CELLS_BY_DEFAULT = 32_768
# Cells for each place at least, where memory is short: admission goes by cells, so many places
# for short requests cost nothing.
LEAST_CELLS_EACH = 512
# Tokens for which an embedder's context is made first; it grows with the longest text.
_LEAST_EMBED_TOKENS = 512
# A layout with cells for so many whole requests is worth waiting for.
_GOOD_REQUESTS = 8
# Of a device, what cells leave to other programs and to what cannot be computed beforehand.
_LEFT_FREE = 0.1

_LARGE_CARD_BYTES = 20e9
_PROCESS_BYTES = 512 * 1024 * 1024  # main memory of a worker whose weights are on a device
_RUNTIME_BYTES = 128 * 1024 * 1024  # Python, NumPy and llama.cpp, where the weights are not
STEPS_WAITED = 4  # a worker is taken for hung after so many times what a step should take
# Of main memory, what finished conversations of one model may take: 3,000 tokens of 8 billion
# weights are 400 MB, and computing them again takes 100 s on a processor.
_SHELF_SHARE, _MOST_SHELF_BYTES = 0.1, 8 * 1024**3
_READ_BYTES_PER_S = 1e9  # how fast a file is taken to load before that was measured

FindMeasured = Callable[[WorkerOptions], MeasuredSize | None]


class ModelLayout(Struct, frozen=True):
    load: WorkerOptions
    room: MemoryAmount
    load_s: float
    is_good: bool = True
    """Worth waiting for: it computes at least half of the wanted sequences at once, all on the
    device."""
    is_spilled: bool = False
    """Whether the processor computes a part for want of memory on the device."""
    host_layer_bytes: int = 0
    """Weights and cells of the layers that the processor computes, beside those of a device."""


class LayoutRequest(Struct, frozen=True):
    facts: ModelFacts
    n_ctx_tokens: int
    adapters: tuple[str, ...] = ()
    on_processor: bool = False
    """Whether a request asks for it (`num_gpu: 0`)."""
    n_cells_at_most: int | None = None
    """After it ran out of memory."""
    extra_bytes: int = 0
    """Of what is loaded with it: adapters, a projector and its images, a draft model."""
    draft: GgufHeader | None = None
    others_bytes: int = 0
    """Of other models that are needed and not loaded yet: memory that its cells leave free."""


def n_cells(n_parallel: int, n_ctx_tokens: int, n_configured: int | None = None) -> int:
    """Return the cells for `n_parallel` jobs, within bounds or as configured, and for chats.

    The chats' seats come on top: with `n_configured` = n_parallel x n_ctx_tokens all jobs run at
    once. llama.cpp pads to 256.

    >>> n_cells(4, 2048), n_cells(16, 4096), n_cells(1, 100_000)
    (12288, 40960, 100096)
    """
    usual = min(n_parallel * n_ctx_tokens, MAX_CELLS_BY_DEFAULT)
    of_jobs = n_configured or usual
    n_needed = max(n_ctx_tokens, of_jobs + of_jobs * n_chat_slots(n_parallel) // n_parallel)
    return padded_cells(n_needed)


def layouts(
    request: LayoutRequest,
    header: GgufHeader,
    settings: PoolSettings,
    device: Device,
    known: FindMeasured = lambda load: None,
    profile: Profile | None = None,
) -> tuple[ModelLayout, ...]:
    """Return the possible layouts of a model, the best first; the good ones before the others.

    1. On the graphics devices, unless the request, the settings or the device forbid it.
    2. Where a device may lack the memory for a layer: on the processor alone.
    """
    is_off = request.on_processor or not settings.n_gpu_layers
    why_no_device = "" if is_off else device.refusal
    if is_off or device.refusal:
        settings = replace(settings, n_gpu_layers=0)
        if device.is_gpu:
            device = _as_processor(device, why_no_device or "num_gpu is 0")
    planner = _LayoutPlanner(request, header, settings, device)
    found = planner.layouts(planner.load(profile, why_no_device), known)
    unspilled = {layout.load.n_cells for layout in found}
    unspilled -= {layout.load.n_cells for layout in found if layout.is_spilled}
    if planner.may_spill and unspilled:
        alone = _as_processor(device, f"{device.name} has no room (allow_cpu)")
        planner = replace(planner, settings=replace(settings, n_gpu_layers=0), device=alone)
        on_processor = planner.layouts(planner.load(), known)
        found += [replace(layout, is_good=False, is_spilled=True) for layout in on_processor]
    return tuple(found)


def _as_processor(device: Device, why: str) -> Device:
    """Return the machine as a model sees it that has no layer on a graphics device."""
    return replace(device, is_gpu=False, gpus=(), why_no_gpu=why)


def wider(
    layout: ModelLayout, n_ctx_tokens: int, header: GgufHeader, draft: GgufHeader | None = None
) -> tuple[ModelLayout, ...]:
    load = layout.load
    if load.role != "chat":  # it takes the longest text already
        return (layout,)
    per_cell = cell_bytes(header, load.kv_cache_type)
    per_cell += cell_bytes(draft, load.kv_cache_type) if draft is not None else 0.0
    most = max(load.n_cells, n_cells(load.n_parallel, n_ctx_tokens))
    found = []
    for cells in _halvings(most, max(load.n_cells, padded_cells(n_ctx_tokens))):
        extra_bytes = int((cells - load.n_cells) * per_cell)
        grown = replace(load, n_ctx_tokens=n_ctx_tokens, n_cells=cells)
        # Spread bytes as a room is spread: on the devices where there are any, else in main memory
        gpus = _shares(layout.room, extra_bytes)
        spread_like = MemoryAmount(0, gpus) if gpus else MemoryAmount(extra_bytes)
        found.append(replace(layout, load=grown, room=layout.room + spread_like))
    return tuple(found)


def _halvings(most: int, least: int) -> list[int]:
    """Return `most`, its half, and so on down to `least`.

    >>> _halvings(6144, 1024)
    [6144, 3072, 1536, 1024]
    """
    sizes = [most]
    while sizes[-1] > least:
        sizes.append(max(least, padded_cells(sizes[-1] // 2)))
    return sizes


def _rounded(n_tokens: int) -> int:
    """Round down to five binary digits, so that free memory that varies names few layouts.

    >>> _rounded(100_000), _rounded(7_000)
    (98304, 6912)
    """
    step = max(256, 1 << max(0, n_tokens.bit_length() - 5))
    return n_tokens // step * step


class _CellCounts(Struct, frozen=True):
    """How many cells to try, the most first, and from how many on a layout is good."""

    counts: list[int]
    least_good: int = 0


class _FreeCells(Struct, frozen=True):
    at_most: int
    """With nothing else on the devices."""
    now: int


class _PlacementDefaults(Struct, frozen=True):
    """What the settings leave open, by what computes the layers."""

    n_parallel: int
    n_batch_tokens: int = CPU_BATCH
    n_pass_tokens: int = 0
    """For which the device has room; 0: all of a batch. Buffers for 2,048 instead of 512 take a
    tenth of a card of 4 GB from its cells."""


_OF_PROCESSOR = _PlacementDefaults(N_PARALLEL_CPU)
_OF_IR = _PlacementDefaults(N_PARALLEL_IR)
_OF_SHARED_MEMORY = _PlacementDefaults(N_PARALLEL_SHARED, GPU_BATCH, GPU_PASSES[0])


def _placement_defaults(device: Device, ir: str, profile: Profile | None) -> _PlacementDefaults:
    if not device.is_gpu:
        return _OF_IR if ir else _OF_PROCESSOR
    if not device.gpus:
        return _OF_SHARED_MEMORY
    is_large = min(gpu.total_bytes for gpu in device.gpus) >= _LARGE_CARD_BYTES
    return _PlacementDefaults(gpu_parallel(profile), GPU_BATCH, GPU_PASSES[-1 if is_large else 0])


class _ContextSizes(Struct, frozen=True):
    n_parallel: int
    n_ctx_tokens: int
    n_cells: int
    n_batch_tokens: int
    kv_cache_type: CacheType


def _embedder_sizes(facts: ModelFacts) -> _ContextSizes:
    """Return the sizes for whole texts only: a batch must hold the longest one."""
    n_tokens = min(facts.n_ctx_train_tokens, 8192)
    return _ContextSizes(N_PARALLEL_EMBED, n_tokens, n_tokens, n_tokens, "f16")


class _LayoutPlanner(Struct, frozen=True):
    """Layouts of one model on one machine, in stages: load, numbers of cells, placements."""

    request: LayoutRequest
    header: GgufHeader
    settings: PoolSettings
    device: Device

    @property
    def may_spill(self) -> bool:
        """Whether the processor may compute a part for want of memory on a device."""
        settings = self.settings
        return settings.allow_cpu and settings.n_gpu_layers < 0 and bool(self.device.gpus)

    def load(self, profile: Profile | None = None, why_no_device: str = "") -> WorkerOptions:
        facts, settings, device = self.request.facts, self.settings, self.device
        ir = "" if self.request.adapters else facts.ir
        defaults = _placement_defaults(device, ir, profile)
        sizes = self._chat_sizes(defaults) if facts.role == "chat" else _embedder_sizes(facts)
        return WorkerOptions(
            n_ctx_tokens=sizes.n_ctx_tokens,
            n_cells=sizes.n_cells,
            n_parallel=sizes.n_parallel,
            n_batch_tokens=sizes.n_batch_tokens,
            n_pass_tokens=defaults.n_pass_tokens,
            kv_cache_type=sizes.kv_cache_type,
            cache_layout="unified" if ir else settings.cache_layout,  # blocks are shared
            path=facts.path,
            parts=facts.parts,
            digest=facts.digest,
            role=facts.role,
            ir=ir,
            is_copy=facts.tuned_from is not None,
            has_mtp=self.header.has_mtp,
            draft_path=facts.draft_path,
            projector=facts.projector or "",
            projector_digest=facts.projector_digest,
            adapters=self.request.adapters,
            n_threads=settings.n_threads or device.n_threads,
            step_s=settings.step_timeout_s / STEPS_WAITED,
            n_gpu_layers=settings.n_gpu_layers,
            flash_attention=settings.flash_attention,
            cache_dir=str(settings.cache_dir),
            device=device.name,
            is_gpu=device.is_gpu,
            why_no_device=why_no_device,
        )

    def _chat_sizes(self, defaults: _PlacementDefaults) -> _ContextSizes:
        settings, n_ctx_tokens = self.settings, self.request.n_ctx_tokens
        n_parallel = min(settings.num_parallel or defaults.n_parallel, MOST_PARALLEL)
        return _ContextSizes(
            n_parallel,
            n_ctx_tokens,
            n_cells(n_parallel, n_ctx_tokens, settings.n_cells),
            settings.n_batch_tokens or defaults.n_batch_tokens,
            settings.kv_cache_type,
        )

    def cell_counts(self, load: WorkerOptions) -> _CellCounts:
        """Return the numbers of cells to try.

        1. An embedder's are halved from its longest text: longer texts than planned find memory or
           are refused.
        2. Configured ones are taken as they are; after a lack of memory, at most so many.
        3. On devices with memory of their own, cells fill what the weights leave of it, up to a
           whole request for each sequence.
        4. In main memory, the usual number.
        """
        if load.role != "chat":  # 1.
            return _CellCounts(_halvings(load.n_cells, min(load.n_cells, _LEAST_EMBED_TOKENS)))
        at_most = self.request.n_cells_at_most or 1 << 62
        least = padded_cells(load.n_ctx_tokens)
        if self.settings.n_cells:  # 2.
            configured = n_cells(load.n_parallel, load.n_ctx_tokens, self.settings.n_cells)
            top = max(least, min(configured, at_most))
            return _CellCounts(
                _halvings(top, least if self.request.n_cells_at_most else configured)
            )
        if self.device.gpus:  # 3.
            free = self._free_cells(load, self.request.others_bytes)
            if self.request.others_bytes and free.at_most < _GOOD_REQUESTS * load.n_ctx_tokens:
                # The other models would not fit with it in any case.
                free = self._free_cells(load, 0)
            n_seqs = load.n_parallel + n_chat_slots(load.n_parallel)
            whole_requests = min(n_seqs * load.n_ctx_tokens, at_most)
            some_requests = n_cells(min(load.n_parallel, _GOOD_REQUESTS), load.n_ctx_tokens)
            half_of_device = _rounded(free.at_most // 2)
            least_good = max(least, min(some_requests, whole_requests, half_of_device))
            top = max(least, min(padded_cells(whole_requests), _rounded(free.now)))
            counts = {top, *_halvings(least_good, least)}
            return _CellCounts(sorted(counts, reverse=True), least_good)
        usual = min(n_cells(load.n_parallel, load.n_ctx_tokens), at_most)  # 4.
        return _CellCounts(_halvings(max(least, usual), least), usual // 2)

    def _free_cells(self, load: WorkerOptions, others_bytes: int) -> _FreeCells:
        """Return the cells of one device where that is enough for some whole requests.

        Else those of as few devices as have enough.
        """
        n_layers = self.header.number("block_count") + 1
        share = 1.0 if load.n_gpu_layers < 0 else min(1.0, load.n_gpu_layers / n_layers)
        per_cell = share * self._cell_and_buffer_bytes(load)[0]
        weights = share * self._weight_bytes(load) + others_bytes
        enough = n_cells(_GOOD_REQUESTS, load.n_ctx_tokens)

        def beside_weights(n_bytes: float, n_devices: int) -> int:
            # The buffer grows with the cells: the size that is computed first is too large.
            most = replace(load, n_cells=max(load.n_ctx_tokens, int(n_bytes / per_cell)))
            buffers = n_devices * self._cell_and_buffer_bytes(most)[1]
            return max(0, int((n_bytes - buffers) / per_cell))

        free = _FreeCells(0, 0)
        for group in gpu_groups(
            self.device.gpus, main_gpu=self.settings.main_gpu, split_mode=self.settings.split_mode
        ):
            gpus = [self.device.gpus[i] for i in group]
            total = sum(gpu.total_bytes for gpu in gpus)
            kept = weights + total * _LEFT_FREE
            kept += sum(gpu.context_bytes + self.settings.gpu_overhead_bytes for gpu in gpus)
            at_most = beside_weights(total - kept, len(gpus))
            now = beside_weights(sum(gpu.free_bytes for gpu in gpus) - kept, len(gpus))
            free = _FreeCells(at_most, min(now, at_most))
            if at_most >= enough:
                break
        return free

    def _weight_bytes(self, load: WorkerOptions) -> int:
        facts = self.request.facts
        return (facts.ir_bytes if load.ir else facts.size_bytes) + self.request.extra_bytes

    def _cell_and_buffer_bytes(self, load: WorkerOptions) -> tuple[float, int]:
        per_cell = cell_bytes(self.header, load.kv_cache_type)
        buffers = compute_bytes(self.header, load)
        draft = self.request.draft
        if draft is None or load.role != "chat":
            return per_cell, buffers
        per_cell += cell_bytes(draft, load.kv_cache_type)
        return per_cell, buffers + compute_bytes(draft, replace(load, cache_layout="unified"))

    def layouts(self, load: WorkerOptions, known: FindMeasured) -> list[ModelLayout]:
        cells = self.cell_counts(load)
        # How many tokens of finished conversations main memory may take; none is reserved.
        n_host_cache = 0
        if load.role == "chat":
            shelf_bytes = self.settings.shelf_bytes
            if shelf_bytes is None:
                total_bytes = self.device.total_bytes or self.device.free_bytes
                shelf_bytes = min(int(_SHELF_SHARE * total_bytes), _MOST_SHELF_BYTES)
            per_cell = cell_bytes(self.header, load.kv_cache_type)
            n_host_cache = int(shelf_bytes / max(1.0, per_cell))
        found: list[ModelLayout] = []
        for n_loaded in cells.counts:
            n_parallel = load.n_parallel
            if load.role == "chat" and self.settings.num_parallel is None:
                each = min(LEAST_CELLS_EACH, load.n_ctx_tokens)
                n_parallel = max(1, min(n_parallel, n_loaded // each))
            sized = replace(
                load, n_cells=n_loaded, n_parallel=n_parallel, n_host_cache_tokens=n_host_cache
            )
            found += self._placed(sized, n_loaded >= cells.least_good)
        # Fewer cells on the device are faster than many of which the processor computes a part.
        found.sort(key=lambda layout: (not layout.is_good, layout.is_spilled))
        for at, layout in enumerate(found):
            if (seen := known(layout.load)) is not None:
                room, _ = as_placed(seen.taken, layout.room)
                found[at] = replace(layout, room=room, load_s=seen.load_s or layout.load_s)
        return found

    def _placed(self, load: WorkerOptions, is_good: bool) -> list[ModelLayout]:
        device, header = self.device, self.header
        size = self._weight_bytes(load)
        per_cell, buffers = self._cell_and_buffer_bytes(load)
        outputs = 0 if load.role == "chat" else _FLOAT_BYTES * load.n_cells * n_vocab(header)
        cache = 0.0 if header.is_encoder else load.n_cells * per_cell
        n_layers = header.number("block_count") + 1
        spread_bytes, load_s = int(size + cache), size / _READ_BYTES_PER_S
        n_there = n_layers if load.n_gpu_layers < 0 else min(load.n_gpu_layers, n_layers)
        if not device.gpus:
            placed = f"all {n_layers} layers on the processor"
            if device.is_gpu:  # it shares main memory
                placed = _placement_text(n_there, n_layers, "")
            placed += f"; {device.why_no_gpu}" if device.why_no_gpu else ""
            here = MemoryAmount(spread_bytes + buffers + _RUNTIME_BYTES + outputs)
            return [ModelLayout(replace(load, placed=placed), here, load_s, is_good)]
        on_devices = _DeviceLoad(
            load, device, self.settings, spread_bytes, buffers, n_layers, expert_bytes(header)
        )
        found = on_devices.layouts(n_there)
        if self.may_spill:
            found += on_devices.spilled()
        return [
            replace(
                layout,
                room=layout.room + MemoryAmount(outputs),
                load_s=load_s,
                is_good=is_good and not layout.is_spilled,
            )
            for layout in found
        ]


class _DeviceLoad(Struct, frozen=True):
    """A load of which graphics devices compute at least a part."""

    load: WorkerOptions
    device: Device
    settings: PoolSettings
    spread_bytes: int
    """Weights and cells: they lie where their layers do."""
    compute_bytes: int
    """Of each device that computes."""
    n_layers: int
    expert_bytes: tuple[int, ...]
    """Of each layer, where the model is a mixture of experts."""

    def layouts(self, n_there: int) -> list[ModelLayout]:
        there_bytes = self.spread_bytes * n_there // self.n_layers
        possible = placements(
            there_bytes,
            self.device.gpus,
            main_gpu=self.settings.main_gpu,
            split_mode=self.settings.split_mode,
            overhead_bytes=self.settings.gpu_overhead_bytes + self.compute_bytes,
        )
        why = f"; num_gpu is {self.load.n_gpu_layers}" if n_there < self.n_layers else ""
        return [self._layout(placement, there_bytes, n_there, why) for placement in possible]

    def spilled(self) -> list[ModelLayout]:
        """Return the layout that leaves to the processor what a device has no memory for now.

        Of a mixture of experts that is the experts' weights of the first layers, as few as must
        be: a token goes through a few of the experts, and through all of the rest. Without memory
        for a layer there is no layout.
        """
        placement = placements(0, self.device.gpus, main_gpu=self.settings.main_gpu)[0]
        gpu = self.device.gpus[placement.gpus[0]]
        taken_bytes = gpu.context_bytes + self.settings.gpu_overhead_bytes + self.compute_bytes
        free_bytes = gpu.free_bytes - taken_bytes
        why = "; it has no room for more (allow_cpu)"
        there_bytes = self.spread_bytes
        for n_experts, n_bytes in enumerate(self.expert_bytes, 1):
            there_bytes -= n_bytes
            if there_bytes <= free_bytes:
                why = f", the experts of {n_experts} of them on the processor{why}"
                return [
                    self._layout(
                        placement, there_bytes, self.n_layers, why, n_cpu_experts=n_experts
                    )
                ]
        n_there = min(self.n_layers - 1, int(free_bytes / (self.spread_bytes / self.n_layers)))
        if n_there < 1:
            return []
        there_bytes = self.spread_bytes * n_there // self.n_layers
        return [self._layout(placement, there_bytes, n_there, why, n_gpu_layers=n_there)]

    def _layout(
        self, placement: Placement, there_bytes: int, n_there: int, why: str, **spilled: Any
    ) -> ModelLayout:
        gpus = self.device.gpus
        placed = _placement_text(
            n_there, self.n_layers, ", ".join(gpus[i].name for i in placement.gpus)
        )
        load = replace(
            _placed_load(self.load, placement, self.device), placed=placed + why, **spilled
        )
        buffers = [0] * len(gpus)
        for gpu in placement.gpus:
            buffers[gpu] = self.compute_bytes
        own = MemoryAmount(_PROCESS_BYTES + self.spread_bytes - there_bytes, tuple(buffers))
        room = placement.room(there_bytes, gpus) + own
        host_bytes = self.spread_bytes - there_bytes
        return ModelLayout(load, room, 0.0, is_spilled=bool(spilled), host_layer_bytes=host_bytes)


def _placed_load(load: WorkerOptions, placement: Placement, device: Device) -> WorkerOptions:
    """Write a placement into a load: by UUIDs, since CUDA may count devices in another order."""
    uuids = [device.gpus[i].uuid for i in placement.gpus]
    if all(uuids):  # the worker sees its own devices only, and so takes no memory on the others
        load = replace(load, visible_devices=",".join(uuids), split_mode="layer", tensor_split=())
        if len(uuids) > 1:
            load = replace(load, split_mode=placement.split_mode, tensor_split=placement.shares)
        return load
    if len(device.gpus) < 2:
        return load
    shares = [0.0] * len(device.gpus)
    for gpu, share in zip(placement.gpus, placement.shares, strict=True):
        shares[gpu] = share
    return replace(
        load,
        main_gpu=placement.gpus[0],
        split_mode=placement.split_mode,
        tensor_split=tuple(shares),
    )


def _placement_text(n_there: int, n_layers: int, names: str) -> str:
    return f"{n_there} of {n_layers} layers on {names or 'the graphics device'}"


def as_placed(taken: WorkerMemory, planned: MemoryAmount) -> tuple[MemoryAmount, MemoryAmount]:
    """Return what was measured, and of it what is yet to grow.

    It is spread over the devices as it was planned: only its sum is known.
    """
    gpus = _shares(planned, taken.device_bytes) if taken.device_bytes else planned.gpus
    growth = MemoryAmount(taken.host_growth_bytes, _shares(planned, taken.device_growth_bytes))
    return MemoryAmount(taken.host_bytes or planned.host, gpus), growth


def _shares(room: MemoryAmount, n_bytes: int) -> tuple[int, ...]:
    on_devices = sum(room.gpus)
    return tuple(n_bytes * gpu_bytes // on_devices for gpu_bytes in room.gpus) if on_devices else ()
