"""Profile of one model on one device: measured speeds, and the arithmetic on them. Pure.

Knows no llama_cpp, no file and no clock. Between two measured points, seconds are interpolated
linearly; beyond the last one, its speed holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

PROFILE_VERSION = 3

# Cost of one entry of a unified cache's mask, which llama.cpp fills in one thread of the processor:
# 64 sequences of 1,024 tokens took 6.3 ms, 128 of them 27 ms.
_MASK_S = 1.5e-9


class ProfileUnreadable(Exception):
    """A profile of another version, or one that is damaged."""


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """Speed of reading a batch of prompt tokens."""

    n_batch_tokens: int
    tokens_per_s: float
    n_cells_before: int = 0
    """Used cells of other sequences: attention in a unified cache runs over all of them."""
    is_flash: bool = True
    """Whether flash attention was on, or left to llama.cpp."""


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """Speed of decoding some sequences together, each with some unshared tokens."""

    n_sequences: int
    n_depth_tokens: int
    is_unified: bool
    tokens_per_s: float
    """Of all sequences together."""
    is_flash: bool = True


_Point = TypeVar("_Point", PrefillPoint, DecodePoint)


@dataclass(frozen=True, slots=True)
class FormatPoint:
    """Duration of multiplying some rows by 10⁹ weights of a format."""

    format: str
    n_rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Number of weights of a format that a token is multiplied by."""

    format: str
    n_layers: float
    """In the layers: for every token."""
    n_head: float = 0.0
    """In the output layer: only for tokens whose logits are wanted."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether a token gets the same logits, bit for bit, however it is computed.

    False: a greedy answer may change. None: not measured.
    """

    is_flash: bool = True
    company: bool | None = None
    """Alone or in a step with other requests, by any number of threads, with its prompt whole or
    in pieces."""
    drafts: bool | None = None
    """One token at a time or several, as drafts are."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The measured numbers of one model on one device."""

    digest: str
    """sha256 of the model file that was measured."""
    device: str
    build: str
    """llama.cpp's build, with the settings that change its speed."""
    measured_at: float
    """Seconds since 1970."""
    n_threads: int
    load_s: float
    weight_bytes: int
    cell_bytes: float
    prefill: tuple[PrefillPoint, ...] = ()
    decode: tuple[DecodePoint, ...] = ()
    copy_s: float | None = None
    """Seconds for each token of a prefix that is copied from one stream to another."""
    formats: tuple[FormatPoint, ...] = ()
    weights: tuple[Weights, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    """With flash attention and, if that was measured, without it."""
    version: int = field(default=PROFILE_VERSION)

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("gpu")

    @property
    def has_plain(self) -> bool:
        return {True, False} <= {one.is_flash for one in self.decode}

    def agreement(self, *, is_flash: bool = True) -> Agreement:
        known = (one for one in self.agreements if one.is_flash == is_flash)
        return next(known, Agreement(is_flash))

    def as_json(self) -> dict[str, Any]:
        """Return plain data for `read_profile`."""
        return asdict(self)


def read_profile(data: object) -> Profile:
    """Read the data of `Profile.as_json`.

    Raises:
        ProfileUnreadable: another version, or damaged.
    """
    if not isinstance(data, Mapping) or data.get("version") != PROFILE_VERSION:
        raise ProfileUnreadable("this profile is of another version")
    try:
        values = dict(data)
        points = {
            "prefill": PrefillPoint, "decode": DecodePoint, "formats": FormatPoint,
            "weights": Weights, "agreements": Agreement,
        }  # fmt: skip
        for name, kind in points.items():
            values[name] = tuple(kind(**row) for row in values.get(name, ()))
        profile = Profile(**values)
        _check_speeds(profile)
    except (TypeError, ValueError, AttributeError) as error:
        raise ProfileUnreadable(f"this profile is damaged: {error}") from error
    return profile


def _check_speeds(profile: Profile) -> None:
    """Raise ValueError if a speed is not positive."""
    numbers = [one.tokens_per_s for one in profile.prefill]
    numbers += [one.tokens_per_s for one in profile.decode]
    numbers += [one.seconds for one in profile.formats]
    if not all(isinstance(one, (int, float)) and one > 0 for one in numbers):
        raise ValueError("a speed is not above zero")


def prefill_s(
    profile: Profile, n_tokens: float, *, n_cells_before: float = 0.0, is_flash: bool = True
) -> float:
    """Return the duration of one batch of prompt tokens; 0 if nothing was measured.

    `n_cells_before` are other sequences' cells in a unified cache; 0 in a split one.
    """
    alone_s = _interpolated(_batch_points(profile, is_flash), n_tokens)
    return alone_s + n_tokens * n_cells_before * neighbour_s(profile)


def neighbour_s(profile: Profile) -> float:
    """Return the seconds that one used cell of others costs each prompt token (unified cache)."""
    for crowded in profile.prefill:
        if crowded.n_cells_before:
            n_tokens = crowded.n_batch_tokens
            more_s = n_tokens / crowded.tokens_per_s - _interpolated(
                _batch_points(profile, crowded.is_flash), n_tokens
            )
            return max(0.0, more_s / n_tokens / crowded.n_cells_before)
    return 0.0


def _batch_points(profile: Profile, is_flash: bool) -> list[tuple[float, float]]:
    """Return (tokens, seconds) of batches in an otherwise empty cache, sorted by tokens.

    A decode step of one sequence is a batch of one token.
    """
    alone = [one for one in profile.prefill if not one.n_cells_before]
    sizes = {
        float(one.n_batch_tokens): one.n_batch_tokens / one.tokens_per_s
        for one in _measured_with(is_flash, alone)
    }
    single = [one for one in _measured_with(is_flash, profile.decode) if one.n_sequences == 1]
    if single:
        sizes[1.0] = 1 / max(one.tokens_per_s for one in single)
    return sorted(sizes.items())


def _measured_with(is_flash: bool, points: Sequence[_Point]) -> Sequence[_Point]:
    """Return the points measured with or without flash attention; all, if there are none."""
    return [one for one in points if one.is_flash == is_flash] or points


def step_s(
    profile: Profile,
    n_sequences: float,
    n_depth_tokens: float,
    is_unified: bool,
    *,
    is_flash: bool = True,
) -> float:
    """Return the duration of one token for each of some sequences; 0 if nothing was measured.

    In a unified cache with a shared prefix, the depth is the number of used cells divided by the
    number of sequences. If only a split cache was measured, the unified one is computed: each
    sequence attends to the cells of all, and the mask covers as many.
    """
    points = _measured_with(is_flash, profile.decode)
    points = [one for one in points if one.is_unified == is_unified] or points
    took_s = _step_s(points, n_sequences, n_depth_tokens)
    if not points or not is_unified or any(one.is_unified for one in points):
        return took_s
    attention_s = max(0.0, took_s - _step_s(points, n_sequences, 0))
    mask_s = _MASK_S * n_sequences**2 * n_depth_tokens
    return took_s + max(0.0, n_sequences - 1) * attention_s + mask_s


def _step_s(points: Sequence[DecodePoint], n_sequences: float, n_depth_tokens: float) -> float:
    by_count: dict[int, list[tuple[float, float]]] = {}
    for one in points:
        row = (float(one.n_depth_tokens), one.n_sequences / one.tokens_per_s)
        by_count.setdefault(one.n_sequences, []).append(row)
    steps = sorted((n, _at_depth(sorted(rows), n_depth_tokens)) for n, rows in by_count.items())
    return _interpolated(steps, n_sequences)


def _at_depth(points: Sequence[tuple[float, float]], depth: float) -> float:
    """Return the seconds at a depth, by the shallowest and the deepest point."""
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
