"""Protocol of a worker: its options, the frames of its pipe, requests and answers in them.

A frame has a head, whose values `engine.wire` writes, and raw bytes: images, vectors. Both ends use
this module, which imports no llama_cpp. `PendingRequest` is the pool's side of one request inside a
worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from paddock.engine.errors import EngineError, pack_error
from paddock.engine.request import (
    AnswerScore,
    ChatRequest,
    Chunk,
    DoneReason,
    Message,
    OnOverflow,
    PackedVectors,
    Priority,
    Role,
    Sampling,
    Usage,
)
from paddock.engine.settings import CacheLayout, CacheType, SplitMode, Switch
from paddock.engine.system.crash_isolation import Crash
from paddock.engine.system.frames import FrameHead
from paddock.engine.system.images import DECODING_BYTES
from paddock.engine.system.records import Struct, replace
from paddock.engine.wire import from_plain, to_plain

from .death_reasons import WorkerEnd

# Rows of images that a worker keeps: of Qwen2.5-VL 7B, a photograph's 1,300 rows have 19 MB.
KEPT_IMAGE_BYTES = 128 * 1024 * 1024
# And what decoding one takes or, after that, computing it: 212 MB for 6,400 patches of 1,280
# values, which grows with patches.
IMAGE_BYTES = KEPT_IMAGE_BYTES + DECODING_BYTES


class WorkerOptions(Struct, frozen=True):
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
    projector_digest: str = ""
    cache_dir: str = ""
    """Where images of runs' documents are kept, as the projector computed them."""
    draft_path: str = ""
    """File of the draft model; empty: none."""
    has_mtp: bool = False
    """Whether the model has a layer that guesses tokens ahead (multi-token prediction)."""
    step_s: float = 30.0
    """Longest planned duration of a step; the watchdog waits several times as long."""
    profile_s: float = 0.0
    """How long a model without a profile is measured; 0: not at all."""
    profile: Mapping[str, Any] | None = None
    """Known profile (`Profile.as_json`)."""
    parts: tuple[str, ...] = ()
    """The files of a split model after the first one."""
    digest: str = ""
    """Digest of the model, for a new profile, like `device` and `build`."""
    device: str = ""
    build: str = ""
    ir: str = ""
    """File of the copy that OpenVINO computes; empty: llama.cpp computes `path`."""
    is_copy: bool = False
    """Whether it is a tuned copy: after a crash its original serves, not a fallback."""
    fallback: int = 0
    """Fallback after a crash of llama.cpp (`workers.fallbacks`); 0: none."""
    fallback_note: str = ""
    """For people: the fallback, why, and how to get a sound build."""
    why_no_device: str = ""
    """Why no graphics device has layers against expectation, in llama.cpp's words."""

    @property
    def trial_key(self) -> tuple[str, str]:
        """What a fallback is tried for: a model on a device, which may have changed meanwhile."""
        return self.digest, self.device

    @property
    def has_device(self) -> bool:
        """Whether a graphics device is to have layers."""
        return self.is_gpu and self.n_gpu_layers != 0

    @property
    def n_devices(self) -> int:
        """Number of graphics devices that share the layers; at least 1."""
        visible = self.visible_devices.count(",") + 1
        return max(visible, sum(share > 0 for share in self.tensor_split))

    @property
    def shortcomings(self) -> str:
        """For people: what the model goes without on this machine; empty: nothing."""
        place = f"runs on the processor: {self.why_no_device}" if self.why_no_device else ""
        return "; ".join(filter(None, (place, self.fallback_note)))

    @property
    def uses_mtp(self) -> bool:
        """Whether that layer is loaded: not next to a draft model, nor after a crash."""
        return self.has_mtp and not self.draft_path and not self.fallback

    @property
    def uses_extra_buffers(self) -> bool:
        """Whether weights may be packed for the processor (AMX, KleidiAI, repacking)."""
        return not self.fallback


class WorkerMemory(Struct, frozen=True):
    """Memory of a worker with its context at its full length; 0: unknown."""

    host_bytes: int = 0
    device_bytes: int = 0
    """Sum over all graphics devices."""
    host_growth_bytes: int = 0
    """Part for cells that the context does not have yet: it grows with the requests."""
    device_growth_bytes: int = 0


