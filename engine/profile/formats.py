"""Which tensor formats a processor is quick with: measured on trial models, told as a promise.

The promise says how much sooner a job would be done with a near-lossless copy in another format.
It changes only what is measured of the matrices; attention and the rest stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paddock.engine.gguf import TYPE_NAMES, Header

from .choice import Workload, seconds
from .profile import DecodePoint, FormatPoint, PrefillPoint, Profile, Weights

NEAR_LOSSLESS = "Q8_0"
# Below it, a copy is not worth its place on the disk.
WORTHWHILE = 1.3
# One token alone, some sequences together, a piece of a prompt.
ROWS = (1, 8, 256)

_LEAST_SHARE = 0.02  # of the weights: rarer formats cannot change much
# What stays of a measured time at least: a trial can err, but not turn time back.
_FLOOR = 0.2

DOCUMENTS = Workload(n_sequences=16, n_prompt_tokens=700, n_answer_tokens=80, n_shared_tokens=60)
"""What is promised for where no job is at hand: short answers about longer texts."""


def census(header: Header) -> tuple[Weights, ...]:
    """Count the weights that a token goes through, by format, the most frequent first."""
    layers: dict[str, float] = {}
    head: dict[str, float] = {}
    names = {tensor.name for tensor in header.tensors}
    head_name = "output.weight" if "output.weight" in names else "token_embd.weight"
    active = _active_share(header)
    for tensor in header.tensors:
        name = TYPE_NAMES.get(tensor.kind, f"type {tensor.kind}")
        if tensor.name == head_name:
            head[name] = head.get(name, 0.0) + tensor.n_weights
        elif len(tensor.axes) >= 2 and tensor.name.startswith("blk."):
            share = active if "_exps." in tensor.name else 1.0
            layers[name] = layers.get(name, 0.0) + tensor.n_weights * share
    every = sorted({**layers, **head}, key=lambda name: -layers.get(name, 0.0))
    return tuple(Weights(name, layers.get(name, 0.0), head.get(name, 0.0)) for name in every)


def _active_share(header: Header) -> float:
    """Tell which share of a mixture's experts a token goes through."""
    n_experts = header.number("expert_count")
    return header.number("expert_used_count", n_experts) / n_experts if n_experts else 1.0


def wanted(weights: tuple[Weights, ...]) -> tuple[str, ...]:
    """Name the formats whose speeds are needed for a promise."""
    n_all = sum(one.n_layers for one in weights)
    present = [one.format for one in weights if one.n_layers > _LEAST_SHARE * n_all]
    return tuple(dict.fromkeys([*present, NEAR_LOSSLESS]))


def promise(profile: Profile, workload: Workload, format_name: str = NEAR_LOSSLESS) -> float | None:
    """Tell how many times as fast a copy in `format_name` would do the work; None: not known."""
    tuned = promised(profile, format_name)
    if tuned is None or not profile.prefill or not profile.decode:
        return None
    before, after = seconds(profile, workload), seconds(tuned, workload)
    return before / after if after > 0 else None


def reading_promise(profile: Profile, format_name: str = NEAR_LOSSLESS) -> float | None:
    """Tell how many times as fast a copy would read prompts, in large batches."""
    tuned = promised(profile, format_name)
    if tuned is None:
        return None
    pairs = [
        (old.n_batch_tokens, new.tokens_per_s / old.tokens_per_s)
        for old, new in zip(profile.prefill, tuned.prefill, strict=True)
        if not old.n_cells_before
    ]
    return max(pairs)[1] if pairs else None


def promised(profile: Profile, format_name: str) -> Profile | None:
    """Give the profile that a copy in `format_name` would have; None where nothing is known."""
    costs: dict[str, dict[int, float]] = {}
    for one in profile.formats:
        costs.setdefault(one.format, {})[one.n_rows] = one.seconds
    target = costs.get(format_name)
    if target is None or not profile.weights:
        return None
    moving = [one for one in profile.weights if one.format in costs and one.format != format_name]

    def saved_s(n_rows: int, *, with_head: bool) -> float:
        total = 0.0
        for one in moving:
            n_weights = one.n_layers + (one.n_head if with_head else 0.0)
            gain = _at(costs[one.format], n_rows) - _at(target, n_rows)
            total += n_weights / 1e9 * gain
        return total

    return replace(
        profile,
        prefill=tuple(
            _read_faster(one, saved_s(one.n_batch_tokens, with_head=False))
            for one in profile.prefill
        ),
        decode=tuple(
            _written_faster(one, saved_s(one.n_sequences, with_head=True)) for one in profile.decode
        ),
    )


def _read_faster(point: PrefillPoint, saved_s: float) -> PrefillPoint:
    before = point.n_batch_tokens / point.tokens_per_s
    after = max(before - saved_s, before * _FLOOR)
    return replace(point, tokens_per_s=point.n_batch_tokens / after)


def _written_faster(point: DecodePoint, saved_s: float) -> DecodePoint:
    before = point.n_sequences / point.tokens_per_s
    after = max(before - saved_s, before * _FLOOR)
    return replace(point, tokens_per_s=point.n_sequences / after)


def _at(costs: Mapping[int, float], n_rows: int) -> float:
    """Give the seconds for so many rows, on the line between the measured ones."""
    points = sorted(costs.items())
    low, low_s = points[0]
    for high, high_s in points[1:]:
        if n_rows <= high:
            return low_s + (high_s - low_s) * (max(n_rows, low) - low) / (high - low)
        low, low_s = high, high_s
    return low_s * n_rows / low


def points_of(
    format_name: str, seconds_by_rows: Mapping[int, float], n_weights: int
) -> tuple[FormatPoint, ...]:
    """Scale a trial's seconds to 10⁹ weights."""
    return tuple(
        FormatPoint(format_name, n_rows, took_s * 1e9 / n_weights)
        for n_rows, took_s in seconds_by_rows.items()
    )
