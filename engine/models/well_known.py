"""Well-known models: which of them fit this machine, and about how fast they would be.

A fixed table, so that a proposal needs no network. Names and sizes are those of Ollama's library
in July 2026, without models that need its own file formats (gemma3, gpt-oss, mistral-small3.2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from statistics import median

from paddock.engine.system.records import Struct

GB = 10**9
CONTEXT_TOKENS = 8192  # a document of some ten pages
DOCUMENT_TOKENS, ANSWER_TOKENS = 1_000, 200  # two pages and a summary of 150 words
MOST_DOCUMENT_S = 60.0
"""A proposed model takes at most this for one document, where any does."""

_USABLE_SHARE = 0.75  # of main memory: the rest is for the system, a browser and the run itself
_USABLE_GPU_SHARE = 0.95
_OVERHEAD_BYTES = 400 * 2**20  # compute buffers and the worker process


class WellKnownModel(Struct, frozen=True):
    name: str
    """What `paddock pull` takes."""
    size_bytes: int
    n_weights: float
    """In billions."""
    n_active: float
    """In billions: the weights that one token is computed with."""
    kv_bytes: int
    """Cache per token of context, F16: 2 x layers x KV heads x head size x 2 bytes."""
    licence: str

    @property
    def needed_bytes(self) -> int:
        return self.size_bytes + self.kv_bytes * CONTEXT_TOKENS + _OVERHEAD_BYTES


def _model(
    name: str, size_gb: float, n_weights: float, kv_kib: int, licence: str, n_active: float = 0
) -> WellKnownModel:
    active = n_active or n_weights
    return WellKnownModel(name, round(size_gb * GB), n_weights, active, kv_kib * 1024, licence)


_LLAMA = "Llama 3 Community"
# From the weakest to the strongest, by what their makers publish about instructions and summaries.
WELL_KNOWN = (
    _model("qwen3:0.6b", 0.52, 0.75, 112, "Apache-2.0"),
    _model("llama3.2:1b", 1.3, 1.24, 32, _LLAMA),
    _model("qwen3:1.7b", 1.4, 2.03, 112, "Apache-2.0"),
    _model("granite3.3:2b", 1.5, 2.53, 80, "Apache-2.0"),
    _model("llama3.2:3b", 2.0, 3.21, 112, _LLAMA),
    _model("phi4-mini:3.8b", 2.5, 3.84, 128, "MIT"),
    _model("qwen3:4b-instruct", 2.5, 4.02, 144, "Apache-2.0"),
    _model("llama3.1:8b", 4.9, 8.03, 128, _LLAMA),
    _model("granite3.3:8b", 4.9, 8.17, 160, "Apache-2.0"),
    _model("qwen3:8b", 5.2, 8.19, 144, "Apache-2.0"),
    _model("phi4:14b", 9.1, 14.7, 200, "MIT"),
    _model("qwen3:14b", 9.3, 14.8, 160, "Apache-2.0"),
    _model("mistral-small:24b", 14.0, 23.6, 160, "Apache-2.0"),
    _model("qwen3:30b-instruct", 19.0, 30.5, 96, "Apache-2.0", n_active=3.3),
    _model("qwen3:32b", 20.0, 32.8, 256, "Apache-2.0"),
    _model("llama3.3:70b", 43.0, 70.6, 320, _LLAMA),
)


MEASURED: Mapping[str, str] = {
    "79fefc3f94191ecd34e08b545c389db5b598a410a48666fc816b080e63dd6591": (  # smollm2:135m of `demo`
        "is often wrong: in trials it had 64 of 100 topics right with three answered examples in "
        "the prompt, 34 without them, and 7 of 24 kinds of documents"
    )
}
"""By `ModelFacts.identity`: how often its answers were right, for those who read them.

The pages of `examples/choose-a-model` and `examples/first-run` tell how that was tried."""


class MachineSpeed(Struct, frozen=True):
    """What bounds a model here: arithmetic for prompts, memory for answers."""

    flop_per_s: float
    read_bytes_per_s: float

    def document_s(self, model: WellKnownModel) -> float:
        """Return about how long one document of `DOCUMENT_TOKENS` takes, alone."""
        reading_s = DOCUMENT_TOKENS / (self.flop_per_s * _PROMPT_SHARE / (2e9 * model.n_active))
        active_bytes = model.size_bytes * model.n_active / model.n_weights
        return reading_s + ANSWER_TOKENS / (self.read_bytes_per_s * _ANSWER_SHARE / active_bytes)


# Share of a plain matrix product's and of a plain sum's speed that llama.cpp reaches with 4-bit
# weights, measured with a 1B of random weights in Q4_0. With 0.55B of them in Q4_K_M prompts were
# read about 1.5 times as fast as estimated, answers written as fast.
_PROMPT_SHARE = 1.0
_ANSWER_SHARE = 0.6
_TRIAL_BYTES, _TRIAL_PARTS = 64 * 2**20, 32
_TRIAL_SIZE, _TRIAL_PRODUCTS = 256, 100


def measure_speed(n_threads: int) -> MachineSpeed:
    """Measure in about a twentieth of a second what this machine's processor can do.

    A trial has many parts, each shorter than the turns that a busy system gives: so its best or
    middle one is that of an idle machine, and a proposal does not depend on what runs just now.
    """
    import numpy as np  # takes a tenth of a second

    def read(array: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[float]:
        return [_timed(part.sum) for part in np.split(array, _TRIAL_PARTS)]

    arrays = [np.ones(_TRIAL_BYTES // 4, np.float32) for _ in range(n_threads)]
    with ThreadPoolExecutor(n_threads) as threads:
        read_s = median(chain.from_iterable(threads.map(read, arrays)))
    square = np.ones((_TRIAL_SIZE, _TRIAL_SIZE), np.float32)
    product_s = min(_timed(lambda: square @ square) for _ in range(_TRIAL_PRODUCTS))
    read_bytes_per_s = n_threads * _TRIAL_BYTES / _TRIAL_PARTS / read_s
    return MachineSpeed(2 * _TRIAL_SIZE**3 / product_s, read_bytes_per_s)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Machine(Struct, frozen=True):
    """The memory that a model must fit, and the processor's speed."""

    memory_bytes: int
    is_gpu: bool
    speed: MachineSpeed | None
    """None on a graphics device: what it can do is not measured without a model."""
    why_no_device: str = ""

    def holds(self, model: WellKnownModel) -> bool:
        share = _USABLE_GPU_SHARE if self.is_gpu else _USABLE_SHARE
        return model.needed_bytes <= self.memory_bytes * share


def propose(
    machine: Machine, models: Sequence[WellKnownModel] = WELL_KNOWN
) -> WellKnownModel | None:
    """Return the strongest model that fits and is quick enough; None where none fits.

    Where all are too slow, it is the fastest.
    """
    here = [model for model in models if machine.holds(model)]
    if machine.speed is None or not here:
        return here[-1] if here else None
    quick = [model for model in here if machine.speed.document_s(model) <= MOST_DOCUMENT_S]
    return quick[-1] if quick else min(here, key=machine.speed.document_s)
