"""Scheduler: choose what the next decode computes. Pure: no threads, no llama_cpp, no clock.

Decode first, then pieces of prompts up to the token budget, so that running sequences never stall
behind a long prompt (`share_token_budget` divides the budget among the prompts). A sequence is
admitted when cells are free for its missing prompt and a slice of its answer. When cells run out
all the same, the youngest sequence of the lowest priority is preempted: it goes back into the queue
with its tokens. A prompt reuses the longest prefix in the cache, and waits for one that is being
computed; jobs with the longest cached prefix go first.

A scheduler that decides and a loop that acts is nano-vllm's idea
(github.com/GeeeekExplorer/nano-vllm, engine/scheduler.py), which prefills first, however;
preemption by recomputing is vLLM's.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from itertools import pairwise

import numpy as np

from paddock.engine.chat.prompt_overflow import cut_middle
from paddock.engine.profile.profile import Agreement
from paddock.engine.request import PRIORITY_RANK

from .answer_scores import branch_pieces
from .context_limits import LEAST_PIECE_TOKENS, MOST_DRAFTS, ContextLimits
from .numerics import circumstances
from .prefix_cache import shared_prefix_length
from .scheduler_data import Branch, CacheOperation, Padding, ScheduledStep, Sequence, SequencePiece
from .slots import PrefixSource, SlotMigration, Slots

# A long job leaves half of a step to the others, and a long chat a quarter.
CHAT_BUDGET_SHARE, JOB_BUDGET_SHARE = 0.75, 0.5

# However slow the machine, a step has this many prompt tokens.
LEAST_READ_TOKENS = 16

# Cells reserved for the next tokens of an answer; the rest of it is not reserved.
ANSWER_SLICE_TOKENS = 64

# Waiting for a prefix that another sequence is computing pays from this length on.
WORTH_WAITING_TOKENS = 32

# For this long after a chat the next one is expected, and steps are kept short.
CHAT_EXPECTED_S = 30.0

# No other sequence overtakes one that is overdue this long.
OVERDUE_S = 60.0

# Prefixes whose lengths differ by less than this count as equal.
SAME_PREFIX_TOKENS = 32

# Steps of prompts alone before one of answers, if no client streams these; of prompts' steps each
# so many begins with the shortest prompt.
MOST_PROMPT_TURNS, SHORTEST_EVERY = 8, 4

# Most prompts of one pass, and most streams between two answers that are filled up: a pass of its
# own costs a device as much as some thirty more streams.
MOST_PROMPTS_OF_A_PASS, MOST_PADDED_STREAMS = 32, 24

# Tokens that a device's kernels multiply at once: on an H200 passes of 600, 640, 1,800 and 1,920
# tokens take 11 ms for each 128 or a part of them.
BLOCK_TOKENS = 128

# A job that was put back so often keeps its place from then on.
MOST_PREEMPTIONS = 3


class StepSizer:
    def __init__(self, step_s: float = float("inf"), s_per_token: float = 0.0) -> None:
        self._step_s = step_s
        self._s_per_token = s_per_token

    def note(self, n_tokens: int, seconds: float) -> None:
        if n_tokens >= LEAST_READ_TOKENS:  # fewer take nearly as long
            self._s_per_token = seconds / n_tokens

    @property
    def n_most_tokens(self) -> int:
        most = self._step_s / max(self._s_per_token, 1e-9)
        return int(max(LEAST_READ_TOKENS, min(most, 1 << 30)))


def share_token_budget(
    prompts: Iterable[Sequence],
    budget: int,
    *,
    is_turn_of_shortest: bool = False,
    n_least: int = LEAST_PIECE_TOKENS,
) -> list[tuple[Sequence, int]]:
    """Return how many tokens of each prompt are computed now.

    Chats come before jobs, the older before the younger. The first gets at most its share of the
    budget while others wait; the rest goes to the shortest, which are soon done, and then to the
    first again. So a long prompt neither blocks the others nor is blocked. One that fits is read
    whole where the rest would finish no other. If the budget is too small to be shared, the
    shortest and the first take turns (`is_turn_of_shortest`). No piece is shorter than `n_least`,
    except the last of a prompt.
    """
    order = _in_turn(prompts, is_turn_of_shortest=is_turn_of_shortest and budget < 2 * n_least)
    if not order or budget <= 0:
        return []
    first, *others = order
    share = CHAT_BUDGET_SHARE if first.priority == "interactive" else JOB_BUDGET_SHARE
    cap = max(n_least, int(budget * share)) if others else budget
    if first.n_missing <= budget and all(other.n_missing > budget - cap for other in others):
        cap = budget  # pieces of several prompts take several passes: 5 % longer for documents
    shares = {first: min(first.n_missing, cap, budget)}
    left = budget - shares[first]
    for other in sorted(
        others, key=lambda sequence: (sequence.priority != "interactive", sequence.n_missing)
    ):
        is_worth_it = left >= min(n_least, other.n_missing)
        shares[other] = min(other.n_missing, left) if is_worth_it else 0
        left -= shares[other]
    shares[first] += min(left, first.n_missing - shares[first])
    return list(shares.items())


def _in_turn(prompts: Iterable[Sequence], *, is_turn_of_shortest: bool) -> list[Sequence]:
    """Return prompts in their order: chats before jobs, then the older or the shorter first."""
    order = sorted(
        prompts, key=lambda sequence: (sequence.priority != "interactive", sequence.rank)
    )
    if is_turn_of_shortest:
        order.sort(key=lambda sequence: (sequence.priority != "interactive", sequence.n_missing))
    return order


def share_pass(
    prompts: Iterable[Sequence],
    budget: int,
    limits: ContextLimits,
    *,
    is_turn_of_shortest: bool = False,
) -> list[tuple[Sequence, int]]:
    """Return how many tokens of each prompt one pass over streams computes.

    llama.cpp takes equally many tokens of each of some streams that follow one another, so shorter
    pieces are filled up (`limits.may_pad`); others get passes of their own. The first prompt, or
    the shortest in turns, is always among them, and read to its end if the budget allows, unless
    the next passes are full in any case. Of all choices the one that computes the most tokens a
    second is taken: a device multiplies blocks of `BLOCK_TOKENS`, a part of one as long as a whole.
    """
    order = _in_turn(prompts, is_turn_of_shortest=is_turn_of_shortest)
    if not order or budget <= 0:
        return []
    first, by_id = order[0], {prompt.seq_id: prompt for prompt in order}
    near = [first]
    for direction in (1, -1):
        seq_id = first.seq_id + direction
        while seq_id in by_id and len(near) < MOST_PROMPTS_OF_A_PASS:
            near.append(by_id[seq_id])
            seq_id += direction
    best, best_rate = list[tuple[Sequence, int]](), 0.0
    lengths = {min(max(prompt.n_missing, first.n_missing), budget) for prompt in near}
    n_missing = sum(prompt.n_missing for prompt in near)
    if limits.may_pad and first.priority != "interactive" and n_missing >= 4 * budget:
        lengths |= {budget // n for n in range(1, len(near) + 1)}
    for n_each in sorted(lengths):
        shares, n_read = list[tuple[Sequence, int]](), 0
        for prompt in near[: budget // n_each]:
            n_own = min(prompt.n_missing, n_each)
            if n_own < n_each and not limits.may_pad:
                break
            shares.append((prompt, n_own))
            n_read += n_own
            n_blocks = -(-len(shares) * n_each // BLOCK_TOKENS)
            rate = n_read / (limits.prices.pass_cost_tokens + n_blocks * BLOCK_TOKENS)
            if rate > best_rate:
                best, best_rate = list(shares), rate
    return best


class Scheduler:
    """Owns the waiting and running sequences of one context. One thread uses it."""

    def __init__(self, limits: ContextLimits) -> None:
        self.limits = limits
        self.slots = Slots(limits)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.n_preempted = 0
        self.is_outgrown = False
        """A sequence has become longer than this context can hold: it waits for a larger one."""
        self._n_arrived = self._n_placed = 0
        self._chat_seen_s = float("-inf")
        self._now_s = 0.0
        self._n_most_tokens = 0
        self._is_turn_of_shortest = False
        self._n_prompt_turns = self._n_passes = 0
        self._lacks_cells = False
        self._prompt_budget = (0, 0)

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence, now_s: float = 0.0) -> None:
        """Queue a sequence; the caller has checked that it fits into the context alone."""
        self._n_arrived += 1
        sequence.arrival, sequence.arrived_s = self._n_arrived, now_s
        source = self.slots.find(sequence)
        if sequence.priority == "normal" and self.slots.is_continued(source):
            sequence.priority = "interactive"  # it continues a conversation
        sequence.n_resident = source.n_tokens
        sequence.resident_since = self._n_placed
        self.waiting.append(sequence)
        if sequence.priority == "interactive":
            self._chat_seen_s = now_s

    def prepare_move(self, limits: ContextLimits) -> tuple[CacheOperation, ...]:
        """Return the operations to do in this context before another one replaces it.

        Idle sequences are evicted, and running ones without a slot in the other context go back
        into the queue.
        """
        seq_ids = self.slots.moved(limits).seq_ids
        for sequence in [sequence for sequence in self.running if sequence not in seq_ids]:
            self.preempt(sequence)
        self.slots.offload_idle()
        return self.slots.take_operations()

    def move(self, migration: SlotMigration, lost: Collection[int]) -> None:
        """Continue in another context.

        `lost`: new sequence ids whose cells could not be moved; they are computed again.
        """
        self.slots = migration.slots
        self.limits = self.slots.limits
        self.is_outgrown = False
        for sequence in tuple(self.running):
            seq_id = migration.seq_ids.get(sequence)
            if seq_id is None:
                self._return_to_queue(sequence)
                continue
            sequence.seq_id = seq_id
            if seq_id in lost:
                self.slots.release_sequence(sequence)
                self._return_to_queue(sequence)

    def end(self, sequence: Sequence) -> None:
        """Remove a sequence, finished or cancelled; its prefix stays if others can share it."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self.slots.retire(sequence)
        sequence.state = "finished"

    def preempt(self, sequence: Sequence) -> None:
        self._requeue(sequence)
        sequence.n_preempted += 1
        self.n_preempted += 1

    def preempt_youngest(self) -> None:
        """Free cells after a step that found none; nothing is admitted until a step succeeds."""
        self.preempt(max(self.running, key=lambda sequence: sequence.rank))
        self._lacks_cells = True

    def start_over(self) -> None:
        for sequence in tuple(self.running):
            self.preempt(sequence)
        self.slots = Slots(self.limits)

    def shift(self, sequence: Sequence, n_keep: int, n_most_tokens: int, max_tokens: int) -> int:
        """Drop the older half of a full sequence's history; the rest is computed again.

        `n_most_tokens` is the maximum of prompt and answer together, `max_tokens` that of the rest
        of the answer; `n_keep` tokens stay at the beginning.

        Returns:
            How many tokens were dropped.
        """
        self._requeue(sequence)
        n_before = len(sequence.prompt)
        n_keep = max(0, min(n_keep, n_most_tokens - 1))
        n_left = n_most_tokens - max((n_most_tokens - n_keep) // 2, 1)
        sequence.prompt = cut_middle(sequence.prompt, n_left, n_keep)
        sequence.max_tokens = min(max_tokens, n_most_tokens - len(sequence.prompt))
        return n_before - len(sequence.prompt)

    def _requeue(self, sequence: Sequence) -> None:
        self.slots.preempt(sequence)
        self._return_to_queue(sequence)

    def _return_to_queue(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        sequence.prompt = np.concatenate([sequence.prompt, np.array(sequence.answer, np.int32)])
        sequence.max_tokens -= len(sequence.answer)
        sequence.answer.clear()
        sequence.drafts.clear()
        for branch in sequence.branches:
            branch.n_done = 0
        sequence.seq_id = -1
        sequence.n_computed = 0
        sequence.state = "waiting"
        self.waiting.append(sequence)

    def schedule(self, now_s: float = 0.0, n_most_tokens: int = 1 << 30) -> ScheduledStep:
        """Return the next step; without pieces there is nothing to compute.

        In a split cache, and in a recurrent memory of any layout, pieces are in the order of their
        sequence ids: llama.cpp computes streams in one pass over the weights only if each id
        follows the one before. On a graphics device sequences are moved for that. Prompts add
        tokens up to `n_most_tokens` of the step, but always a few.
        """
        self._now_s, self._n_most_tokens = now_s, n_most_tokens
        self._admit()
        self._secure_cells()
        pieces = self._pieces()
        if pieces:
            self.slots.close_gaps()
        if not self.limits.is_unified or not self.limits.can_share:
            pieces.sort(key=lambda piece: piece.sequence.seq_id)
        operations = self.slots.take_operations()
        padding = self._padding(pieces) if self.limits.may_pad else ()
        return ScheduledStep(operations, tuple(pieces), self._prompt_budget, padding)

    def n_free_for(self, sequence: Sequence) -> int:
        return self.slots.cells.n_free_for(sequence.seq_id)

    def computed(self, turn: ScheduledStep, agreement: Agreement, fewer_threads: int = 0) -> None:
        self._lacks_cells = False
        n_used = self.slots.cells.n_used
        found = circumstances(turn, self.limits, agreement, n_used, fewer_threads)
        for piece, values in zip(turn.pieces, found, strict=True):
            sequence = piece.sequence
            if piece.branch_id >= 0:
                continue
            self.slots.cells.extend(sequence.seq_id, piece.tokens, ((piece.start, values),))
            sequence.n_computed += len(piece.tokens)
            sequence.drafts.clear()
            if piece.branch is not None:
                piece.branch.n_done += len(piece.tokens)
            if sequence.state == "prefill" and sequence.n_missing == 0:
                sequence.state = "score" if sequence.branches else "decode"
        self.slots.free_branches(turn.pieces)

    def end_branch(self, sequence: Sequence, branch: Branch) -> None:
        """Forget a computed branch, or make it a part of the prompt."""
        sequence.branches.remove(branch)
        if sequence.keeps_branch:
            sequence.prompt = np.concatenate([sequence.prompt, branch.tokens])
            sequence.max_tokens -= len(branch.tokens)
            sequence.state = "decode"
        elif sequence.branches:
            self.reject(sequence, branch.n_done)

    def reject(self, sequence: Sequence, n_drafts: int) -> None:
        """Remove the cells of the last `n_drafts` tokens, which were wrong guesses.

        If the model's memory cannot be cut there, the whole sequence is computed again.
        """
        if n_drafts > self.limits.n_undo_tokens and not self.limits.can_share:
            self._requeue(sequence)
        elif n_drafts:
            sequence.n_computed -= n_drafts
            self.slots.cut(sequence.seq_id, sequence.n_computed)

    # Admission

    def _admit(self) -> None:
        if self._lacks_cells and self.running:
            return
        self.slots.waiting = self.waiting
        is_chat = any(sequence.priority == "interactive" for sequence in self.waiting)
        if not self.waiting or (not is_chat and not self._has_slot(self.waiting[0])):
            return
        blocked = len(PRIORITY_RANK)  # classes from here on must not overtake
        for sequence in self._in_order():
            if PRIORITY_RANK[sequence.priority] >= blocked:
                continue
            source = self.slots.find(sequence)
            if self._awaits_prefix(sequence, source.n_tokens):
                continue
            if not self._has_slot(sequence) or not self._has_room(sequence, source):
                blocked = self._blocked_by(sequence)
                continue
            # Preempted sequences may have taken the donor's cells with them.
            self._place(sequence, self.slots.find(sequence))

    def _in_order(self) -> list[Sequence]:
        """Return the waiting sequences in the order of admission.

        Of jobs of one priority, those with the longest cached prefix go first, before others evict
        it; but the first in the queue is overtaken at most `n_parallel` times.
        """
        order = sorted(self.waiting, key=lambda sequence: sequence.due)
        if not self.limits.can_share or self._n_jobs() >= self.limits.n_parallel:
            return order
        for priority in ("normal", "batch"):
            places = [place for place, waiting in enumerate(order) if waiting.priority == priority]
            jobs = [order[place] for place in places]
            is_patient = bool(jobs) and jobs[0].n_overtaken < self.limits.n_parallel
            first = 0 if is_patient else 1
            # By the longest cached prefix, then by the time it entered the cache.
            jobs[first:] = sorted(
                jobs[first:],
                key=lambda job: (-(job.n_resident // SAME_PREFIX_TOKENS), job.resident_since),
            )
            for place, job in zip(places, jobs, strict=True):
                order[place] = job
        return order

    def _blocked_by(self, sequence: Sequence) -> int:
        """Return the rank from which on no sequence may overtake one that does not fit.

        The first that does not fit blocks its own class, since a large prompt must not starve. An
        overdue one blocks all, but chats only if they could take what it waits for: they do not
        while it waits for a slot of the jobs.
        """
        if self._now_s - sequence.due[0] <= OVERDUE_S:
            return PRIORITY_RANK[sequence.priority]
        lacks_job_slot = self._n_jobs() >= self.limits.n_parallel
        return (
            PRIORITY_RANK["normal"] if lacks_job_slot and sequence.priority != "interactive" else 0
        )

    def _n_jobs(self) -> int:
        return sum(sequence.priority != "interactive" for sequence in self.running)

    def _place(self, sequence: Sequence, source: PrefixSource) -> None:
        self.slots.place(sequence, source)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        # Update the waiting sequences: which was overtaken, which share the new one's prefix
        self._n_placed += 1
        alike = [other for other in self.waiting if other.priority == sequence.priority]
        first = min(alike, key=lambda sequence: sequence.due, default=sequence)
        first.n_overtaken += first.due < sequence.due
        for other in self.waiting:
            n_least = other.n_resident + SAME_PREFIX_TOKENS
            if min(len(other.prompt), len(sequence.prompt)) < n_least:
                continue
            # Most differ there, and comparing whole prompts takes longer.
            if other.prompt[n_least - 1] == sequence.prompt[n_least - 1]:
                n_shared = shared_prefix_length(other.prompt, sequence.prompt)
                if n_shared >= n_least:
                    other.n_resident, other.resident_since = n_shared, self._n_placed

    def _awaits_prefix(self, sequence: Sequence, n_shared: int) -> bool:
        """Return whether a running prompt will soon have computed much more of the same prefix."""
        if not self.limits.can_share:
            return False
        coming = max(
            (
                shared_prefix_length(sequence.prompt, other.prompt)
                for other in self.running
                if other.state == "prefill"
            ),
            default=0,
        )
        return min(coming, len(sequence.prompt) - 1) - n_shared >= WORTH_WAITING_TOKENS

    def _has_slot(self, sequence: Sequence) -> bool:
        if sequence.priority != "interactive":
            has_job_slot = self._n_jobs() < self.limits.n_parallel
            return has_job_slot and len(self.running) < self.limits.n_slots
        return len(self.running) < self.limits.n_slots or self._preempt_for(sequence)

    def _has_room(self, sequence: Sequence, source: PrefixSource) -> bool:
        promised = sum(_promised_cells(sequence) for sequence in self.running)
        n_cells = promised + _promised_cells(sequence) - source.n_tokens
        if self.slots.make_room(n_cells, spare=source.seq_id):
            return True
        self.slots.shorten(source)
        if self.slots.make_room(n_cells, spare=source.seq_id):
            return True
        return self._preempt_for(sequence) and self._has_room(sequence, self.slots.find(sequence))

    def _preempt_for(self, sequence: Sequence) -> bool:
        if sequence.priority != "interactive":
            return False
        jobs = [
            job
            for job in self.running
            if job.priority != "interactive"
            and job.n_preempted < MOST_PREEMPTIONS
            and job.due > sequence.due
        ]
        if not jobs:
            return False
        self.preempt(max(jobs, key=lambda job: job.rank))
        return True

    # Cells for the tokens of this step

    def _secure_cells(self) -> None:
        """Make sure that every answer's next token gets a cell."""
        cells = self.slots.cells
        if not self.limits.is_unified:
            for sequence in self.running:
                n_free, n_least = cells.n_free_for(sequence.seq_id), _n_least_cells(sequence)
                if n_free < n_least + len(sequence.drafts):
                    del sequence.drafts[max(0, n_free - n_least) :]
                    self.is_outgrown |= n_free < n_least
            return
        if cells.n_free < self._n_least_needed():
            for sequence in self.running:
                sequence.drafts.clear()
            self.slots.make_room(self._n_least_needed())
        while cells.n_free < self._n_least_needed() and len(self.running) > 1:
            self.preempt(max(self.running, key=lambda sequence: sequence.rank))
        if self.running and cells.n_free < self._n_least_needed():
            self.is_outgrown = True

    def _n_least_needed(self) -> int:
        answers = [sequence for sequence in self.running if sequence.state == "decode"]
        n_tokens = sum(_n_least_cells(answer) + len(answer.drafts) for answer in answers)
        return n_tokens or min(map(_n_least_cells, self.running), default=0)

    # The batch

    def _padding(self, pieces: list[SequencePiece]) -> tuple[Padding, ...]:
        """Return the padding by which pieces of prompts, or of answers, make one pass.

        Prompts' pieces get one length; between answers each stream gets a token.
        """
        n_each = max((len(piece.tokens) for piece in pieces), default=0)
        found: list[Padding | None] = []
        if n_each > 1:
            for piece in pieces:
                sequence, n_own = piece.sequence, len(piece.tokens)
                if n_own < n_each and sequence.state == "prefill" and not sequence.has_images:
                    found.append(self.slots.pad(sequence.seq_id, n_each - n_own, n_own))
        else:
            for before, after in pairwise(piece.sequence.seq_id for piece in pieces):
                if after - before <= MOST_PADDED_STREAMS:
                    found += [self.slots.pad(seq_id, 1) for seq_id in range(before + 1, after)]
        return tuple(padding for padding in found if padding is not None)

    def _pieces(self) -> list[SequencePiece]:
        n_free_for = self.slots.cells.n_free_for
        sequences = [
            sequence
            for sequence in self.running
            if sequence.state == "decode" and n_free_for(sequence.seq_id) >= sequence.n_pending
        ]
        new = [sequence.answer[-sequence.n_pending :] + sequence.drafts for sequence in sequences]
        tokens = np.array(list(itertools.chain.from_iterable(new)), np.int32)
        ends = itertools.accumulate(map(len, new))
        answers = [
            SequencePiece(
                sequence,
                tokens[end - len(own) : end],
                sequence.n_computed,
                1 + len(sequence.drafts),
            )
            for sequence, own, end in zip(sequences, new, ends, strict=True)
        ]
        answers += branch_pieces(self.running, answers, self.slots)
        if not any(sequence.state == "prefill" for sequence in self.running):
            return answers
        if self.limits.has_separate_passes and answers:
            return self._prefill_pieces(0) if self._is_prompts_turn(answers) else answers
        return answers + self._prefill_pieces(sum(len(piece.tokens) for piece in answers))

    def _is_prompts_turn(self, answers: list[SequencePiece]) -> bool:
        """Return whether this step has prompts alone rather than answers alone.

        Prompts get passes of their own in any case, and without them the answers' pass keeps its
        shape, for which CUDA has a graph. The two alternate while an answer is streamed; for jobs
        alone, prompts come first, which makes the answers' pass larger.
        """
        is_read = any(piece.sequence.priority == "interactive" for piece in answers)
        most = 1 if is_read else MOST_PROMPT_TURNS
        self._n_prompt_turns = (self._n_prompt_turns + 1) % (most + 1)
        return self._n_prompt_turns > 0

    def _prefill_pieces(self, n_decoded: int) -> list[SequencePiece]:
        prompts = [sequence for sequence in self.running if sequence.state == "prefill"]
        limits = self.limits
        in_time = max(self._n_most_tokens - n_decoded, LEAST_READ_TOKENS)
        most = min(in_time, limits.n_batch_tokens - n_decoded)
        beside_chat = most
        if any(job.state == "decode" and job.priority == "interactive" for job in self.running):
            beside_chat = min(most, limits.chat_turn_tokens)
        elif self._now_s - self._chat_seen_s < CHAT_EXPECTED_S:
            beside_chat = min(most, limits.near_turn_tokens)
        self._prompt_budget = beside_chat, most
        # Short chats are read in one step, since their first tokens wait.
        n_chats = sum(prompt.n_missing for prompt in prompts if prompt.priority == "interactive")
        short_chats = min(n_chats, 2 * limits.near_turn_tokens, most)
        in_cells = self.slots.cells.n_free - n_decoded if limits.is_unified else most
        budget = min(max(beside_chat, short_chats), in_cells)
        if self.limits.has_separate_passes:
            self._n_passes += 1
            is_turn = self._n_passes % SHORTEST_EVERY == 0
            shares = share_pass(prompts, budget, self.limits, is_turn_of_shortest=is_turn)
        else:
            self._is_turn_of_shortest = not self._is_turn_of_shortest
            shares = share_token_budget(
                prompts,
                budget,
                is_turn_of_shortest=self._is_turn_of_shortest,
                n_least=self.limits.least_piece_tokens,
            )
        n_free = self.slots.cells.n_free - n_decoded
        pieces = list[SequencePiece]()
        for sequence, n_share in shares:
            n_tokens = sequence.next_piece_length(n_share) if n_share else 0
            if 0 < n_tokens <= n_free:
                start, end = sequence.n_computed, sequence.n_computed + n_tokens
                is_last, tokens = end == len(sequence.prompt), sequence.prompt[start:end]
                pieces.append(SequencePiece(sequence, tokens, start, int(is_last)))
                n_free -= n_tokens
        return pieces


def _promised_cells(sequence: Sequence) -> int:
    n_answer = sequence.max_tokens - len(sequence.answer)
    n_soon = sequence.n_missing + min(ANSWER_SLICE_TOKENS, n_answer)
    n_owed = sequence.n_likely_tokens - sequence.n_computed
    return max(n_soon, n_owed) if sequence.n_preempted else n_soon


def _n_least_cells(sequence: Sequence) -> int:
    if sequence.state == "score":
        branch = sequence.branches[0]
        return min(len(branch.tokens) - branch.n_done, MOST_DRAFTS)
    return sequence.n_pending if sequence.state == "decode" else sequence.next_piece_length(1)
