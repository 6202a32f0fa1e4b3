"""Choose the layout of a model's cache and the sizes of its batches by what was measured. Pure.

A unified cache shares a common beginning for nothing, but every token attends to the cells of all
sequences; in a split one each sequence has a stream of its own, into which a common beginning
must be copied. Which of them is quicker depends on device, model and job: both are estimated in
seconds, and the quicker one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .profile import Profile, prefill_s, step_s

# Places that a pool makes by default. In a split cache sequences do not slow one another: on 2
# cores with SmolLM2-135M, a step of 8 unrelated ones of 120 tokens took 32 ms, in a unified one
# 35 to 50.
CPU_PARALLEL = 8
GPU_PARALLEL, GPU_PARALLEL_MOST = 64, 128
_WORTH_PLACES = 1.15  # tokens a second that twice as many places must bring at least
_USUAL_DEPTH = 1024
# Seats beside the jobs' for chats. With one chat a second, each answered in some seconds beside
# eight jobs, up to four run at once.
MOST_RESERVED = 4
# Where memory holds fewer streams than that, one of so many is for chats alone.
_CHATS_SHARE = 4
UNPROFILED_TURN_TOKENS = 128  # 0.26 s at 500 tokens a second
LEAST_TURN_TOKENS = 16

_BATCHES = (64, 128, 256, 512, 1024, 2048)
# Estimates nearer to each other than this are equal: the measurement is no better.
_SAME = 0.08


@dataclass(frozen=True, slots=True)
class Workload:
    """What waits and runs; the token numbers are means over the requests."""

    n_sequences: int
    n_prompt_tokens: float
    n_answer_tokens: float
    n_shared_tokens: float = 0.0
    """Of the prompt, what all requests begin with."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a context is made, and how large its batches are."""

    is_unified: bool
    n_parallel: int
    n_batch_tokens: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a layout may use."""

    n_cells: int
    n_parallel_max: int
    n_batch_max: int
    is_gpu: bool = False
    n_stream_tokens: int = 0
    """Length of a stream in a split cache; 0: of a request."""


def choose(profile: Profile | None, workload: Workload, limits: Bounds) -> Layout:
    """Give the layout that finishes this work soonest.

    There are as many places as there may be: a step of more sequences has always made more tokens
    a second. Of layouts that are equal within the measurement's precision, the split one comes
    first, where sequences do not slow one another (the unified one where they share half of their
    prompts), then the larger batch.
    """
    if profile is None or not profile.prefill or not profile.decode:
        return _unmeasured(workload, limits)
    layouts = _layouts(workload, limits)
    rated = [(estimate(profile, workload, one, limits), one) for one in layouts]
    best_s = min(seconds for seconds, _ in rated)
    equal = [one for seconds, one in rated if seconds <= best_s * (1 + _SAME)]
    is_unified = _shares_much(workload)
    return max(equal, key=lambda one: (one.is_unified == is_unified, one.n_batch_tokens))


def n_reserved(n_parallel: int) -> int:
    """Return the number of seats that only chats may use, beside `n_parallel` for jobs."""
    return min(MOST_RESERVED, n_parallel // 2)


def streams(n_cells: int, n_each: int, n_parallel: int) -> tuple[int, int]:
    """Return the streams for jobs and those for chats alone in a split cache of `n_cells`.

    >>> streams(12 * 1024, 1024, 8), streams(8 * 1024, 1024, 8)
    ((8, 4), (6, 2))
    """
    n_streams = max(1, n_cells // n_each)
    n_spare = max(n_streams - n_parallel, n_streams // _CHATS_SHARE)
    n_chats = min(n_reserved(n_parallel), n_spare)
    return min(n_parallel, n_streams - n_chats), n_chats


def gpu_parallel(profile: Profile | None) -> int:
    """Return how many sequences a graphics device should compute at once, memory permitting."""
    if profile is None or not profile.decode:
        return GPU_PARALLEL
    usual_s, more_s = (
        step_s(profile, n, _USUAL_DEPTH, is_unified=False)
        for n in (GPU_PARALLEL, GPU_PARALLEL_MOST)
    )
    gain = GPU_PARALLEL_MOST / more_s / (GPU_PARALLEL / usual_s)
    return GPU_PARALLEL_MOST if gain >= _WORTH_PLACES else GPU_PARALLEL


def _layouts(workload: Workload, limits: Bounds) -> Iterator[Layout]:
    sizes = sorted({min(n, limits.n_batch_max) for n in _BATCHES})
    yield from (Layout(True, max(1, limits.n_parallel_max), size) for size in sizes)
    yield from (Layout(False, _n_streams(workload, limits), size) for size in sizes)


def _n_streams(workload: Workload, limits: Bounds) -> int:
    """Tell how many streams there can be that hold a whole request each."""
    each = max(workload.n_prompt_tokens + workload.n_answer_tokens, limits.n_stream_tokens, 1.0)
    return max(1, min(limits.n_parallel_max, int(limits.n_cells / each)))


def _unmeasured(workload: Workload, limits: Bounds) -> Layout:
    n_parallel = max(1, limits.n_parallel_max)
    fits = _n_streams(workload, limits) == n_parallel
    return Layout(_shares_much(workload) or not fits, n_parallel, limits.n_batch_max)


def _shares_much(workload: Workload) -> bool:
    return workload.n_sequences > 1 and workload.n_shared_tokens >= workload.n_prompt_tokens / 2


def estimate(profile: Profile, workload: Workload, layout: Layout, limits: Bounds) -> float:
    """Tell how many seconds the work takes in a layout; infinite where no request fits."""
    n_at_once = _n_at_once(workload, layout, limits)
    if n_at_once < 1:
        return float("inf")
    return _reading_s(profile, workload, layout, n_at_once) + _writing_s(
        profile, workload, layout, n_at_once
    )


def _n_at_once(workload: Workload, layout: Layout, limits: Bounds) -> float:
    """Tell how many of the requests run together."""
    own = workload.n_prompt_tokens - workload.n_shared_tokens + workload.n_answer_tokens
    n_most = float(min(workload.n_sequences, layout.n_parallel))
    if not layout.is_unified:
        # A stream cannot lend its cells to another.
        is_room = limits.n_cells // layout.n_parallel >= own + workload.n_shared_tokens
        return n_most if is_room else 0.0
    n_fit = (limits.n_cells - workload.n_shared_tokens) / max(1.0, own)
    return min(n_most, float(int(n_fit)))


def _reading_s(profile: Profile, workload: Workload, layout: Layout, n_at_once: float) -> float:
    own = workload.n_prompt_tokens - workload.n_shared_tokens
    n_tokens = workload.n_sequences * own + workload.n_shared_tokens
    size = max(1.0, min(layout.n_batch_tokens, n_tokens))
    n_before = 0.0
    if layout.is_unified:
        # While one prompt is read, the others are somewhere between beginning and end.
        n_before = (n_at_once - 1) * (own + workload.n_answer_tokens / 2)
    seconds = prefill_s(profile, size, n_cells_before=n_before) * n_tokens / size
    if layout.is_unified or profile.copy_s is None:
        return seconds
    return seconds + max(0, workload.n_sequences - 1) * workload.n_shared_tokens * profile.copy_s


def _writing_s(profile: Profile, workload: Workload, layout: Layout, n_at_once: float) -> float:
    own = workload.n_prompt_tokens - workload.n_shared_tokens + workload.n_answer_tokens / 2
    depth = own + workload.n_shared_tokens / (n_at_once if layout.is_unified else 1.0)
    n_steps = workload.n_sequences / n_at_once * workload.n_answer_tokens
    return n_steps * step_s(profile, n_at_once, depth, layout.is_unified)


def turn_tokens(profile: Profile | None, turn_s: float) -> int:
    """Give the largest number of prompt tokens whose turn takes at most `turn_s`.

    A multiple of 16, and at least 16: a smaller batch would waste the pass over the weights.
    """
    if profile is None or not profile.prefill:
        return UNPROFILED_TURN_TOKENS
    n_tokens = LEAST_TURN_TOKENS
    for candidate in range(LEAST_TURN_TOKENS, _BATCHES[-1] + 1, LEAST_TURN_TOKENS):
        if prefill_s(profile, candidate) > turn_s:
            break
        n_tokens = candidate
    return n_tokens


def seconds(profile: Profile, workload: Workload, limits: Bounds | None = None) -> float:
    """Tell how long this work takes in the layout that suits it, the model's load left out."""
    if not workload.n_sequences:
        return 0.0
    limits = limits or _roomy(workload, profile)
    return estimate(profile, workload, choose(profile, workload, limits), limits)


def _roomy(workload: Workload, profile: Profile) -> Bounds:
    """Bounds as a pool has them that was not told otherwise."""
    n_parallel = gpu_parallel(profile) if profile.is_gpu else CPU_PARALLEL
    each = int(workload.n_prompt_tokens + workload.n_answer_tokens) + 1
    return Bounds(n_parallel * each, n_parallel, 512, profile.is_gpu)
