"""Profile of one model on one device: measured speeds, the arithmetic on them, and its file.

A model is measured once, in its first idle minute; one on a graphics device when it is loaded,
since later the device's memory is full. Imports no llama_cpp. Between two measured points, seconds
are interpolated linearly; beyond the last one, its speed holds.

There is one small file for each model, device and build of llama.cpp. They are in the cache folder,
not next to the model's file, since a model store may be read-only or shared by machines of
different speeds. A profile that is lost or damaged is measured again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from paddock.engine.llama.build import find_build
from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.hardware import read_cpu
from paddock.engine.system.records import Struct, asdict, field, known_record

_Speed = Annotated[float, Meta(gt=0)]
"""Tokens a second."""

# Cost of one entry of a unified cache's mask, which llama.cpp fills in one thread of the processor:
# 64 sequences of 1,024 tokens took 6.3 ms, 128 of them 27 ms.
_MASK_S = 1.5e-9


class PrefillPoint(Struct, frozen=True, forbid_unknown_fields=True):
    n_batch_tokens: int
    tokens_per_s: _Speed
    n_cells_before: int = 0
    """Used cells of other sequences: attention in a unified cache runs over all of them."""


class DecodePoint(Struct, frozen=True, forbid_unknown_fields=True):
    n_sequences: int
    n_depth_tokens: int
    is_unified: bool
    tokens_per_s: _Speed
    """Of all sequences together."""


class Agreement(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a token gets the same logits, bit for bit, however it is computed.

    False: a greedy answer may change. None: not measured.
    """

    company: bool | None = None
    """Alone or in a step with other requests, by any number of threads, with its prompt whole or
    in pieces."""
    drafts: bool | None = None


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    digest: str
    device: str
    build: str
    """llama.cpp's build, with the settings that change its speed."""
    cell_bytes: float
    prefill: tuple[PrefillPoint, ...] = ()
    decode: tuple[DecodePoint, ...] = ()
    copy_s: float | None = None
    """Seconds for each token of a prefix that is copied from one stream to another."""
    agreement: Agreement = field(default_factory=Agreement)
    save_s: float | None = None
    """Of a graphics device: seconds for each token that is copied to main memory, or back."""
    stream_s: float | None = None
    """Of a graphics device: seconds for a stream that is copied within it."""
    version: Literal[4] = 4

    @classmethod
    def of(cls, data: Any) -> Profile | None:
        """Return a profile of JSON; None: it is of another version, or damaged."""
        needed = {"version", "prefill", "decode", "agreement"}
        is_whole = isinstance(data, Mapping) and data.keys() >= needed
        return known_record(cls, data) if is_whole else None

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("gpu")


class Measurements(Struct):
    cell_bytes: float = 0.0
    prefill: list[PrefillPoint] = field(default_factory=list)
    decode: list[DecodePoint] = field(default_factory=list)
    copy_s: float | None = None
    save_s: float | None = None
    stream_s: float | None = None
    agreement: Agreement = field(default_factory=Agreement)


def prefill_s(profile: Profile, n_tokens: float, *, n_cells_before: float = 0.0) -> float:
    """Return the duration of one batch of prompt tokens; 0 if nothing was measured.

    `n_cells_before` are other sequences' cells in a unified cache; 0 in a split one.
    """
    alone_s = _interpolated(_batch_points(profile), n_tokens)
    return alone_s + n_tokens * n_cells_before * neighbour_s(profile)


def neighbour_s(profile: Profile) -> float:
    """Return the seconds that one used cell of others costs each prompt token (unified cache)."""
    for crowded in profile.prefill:
        if crowded.n_cells_before:
            n_tokens = crowded.n_batch_tokens
            alone_s = _interpolated(_batch_points(profile), n_tokens)
            extra_s = n_tokens / crowded.tokens_per_s - alone_s
            return max(0.0, extra_s / n_tokens / crowded.n_cells_before)
    return 0.0


def _batch_points(profile: Profile) -> list[tuple[float, float]]:
    """Return (tokens, seconds) of batches in an otherwise empty cache, sorted by tokens.

    A decode step of one sequence is a batch of one token.
    """
    sizes = {
        float(point.n_batch_tokens): point.n_batch_tokens / point.tokens_per_s
        for point in profile.prefill
        if not point.n_cells_before
    }
    single = [point for point in profile.decode if point.n_sequences == 1]
    if single:
        sizes[1.0] = 1 / max(point.tokens_per_s for point in single)
    return sorted(sizes.items())


def step_s(profile: Profile, n_sequences: float, n_depth_tokens: float, is_unified: bool) -> float:
    """Return the duration of one token for each of some sequences; 0 if nothing was measured.

    In a unified cache with a shared prefix, the depth is the number of used cells divided by the
    number of sequences. If only a split cache was measured, the unified one is computed: each
    sequence attends to the cells of all, and the mask covers as many.
    """
    same = [point for point in profile.decode if point.is_unified == is_unified]
    points: Sequence[DecodePoint] = same or profile.decode
    took_s = _step_s(points, n_sequences, n_depth_tokens)
    if not points or not is_unified or any(point.is_unified for point in points):
        return took_s
    attention_s = max(0.0, took_s - _step_s(points, n_sequences, 0))
    mask_s = _MASK_S * n_sequences**2 * n_depth_tokens
    return took_s + max(0.0, n_sequences - 1) * attention_s + mask_s


