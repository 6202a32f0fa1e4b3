"""Which branches a step computes, of sequences whose prompts are computed. Pure.

1. In a unified cache all branches of a prompt go into one step, each with a sequence id of its own,
   which shares the prompt's cells until the step is done.
2. In a split cache, or where one is longer than a step's rows, they have the prompt's id, and come
   one after the other, in parts.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from .scheduler_data import Sequence, SequencePiece
from .slots import Slots


def branch_pieces(
    running: Items[Sequence], answers: Items[SequencePiece], slots: Slots
) -> list[SequencePiece]:
    """Return the branches of a step beside `answers`: of whole prompts, unless not one's fit."""
    scored = [sequence for sequence in running if sequence.state == "score"]
    if not scored:
        return []
    limits, pieces = slots.limits, list[SequencePiece]()
    n_before = sum(len(piece.tokens) for piece in answers)
    n_rows = sum(piece.n_rows for piece in answers)
    n_rows += sum(sequence.state == "prefill" for sequence in running)
    n_left = min(limits.n_rows - n_rows, limits.n_batch_tokens - n_before)
    n_left = min(n_left, slots.cells.n_free - n_before) if limits.is_unified else n_left
    ids = list(limits.branch_ids)
    for sequence in scored:
        lengths = [len(branch.tokens) for branch in sequence.branches]
        if not limits.branch_ids or max(lengths) > limits.most_drafts:  # 2.
            found = _next_part(sequence, min(n_left, slots.cells.n_free_for(sequence.seq_id)))
        elif pieces and (sum(lengths) > n_left or len(lengths) > len(ids)):
            continue
        else:  # 1.
            found = _branches_at_once(sequence, n_left, ids, slots)
        pieces += found
        n_left -= sum(len(piece.tokens) for piece in found)
    return pieces


def _branches_at_once(
    sequence: Sequence, n_left: int, ids: list[int], slots: Slots
) -> list[SequencePiece]:
    pieces = list[SequencePiece]()
    for branch in sequence.branches:
        n_tokens, start = len(branch.tokens), len(sequence.prompt)
        if n_tokens > n_left or not ids:
            break
        branch_id = ids.pop(0)
        slots.open_branch(sequence, branch_id)
        pieces.append(SequencePiece(sequence, branch.tokens, start, n_tokens, branch, branch_id))
        n_left -= n_tokens
    return pieces


def _next_part(sequence: Sequence, n_most: int) -> list[SequencePiece]:
    branch = sequence.branches[0]
    tokens = branch.tokens[branch.n_done :][: max(0, n_most)]
    if not len(tokens):
        return []
    return [SequencePiece(sequence, tokens, sequence.n_computed, len(tokens), branch)]
