"""Choose the layout of a model's KV cache and the sizes of its batches from its profile. Pure.

A unified cache shares prefixes for free, but every token attends to the cells of all sequences; in
a split one each sequence has a stream of its own, into which a shared prefix must be copied. Which
is quicker depends on device, model and job: both are estimated, and the quicker one is chosen.

Neither flash attention nor the type of the cells is chosen by the job: both change answers.
"""

from __future__ import annotations

from itertools import takewhile

from paddock.engine.system.records import Struct

from .profile import Profile, prefill_s, step_s

# Default numbers of parallel jobs. In a split cache sequences do not slow one another: on 2 cores
# with SmolLM2-135M, a step of 8 unrelated ones of 120 tokens took 32 ms, in a unified one 35 to 50.
CPU_PARALLEL = 8
GPU_PARALLEL, GPU_PARALLEL_MOST = 64, 128
_WORTH_MORE_SEQUENCES = 1.15  # least gain in tokens a second by twice as many sequences
_USUAL_DEPTH = 1024
# Slots for chats alone. With one chat a second, each answered in some seconds along with eight
# jobs, up to four run at once; beside 64 jobs of a graphics device with two a second up to eight.
CHAT_SLOTS, JOBS_PER_CHAT_SLOT = 4, 8
# If memory holds fewer streams, one of this many is for chats alone.
_CHATS_SHARE = 4
UNPROFILED_TURN_TOKENS = 128  # 0.26 s at 500 tokens a second
LEAST_TURN_TOKENS = 16

CPU_BATCH, GPU_BATCH = 512, 2048
# Sizes of a pass on a graphics device. Several devices work on several passes of one batch at once.
GPU_PASSES = (512, 1024, 2048)

_BATCHES = (64, 128, 256, 512, 1024, 2048)
# Estimates that differ by less count as equal: the measurement is not more precise.
_EQUAL_WITHIN = 0.08


class Workload(Struct, frozen=True):
    """Requests that wait and run; the token numbers are means over them."""

    n_sequences: int
    n_prompt_tokens: float
    n_answer_tokens: float
    n_shared_tokens: float = 0.0


class ContextLayout(Struct, frozen=True):
    is_unified: bool
    n_parallel: int
    n_batch_tokens: int
    n_pass_tokens: int = 0
    """Tokens of a batch that are computed in one pass (llama.cpp's ubatch); 0: all."""


class LayoutBounds(Struct, frozen=True):
    n_cells: int
    n_parallel_max: int
    n_batch_max: int
    is_gpu: bool = False
    n_stream_tokens: int = 0
    n_devices: int = 1
    n_pass_max: int = 0
    """Most tokens of a pass that memory allows; 0: a whole batch."""


def choose_layout(
    profile: Profile | None, workload: Workload, limits: LayoutBounds
) -> ContextLayout:
    """Return the layout that finishes this work soonest.

    It has as many parallel sequences as allowed: a step of more sequences has always made more
    tokens a second. Of layouts that are equal within the measurement's precision, the split one is
    preferred, where sequences do not slow one another (on a processor the unified one if
    they share half of their prompts), then the larger batch.
    """
    if profile is None or not profile.prefill or not profile.decode:
        n_parallel = max(1, limits.n_parallel_max)
        fits = _n_streams(workload, limits) == n_parallel
        is_unified = _shares_much(workload, limits) or not fits
        return ContextLayout(
            is_unified,
            n_parallel,
            limits.n_batch_max,
            n_tokens_per_pass(None, limits, limits.n_batch_max, is_unified=is_unified),
        )
    counts = {True: max(1, limits.n_parallel_max), False: _n_streams(workload, limits)}
    sizes = sorted({min(n, limits.n_batch_max) for n in _BATCHES})
    layouts = [
        ContextLayout(
            is_unified, n, size, n_tokens_per_pass(profile, limits, size, is_unified=is_unified)
        )
        for is_unified, n in counts.items()
        for size in sizes
    ]
    rated = [
        (workload_in_layout_s(profile, workload, layout, limits), layout) for layout in layouts
    ]
    best_s = min(seconds for seconds, _ in rated)
    equal = [layout for seconds, layout in rated if seconds <= best_s * (1 + _EQUAL_WITHIN)]
    is_unified = _shares_much(workload, limits)
    return max(equal, key=lambda layout: (layout.is_unified == is_unified, layout.n_batch_tokens))


