"""Numerics of an answer: all by which its logits may have been rounded otherwise. Pure.

Kernels add in another order when rows share a step, when a prompt is read in other pieces, and in
flash attention on a processor also by the number of threads, which falls while other programs use
the processor (`ThreadGovernor`). Then a greedy answer may take another token. Where a profile found
the same logits bit for bit (`Agreement`), none of this counts.

Cells keep the circumstances in which they were computed, since a later prompt may reuse them. An
answer's fingerprint is a digest of the configuration, of the circumstances of all its cells and,
where pieces count, of how much of its prompt was computed after a part from the cache. Equal
requests with equal fingerprints get equal greedy answers.
"""

from __future__ import annotations

import hashlib

from paddock.engine.profile.profile import Agreement

from .context_limits import ContextLimits
from .scheduler_data import CellMarks, Circumstances, ScheduledStep

# llama.cpp pads the cells that a step reads to 256. From 512 on, flash attention on a processor
# divides a single token's cells among the threads.
LEAST_DIVIDED_CELLS = 257
_CELLS_EACH = 256


def circumstances(
    step: ScheduledStep,
    limits: ContextLimits,
    agreement: Agreement,
    n_cells_used: int,
    fewer_threads: int = 0,
) -> tuple[Circumstances, ...]:
    """Return the circumstances of each piece of a step; empty ones change nothing.

    `n_cells_used`: of all sequences, before the step. `fewer_threads`: the number of threads where
    it is not the configured one, else 0.
    """
    found: list[Circumstances] = []
    n_before = 0
    n_tokens = step.n_tokens
    for piece in step.pieces:
        values = list[object]()
        n_cells = n_cells_used if limits.is_unified else piece.start
        # A profile may have been made with shorter prompts.
        is_divided = limits.is_flash and not limits.is_gpu and n_cells + 1 >= LEAST_DIVIDED_CELLS
        if not agreement.company:
            values.append(("pieces", *step.prompt_budget))
            if n_cells > piece.start:
                values.append(("cells", n_cells // _CELLS_EACH))
            if len(step.pieces) > 1:
                values.append(("beside", n_tokens, n_before))
            if step.padding:
                values.append(("padding", *((p.seq_id, p.n_tokens) for p in step.padding)))
        if piece.n_drafts and (is_divided or not agreement.drafts):
            values.append(("drafts", piece.n_drafts))
        if fewer_threads and n_tokens == 1 and is_divided:
            values.append(("threads", fewer_threads))
        found.append(tuple(values))
        n_before += len(piece.tokens)
    return tuple(found)


def fingerprint_numerics(
    configuration: object, limits: ContextLimits, marks: CellMarks, n_after_reused: int = 0
) -> str:
    """Return the fingerprint of an answer whose cells have these marks.

    `n_after_reused`: tokens of its prompt that were computed; 0 where all were, or pieces do not
    count.
    """
    layout = (limits.is_flash, limits.is_unified if limits.is_gpu else None)
    # In the same circumstances throughout, an answer's length says nothing.
    places = marks if len(marks) > 1 else tuple(value for _, value in marks)
    digest = hashlib.sha256(repr((configuration, layout, places, n_after_reused)).encode())
    return f"fp_{digest.hexdigest()[:10]}"