def _step_s(points: Sequence[DecodePoint], n_sequences: float, n_depth_tokens: float) -> float:
    by_count: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        row = (float(point.n_depth_tokens), point.n_sequences / point.tokens_per_s)
        by_count.setdefault(point.n_sequences, []).append(row)
    steps = sorted((n, _at_depth(sorted(rows), n_depth_tokens)) for n, rows in by_count.items())
    return _interpolated(steps, n_sequences)


def _at_depth(points: Sequence[tuple[float, float]], depth: float) -> float:
    (low, low_s), (high, high_s) = points[0], points[-1]
    if high == low:
        return low_s
    slope = max(0.0, (high_s - low_s) / (high - low))  # noise must not make depth a gain
    return max(low_s + slope * (depth - low), low_s / 2)


def _interpolated(points: Sequence[tuple[float, float]], at: float) -> float:
    """Return seconds at a size, from sorted (size, seconds).

    >>> _interpolated([(10, 1.0), (20, 1.5)], 15), _interpolated([(10, 1.0), (20, 1.5)], 40)
    (1.25, 3.0)
    """
    if not points:
        return 0.0
    if at <= points[0][0]:
        size, seconds = points[0]
        return seconds * (at / size)
    for (low, low_s), (high, high_s) in pairwise(points):
        if at <= high:
            return low_s + (high_s - low_s) * (at - low) / (high - low)
    size, seconds = points[-1]
    return seconds * at / size


_DIGEST_CHARS, _DEVICE_CHARS, _BUILD_CHARS = 12, 48, 6


class DeviceBuild(Struct, frozen=True):
    device: str
    """`cpu2-…` with the number of threads, or `gpu-…`."""
    build: str
    """llama.cpp's build, and the settings that change its kernels."""


def this_device_build(
    settings: PoolSettings,
    n_threads: int,
    gpu: str = "",
    fallback: int = 0,
    n_gpu_layers: int | None = None,
    n_cpu_experts: int = 0,
) -> DeviceBuild:
    """Return this machine's device and build; `gpu` is the graphics device's name or "".

    `fallback` is that of `workers.fallbacks`, which changes the speed. So do layers and experts
    that spill to the processor; `n_gpu_layers` None: as the settings say.
    """
    n_threads = settings.n_threads or n_threads
    device = f"gpu-{device_slug(gpu)}" if gpu else f"cpu{n_threads}-{device_slug(read_cpu().name)}"
    parts = (
        find_build().fingerprint,
        f"cache={settings.kv_cache_type}",
        f"flash={settings.flash_attention}",
        f"layers={settings.n_gpu_layers if n_gpu_layers is None else n_gpu_layers}" if gpu else "",
        f"experts={n_cpu_experts}" if gpu and n_cpu_experts else "",
        f"fallback={fallback}" if fallback else "",
    )
    return DeviceBuild(device[:_DEVICE_CHARS].rstrip("-"), " ".join(filter(None, parts)))


def device_slug(name: str) -> str:
    """Return a device's name as a part of a file name.

    >>> device_slug("Intel(R) Xeon(R) Processor @ 2.10GHz")
    'intel-r-xeon-r-processor-2-10ghz'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


class ProfileStore:
    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "profiles"

    @property
    def has_any(self) -> bool:
        return self._folder.is_dir()

    def find(self, digest: str, place: DeviceBuild) -> Profile | None:
        found = Profile.of(files.read_json(self._file(digest, place)))
        is_same = found and (found.digest, found.device, found.build) == (
            digest, place.device, place.build
        )  # fmt: skip
        return found if is_same else None

    def keep(self, profile: Profile) -> None:
        """Write a profile, unless the folder cannot be written."""
        place = DeviceBuild(profile.device, profile.build)
        with suppress(OSError):
            files.write_json_atomically(self._file(profile.digest, place), asdict(profile))

    def _file(self, digest: str, place: DeviceBuild) -> Path:
        build = hashlib.sha256(place.build.encode()).hexdigest()[:_BUILD_CHARS]
        return self._folder / f"{digest[:_DIGEST_CHARS]}-{place.device}-{build}.json"


class PoolProfiles:
    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._book = ProfileStore(settings.cache_dir)
        self._place = cache(partial(this_device_build, settings))

    def load_fields(
        self,
        digest: str,
        n_threads: int,
        gpu: str = "",
        fallback: int = 0,
        *,
        n_gpu_layers: int | None = None,
        n_cpu_experts: int = 0,
    ) -> dict[str, Any]:
        """Return the fields of `WorkerOptions` about a model's profile; see `this_device_build`."""
        place = self._place(n_threads, gpu, fallback, n_gpu_layers, n_cpu_experts)
        known = self._book.find(digest, place)
        return {
            "profile_s": self._settings.profile_s,
            "profile": asdict(known) if known is not None else None,
            "digest": digest,
            "device": place.device,
            "build": place.build,
        }

    def find(self, digest: str, n_threads: int, gpu: str) -> Profile | None:
        return self._book.find(digest, self._place(n_threads, gpu))

    def keep(self, report: Mapping[str, Any]) -> None:
        """Save the new profile that a worker's frame may have."""
        if (profile := Profile.of(report.get("profile"))) is not None:
            self._book.keep(profile)