def n_chat_slots(n_parallel: int) -> int:
    return max(min(CHAT_SLOTS, n_parallel // 2), n_parallel // JOBS_PER_CHAT_SLOT)


def split_streams(n_cells: int, n_each: int, n_parallel: int) -> tuple[int, int]:
    """Return the streams for jobs and those for chats alone in a split cache of `n_cells`.

    >>> split_streams(12 * 1024, 1024, 8), split_streams(8 * 1024, 1024, 8)
    ((8, 4), (6, 2))
    """
    n_streams = max(1, n_cells // n_each)
    n_spare = max(n_streams - n_parallel, n_streams // _CHATS_SHARE)
    n_chats = min(n_chat_slots(n_parallel), n_spare)
    return min(n_parallel, n_streams - n_chats), n_chats


def gpu_parallel(profile: Profile | None) -> int:
    """Return how many sequences a graphics device should compute at once, memory permitting."""
    if profile is None or not profile.decode:
        return GPU_PARALLEL
    usual_s, most_s = (
        step_s(profile, n, _USUAL_DEPTH, is_unified=False)
        for n in (GPU_PARALLEL, GPU_PARALLEL_MOST)
    )
    gain = GPU_PARALLEL_MOST / most_s / (GPU_PARALLEL / usual_s)
    return GPU_PARALLEL_MOST if gain >= _WORTH_MORE_SEQUENCES else GPU_PARALLEL


def n_tokens_per_pass(
    profile: Profile | None, limits: LayoutBounds, n_batch_tokens: int, *, is_unified: bool
) -> int:
    """Return how many tokens of a batch are computed in one pass; 0: all.

    On one graphics device the quickest measured size, the smaller of equal ones; on several devices
    the smallest, so that each has a pass to work on. Also the smallest in a unified cache, since a
    mask has a row for each token of a pass and a column for each cell.
    """
    if not limits.is_gpu or n_batch_tokens <= GPU_PASSES[0]:
        return 0
    if profile is None or limits.n_devices > 1 or is_unified:
        return GPU_PASSES[0]
    n_most = min(n_batch_tokens, limits.n_pass_max or n_batch_tokens)
    sizes = [size for size in GPU_PASSES if size <= n_most]
    each_s = {size: prefill_s(profile, size) / size for size in sizes}
    best_s = min(each_s.values())
    return min(size for size in sizes if each_s[size] <= best_s * (1 + _EQUAL_WITHIN))


def _n_streams(workload: Workload, limits: LayoutBounds) -> int:
    each = max(workload.n_prompt_tokens + workload.n_answer_tokens, limits.n_stream_tokens, 1.0)
    return max(1, min(limits.n_parallel_max, int(limits.n_cells / each)))


def _shares_much(workload: Workload, limits: LayoutBounds) -> bool:
    if limits.is_gpu:  # 64 sequences of a unified cache took 24 ms a step, in streams 14
        return False
    return workload.n_sequences > 1 and workload.n_shared_tokens >= workload.n_prompt_tokens / 2


def workload_in_layout_s(
    profile: Profile, workload: Workload, layout: ContextLayout, limits: LayoutBounds
) -> float:
    n_at_once = _n_at_once(workload, layout, limits)
    if n_at_once < 1:
        return float("inf")
    own = workload.n_prompt_tokens - workload.n_shared_tokens + workload.n_answer_tokens / 2
    depth = own + workload.n_shared_tokens / (n_at_once if layout.is_unified else 1.0)
    n_steps = workload.n_sequences / n_at_once * workload.n_answer_tokens
    each_s = step_s(profile, n_at_once, depth, layout.is_unified)
    writing_s = n_steps * each_s
    return _reading_s(profile, workload, layout, n_at_once) + writing_s


def _n_at_once(workload: Workload, layout: ContextLayout, limits: LayoutBounds) -> float:
    own = workload.n_prompt_tokens - workload.n_shared_tokens + workload.n_answer_tokens
    n_most = float(min(workload.n_sequences, layout.n_parallel))
    if not layout.is_unified:
        # Streams do not share cells.
        is_room = limits.n_cells // layout.n_parallel >= own + workload.n_shared_tokens
        return n_most if is_room else 0.0
    n_fit = (limits.n_cells - workload.n_shared_tokens) / max(1.0, own)
    return min(n_most, float(int(n_fit)))


def _reading_s(
    profile: Profile, workload: Workload, layout: ContextLayout, n_at_once: float
) -> float:
    own = workload.n_prompt_tokens - workload.n_shared_tokens
    n_tokens = workload.n_sequences * own + workload.n_shared_tokens
    size = max(1.0, min(layout.n_batch_tokens, n_tokens))
    n_before = 0.0
    if layout.is_unified:
        # While one prompt is read, the others are half done on average.
        n_before = (n_at_once - 1) * (own + workload.n_answer_tokens / 2)
    batch_s = prefill_s(profile, size, n_cells_before=n_before)
    if layout.n_pass_tokens and layout.n_pass_tokens < size:
        n_passes = size / layout.n_pass_tokens
        batch_s = n_passes * prefill_s(profile, layout.n_pass_tokens, n_cells_before=n_before)
    seconds = batch_s * n_tokens / size
    if layout.is_unified or profile.copy_s is None:
        return seconds
    return seconds + max(0, workload.n_sequences - 1) * workload.n_shared_tokens * profile.copy_s


def turn_tokens(profile: Profile | None, turn_s: float, *, is_gpu: bool = False) -> int:
    """Return the largest number of prompt tokens whose step takes at most `turn_s`.

    A multiple of 16, and at least 16: a smaller batch would waste the pass over the weights.
    """
    if profile is None or not profile.prefill:
        return GPU_PASSES[0] if is_gpu else UNPROFILED_TURN_TOKENS
    sizes = range(LEAST_TURN_TOKENS, _BATCHES[-1] + 1, LEAST_TURN_TOKENS)
    in_time = takewhile(lambda n_tokens: prefill_s(profile, n_tokens) <= turn_s, sizes)
    return max(in_time, default=LEAST_TURN_TOKENS)


def workload_s(profile: Profile, workload: Workload) -> float:
    if not workload.n_sequences:
        return 0.0
    n_parallel = gpu_parallel(profile) if profile.is_gpu else CPU_PARALLEL
    each = int(workload.n_prompt_tokens + workload.n_answer_tokens) + 1
    n_batch = GPU_BATCH if profile.is_gpu else CPU_BATCH
    limits = LayoutBounds(n_parallel * each, n_parallel, n_batch, profile.is_gpu)
    return workload_in_layout_s(profile, workload, choose_layout(profile, workload, limits), limits)
