"""Memory estimate of a load: computed from the GGUF header, or measured at an earlier load.

The arithmetic is pure. Measured sizes belong to a file, a layout and a device, and are kept in
`sizes.json`; that file is only a cache, so without it the arithmetic counts.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paddock.engine.decoding.batch import ContextLimits
from paddock.engine.gguf import GgufHeader
from paddock.engine.profile.context_layout import GPU_PASSES, may_be_plain, n_chat_slots
from paddock.engine.settings import CacheType
from paddock.engine.system.files import read_json_object, write_json_atomically
from paddock.engine.workers.worker_options import WorkerMemory, WorkerOptions

_BYTES_PER_VALUE: dict[CacheType, float] = {"f16": 2.0, "q8_0": 34 / 32}
_FLOAT_BYTES = 4
# Vectors of the embedding's length that live at once. SmolLM2-135M, batches of 512, without flash
# attention: 166.4 MiB reserved, 166.7 computed here.
_HIDDEN_VECTORS = 6
_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(up|down|gate|gate_up)_(ch|)exps")


def cell_bytes(header: GgufHeader, kind: CacheType) -> float:
    """Return what one token takes in the KV cache, over all layers."""
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
    logits = n_rows * n_vocab(header) + 2 * n_tokens * n_embd
    wide = max(2 * _n_feed_forward(header), _n_scores(header, load))
    layer = _n_mask(load) + n_tokens * (wide + _HIDDEN_VECTORS * n_embd)
    return _FLOAT_BYTES * max(logits if load.role == "chat" else 0, layer)


def _n_mask(load: WorkerOptions) -> int:
    """Return the entries of the attention mask: in a split cache, those of a stream's cells."""
    unified = _n_pass(load) * load.n_cells
    if not load.is_gpu or load.cache_layout == "unified":
        return unified
    split = _n_pass(load) * min(load.n_cells, load.n_ctx_tokens)
    # A graphics device reads prompts in the smallest passes where its cache is unified.
    return max(split, min(_n_pass(load), GPU_PASSES[0]) * load.n_cells)


def _n_pass(load: WorkerOptions) -> int:
    """Return the tokens of a batch that are computed at once."""
    return min(load.n_pass_tokens or load.n_batch_tokens, load.n_batch_tokens)


def n_vocab(header: GgufHeader) -> int:
    """Return the number of tokens in the vocabulary."""
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


def _n_feed_forward(header: GgufHeader) -> int:
    """Return the feed-forward values of one token, over the experts that it goes through."""
    n_used = header.number("expert_used_count")
    each = header.number("expert_feed_forward_length", header.number("feed_forward_length"))
    return max(header.number("feed_forward_length"), n_used * each)


def _n_scores(header: GgufHeader, load: WorkerOptions) -> int:
    """Return the attention scores of one token, which flash attention does without."""
    if load.flash_attention == "on" or (load.flash_attention == "auto" and load.is_gpu):
        return 0
    chosen = load.flash_attention == "auto"
    if chosen and not may_be_plain(load.cache_layout, load.n_ctx_tokens, load.kv_cache_type):
        return 0
    # By itself the profile goes without it only in a split cache, where a stream is one request.
    is_split = load.flash_attention == "auto" or load.cache_layout == "split"
    n_seen = min(load.n_cells, load.n_ctx_tokens) if is_split else load.n_cells
    return n_seen * header.number("attention.head_count")


@dataclass(frozen=True, slots=True)
class MeasuredSize:
    """One load as it was."""

    taken: WorkerMemory
    load_s: float


def size_key(digest: str, load: WorkerOptions, device: str) -> str:
    """Return the name under which a load's size is kept.

    >>> load = WorkerOptions("x.gguf", "chat", 2048, 8192, 4, 512, 2)
    >>> size_key("0123456789abcdef", load, "cpu")
    '0123456789abcdef cpu cells=8192 sequences=4 batch=512 cache=f16 auto flash=auto layers=-1'
    """
    n_devices = load.visible_devices.count(",") + 1
    parts = (
        f"cells={load.n_cells} sequences={load.n_parallel} batch={load.n_batch_tokens}",
        f"cache={load.kv_cache_type} {load.cache_layout} flash={load.flash_attention}",
        f"layers={load.n_gpu_layers}",
        *([f"experts={load.n_cpu_experts}"] if load.n_cpu_experts else ()),
        *([f"devices={n_devices}"] if n_devices > 1 else ()),
    )
    return " ".join((digest[:16], device, *parts, *load.adapters))


class MeasuredSizes:
    """Reads and writes `sizes.json`. What was seen last counts, so that sizes can also shrink."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, MeasuredSize] | None = None

    def find(self, key: str) -> MeasuredSize | None:
        return self._all().get(key)

    def note(self, key: str, taken: WorkerMemory, load_s: float) -> None:
        """Keep what a load took with its context at its full length."""
        before, seen = self.find(key), MeasuredSize(taken, load_s)
        self._known = {**self._all(), key: seen}
        if before is None or taken != before.taken:
            self._write()

    def _all(self) -> dict[str, MeasuredSize]:
        if self._known is None:
            self._known = _read_sizes(self._file)
        return self._known

    def _write(self) -> None:
        rows = {
            key: [one.taken.host_bytes, one.taken.device_bytes, round(one.load_s, 3)]
            for key, one in {**_read_sizes(self._file), **self._all()}.items()
        }
        with suppress(OSError):  # only a cache
            write_json_atomically(self._file, rows)


def _read_sizes(file: Path) -> dict[str, MeasuredSize]:
    try:
        return {
            key: MeasuredSize(WorkerMemory(int(host), int(device)), float(load_s))
            for key, (host, device, load_s) in read_json_object(file).items()
        }
    except (ValueError, TypeError):
        return {}
