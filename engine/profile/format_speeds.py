"""Speeds of tensor formats on this processor, and what a tuned copy would gain. Pure.

A tuned copy changes only tensors in slow formats; the others stay bit for bit. Predictions are for
a copy in Q8_0. They use the speeds of matrices, measured on trial models; attention and the rest
count as unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from paddock.engine.gguf import TYPE_NAMES, GgufHeader, GgufTensor
from paddock.engine.system.light_dataclasses import dataclass, replace

from .context_layout import Workload, workload_s
from .profile import DecodePoint, FormatPoint, PrefillPoint, Profile, Weights

_Point = TypeVar("_Point", PrefillPoint, DecodePoint)

NEAR_LOSSLESS = "Q8_0"
# Formats that are finer than Q8_0: changing them is a loss, and done only on request.
_FINER_FORMATS = frozenset(["F64", "F32", "F16", "BF16", NEAR_LOSSLESS])
# A smaller gain is not worth a change: the noise of two measurements is half of it.
USEFUL_GAIN = 1.1
# Below it, a copy is not worth its disk space.
WORTHWHILE_GAIN = 1.3
# One token alone, some sequences together, a piece of a prompt.
MEASURED_ROWS = (1, 8, 256)

_LEAST_WEIGHT_SHARE = 0.02  # of the weights: rarer formats cannot change much
# Least predicted share of a measured time: trials have errors.
_LEAST_TIME_SHARE = 0.2

MOST_WEIGHTS_IN_F16 = 5 * 10**8
"""Largest model of which a copy may be in F16: 1 GB, all of which is read for each token."""
MOST_WEIGHTS_JUDGED = 2 * 10**9
"""Largest model of which a copy is compared with exact arithmetic, which takes another copy of
4 GB and minutes."""

DOCUMENT_WORKLOAD = Workload(
    n_sequences=16, n_prompt_tokens=700, n_answer_tokens=80, n_shared_tokens=60
)
"""The workload of predictions without a job: short answers about longer texts."""


@dataclass(frozen=True, slots=True)
class SlowFormats:
    """Formats in which this device computes a matrix more slowly than in the near-lossless one.

    The layers compute every token of a prompt, the head only the last one, and both every token of
    an answer. So a format can be slow in one of them only.
    """

    layers: frozenset[str] = frozenset()
    head: frozenset[str] = frozenset()


def slow_formats(points: Iterable[FormatPoint]) -> SlowFormats:
    """Return the formats of fewer bits than Q8_0 that take longer for documents by `USEFUL_GAIN`.

    A format that was not measured is not slow.
    """
    costs = _seconds_by_format(points)
    if NEAR_LOSSLESS not in costs:
        return SlowFormats()
    layers_s = {name: _document_s(at, with_prompt=True) for name, at in costs.items()}
    head_s = {name: _document_s(at, with_prompt=False) for name, at in costs.items()}
    return SlowFormats(_slower(layers_s), _slower(head_s))


def _slower(seconds_by_format: Mapping[str, float]) -> frozenset[str]:
    limit_s = USEFUL_GAIN * seconds_by_format[NEAR_LOSSLESS]
    slow = (name for name, took_s in seconds_by_format.items() if took_s > limit_s)
    return frozenset(slow) - _FINER_FORMATS


def _document_s(costs: Mapping[int, float], *, with_prompt: bool) -> float:
    """Return what 10⁹ weights take for a document of `DOCUMENT_WORKLOAD`."""
    job = DOCUMENT_WORKLOAD
    passes = (job.n_prompt_tokens - job.n_shared_tokens) / MEASURED_ROWS[-1] if with_prompt else 0.0
    steps = job.n_answer_tokens / job.n_sequences
    return passes * _seconds_at(costs, MEASURED_ROWS[-1]) + steps * _seconds_at(
        costs, job.n_sequences
    )


def slow_tensors(header: GgufHeader, slow: SlowFormats) -> frozenset[str]:
    """Return the names of the tensors that a copy should change.

    The embedding table is looked up, not multiplied: it stays unless it is also the head.
    """
    formats = {"layers": slow.layers, "head": slow.head}
    head_name = _head_name(header)
    return frozenset(
        tensor.name
        for tensor in header.tensors
        if (place := _tensor_place(tensor, head_name)) and _format_name(tensor) in formats[place]
    )


def may_be_f16(header: GgufHeader) -> bool:
    """Return whether a model is small enough for a tuned copy in F16."""
    return sum(tensor.n_weights for tensor in header.tensors) <= MOST_WEIGHTS_IN_F16


def can_be_judged(header: GgufHeader) -> bool:
    """Return whether a model is small enough for a comparison with exact arithmetic."""
    return sum(tensor.n_weights for tensor in header.tensors) <= MOST_WEIGHTS_JUDGED


def count_weights(header: GgufHeader) -> tuple[Weights, ...]:
    """Count the weights that a token is multiplied by, by format, most frequent first."""
    layers: dict[str, float] = {}
    head: dict[str, float] = {}
    head_name = _head_name(header)
    # The share of a mixture's experts that a token uses
    n_experts = header.number("expert_count")
    active = header.number("expert_used_count", n_experts) / n_experts if n_experts else 1.0
    for tensor in header.tensors:
        name, place = _format_name(tensor), _tensor_place(tensor, head_name)
        if place == "head":
            head[name] = head.get(name, 0.0) + tensor.n_weights
        elif place == "layers":
            share = active if "_exps." in tensor.name else 1.0
            layers[name] = layers.get(name, 0.0) + tensor.n_weights * share
    every = sorted({**layers, **head}, key=lambda name: -layers.get(name, 0.0))
    return tuple(Weights(name, layers.get(name, 0.0), head.get(name, 0.0)) for name in every)


def _head_name(header: GgufHeader) -> str:
    names = {tensor.name for tensor in header.tensors}
    return "output.weight" if "output.weight" in names else "token_embd.weight"


def _tensor_place(tensor: GgufTensor, head_name: str) -> Literal["layers", "head", ""]:
    """Return where a tensor is multiplied; "" if it is not."""
    if tensor.name == head_name:
        return "head"
    is_matrix = len(tensor.axes) >= 2 and tensor.name.startswith("blk.")
    return "layers" if is_matrix else ""


def _format_name(tensor: GgufTensor) -> str:
    return TYPE_NAMES.get(tensor.kind, f"type {tensor.kind}")


def formats_to_measure(weights: tuple[Weights, ...]) -> tuple[str, ...]:
    n_all = sum(weight.n_layers + weight.n_head for weight in weights)
    present = [
        weight.format
        for weight in weights
        if weight.n_layers + weight.n_head > _LEAST_WEIGHT_SHARE * n_all
    ]
    return tuple(dict.fromkeys([*present, NEAR_LOSSLESS]))


def predicted_gain(
    profile: Profile, workload: Workload, format_name: str | None = None
) -> float | None:
    """Return how many times as fast a copy would do the work; None if unknown.

    In the copy every matrix is in `format_name`; None: it is a tuned copy.
    """
    tuned = predicted_profile(profile, format_name)
    if tuned is None or not profile.prefill or not profile.decode:
        return None
    before, after = workload_s(profile, workload), workload_s(tuned, workload)
    return before / after if after > 0 else None


def predicted_prompt_gain(profile: Profile) -> float | None:
    """Return how many times as fast a tuned copy would read prompts, in large batches."""
    tuned = predicted_profile(profile)
    if tuned is None:
        return None
    pairs = [
        (old.n_batch_tokens, new.tokens_per_s / old.tokens_per_s)
        for old, new in zip(profile.prefill, tuned.prefill, strict=True)
        if not old.n_cells_before
    ]
    return max(pairs)[1] if pairs else None


def predicted_profile(profile: Profile, format_name: str | None = None) -> Profile | None:
    """Return the profile of a copy (see `predicted_gain`), or None if unknown."""
    costs = _seconds_by_format(profile.formats)
    target = costs.get(format_name or NEAR_LOSSLESS)
    if target is None or not profile.weights:
        return None
    every = frozenset(costs) - {format_name}
    slow = SlowFormats(every, every) if format_name else slow_formats(profile.formats)

    def saved_s(n_rows: int, with_head: bool) -> float:
        total = 0.0
        for weight in profile.weights:
            n_weights = weight.n_layers if weight.format in slow.layers else 0.0
            n_weights += weight.n_head if with_head and weight.format in slow.head else 0.0
            if not n_weights:
                continue
            gain = _seconds_at(costs[weight.format], n_rows) - _seconds_at(target, n_rows)
            total += n_weights / 1e9 * gain
        return total

    def faster(point: _Point, n_rows: int, *, with_head: bool) -> _Point:
        before_s = n_rows / point.tokens_per_s
        after_s = max(before_s - saved_s(n_rows, with_head), before_s * _LEAST_TIME_SHARE)
        return replace(point, tokens_per_s=n_rows / after_s)

    return replace(
        profile,
        prefill=tuple(
            faster(point, point.n_batch_tokens, with_head=False) for point in profile.prefill
        ),
        decode=tuple(faster(point, point.n_sequences, with_head=True) for point in profile.decode),
    )


def _seconds_by_format(points: Iterable[FormatPoint]) -> dict[str, dict[int, float]]:
    costs: dict[str, dict[int, float]] = {}
    for point in points:
        costs.setdefault(point.format, {})[point.n_rows] = point.seconds
    return costs


def _seconds_at(costs: Mapping[int, float], n_rows: int) -> float:
    points = sorted(costs.items())
    low, low_s = points[0]
    for high, high_s in points[1:]:
        if n_rows <= high:
            return low_s + (high_s - low_s) * (max(n_rows, low) - low) / (high - low)
        low, low_s = high, high_s
    return low_s * n_rows / low