class ChatOrder(Struct, frozen=True):
    """A chat for a worker: with resolved sampling and a capped context."""

    request: ChatRequest
    sampling: Sampling
    n_ctx_tokens: int

    def pack(self) -> tuple[FrameHead, bytes]:
        """Return a frame's head, and its body: the images."""
        holders: list[ChatRequest | Message] = [self.request, *self.request.messages]
        messages = tuple(replace(message, images=()) for message in self.request.messages)
        bare = replace(self, request=replace(self.request, messages=messages, images=()))
        lengths = [[len(image) for image in holder.images] for holder in holders]
        images = b"".join([image for holder in holders for image in holder.images])
        return {"order": to_plain(bare), "images": lengths}, images

    @classmethod
    def unpack(cls, head: FrameHead, body: bytes) -> ChatOrder:
        order, stream = from_plain(cls, head["order"]), BytesIO(body)
        own, *others = [tuple(map(stream.read, lengths)) for lengths in head["images"]]
        pairs = zip(order.request.messages, others, strict=True)
        messages = tuple(replace(message, images=images) for message, images in pairs)
        return replace(order, request=replace(order.request, messages=messages, images=own))


class EmbedOrder(Struct, frozen=True):
    """Texts to embed, or documents that a reranker scores for `query`."""

    texts: tuple[str, ...]
    query: str | None = None
    dimensions: int | None = None
    n_ctx_tokens: int | None = None
    priority: Priority = "normal"
    on_overflow: OnOverflow = "error"


class Embedded(Struct, frozen=True):
    """Vectors of some texts, or rows of one score, in order."""

    vectors: PackedVectors
    n_tokens: int
    n_pieces: tuple[int, ...]
    """For each text; 1: it was read whole. Of a whole reply, empty: every text was."""
    n_cut_tokens: tuple[int, ...]
    """For each text; 0: nothing was cut off. Of a whole reply, empty: nothing was."""
    unknown_shares: tuple[float, ...] = ()
    """Of the letters of each text, those that no token has; empty: none, or not known."""

    def pack(self) -> tuple[FrameHead, bytes]:
        """Return a frame's head, and its body: the vectors."""
        rest = to_plain(replace(self, vectors=PackedVectors.of([])))
        return {"n_rows": len(self.vectors), "embedded": rest}, self.vectors.packed

    @classmethod
    def unpack(cls, head: FrameHead, body: bytes) -> Embedded:
        rest = from_plain(cls, head["embedded"])
        return replace(rest, vectors=PackedVectors(head["n_rows"], body))


def pack_refusal(request_id: int, error: EngineError) -> FrameHead:
    return {"event": "refused", "id": request_id, "error": pack_error(error)}


class WorkerGone(Exception):
    """The process ended while it had this request.

    `crash`: the request is one of its suspects: it was being computed, or perhaps being taken. None
    for those that only waited, and where the next process uses a fallback of llama.cpp.
    """

    def __init__(self, end: WorkerEnd, crash: Crash | None = None) -> None:
        self.end = end
        self.crash = crash
        super().__init__(str(end))


class LoadBroken(Exception):
    """The worker could not load the model."""

    def __init__(self, end: WorkerEnd, n_devices: int | None = None) -> None:
        self.end = end
        self.n_devices = n_devices
        """How many devices llama.cpp has, where these are fewer than the layout needs."""
        super().__init__(str(end))


class AnswerEnd(Struct, frozen=True):
    reason: DoneReason
    usage: Usage
    is_shortened: bool
    tokens: tuple[int, ...] = ()
    """Ids of prompt and answer, if wanted."""
    stop: str = ""
    fingerprint: str = ""
    scores: tuple[AnswerScore, ...] = ()


class PendingRequest:
    """One request inside a worker: its result and its callbacks."""

    def __init__(
        self,
        on_chunk: Callable[[Chunk], None] | None = None,
        on_step: Callable[[], None] | None = None,
        on_shortened: Callable[[int], None] | None = None,
    ) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_chunk = on_chunk
        self.on_step = on_step
        self.on_shortened = on_shortened
        """Gets the prompt's original length if it was shortened; called before any chunk."""
        self.was_taken = False
        self.has_started = False

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def finish(self, result: Any) -> None:
        if not self.result.done():
            self.result.set_result(result)
