"""Images in the scheduler: which rows are computed together, and where a sequence may be cut."""

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.chat.prompt_images import ImagePlaceholders, n_positions, whole_prefix
from paddock.engine.decoding.context_limits import ContextLimits
from paddock.engine.decoding.scheduler import Scheduler
from paddock.engine.decoding.scheduler_data import Sequence
from paddock.engine.decoding.slots import PrefixSource, Slots
from paddock.engine.llama.image_cache import ImagePiece
from paddock.engine.profile.profile import Agreement
from paddock.engine.system.records import replace
from tests.fakes.eyes import image_piece

N_ROWS = 6
FLAT = replace(image_piece("flat", N_ROWS), n_positions=3)
"""An image of two rows and three columns: text goes on after its longer side."""
AT_ONCE = replace(image_piece("whole", N_ROWS), is_causal=False)


def prompt(piece: ImagePiece = FLAT, n_before: int = 2) -> Tokens:
    rows = ImagePlaceholders().of(piece)
    return np.concatenate([np.arange(n_before), rows, [7]]).astype(np.int32)


def test_a_prompts_tokens_tell_its_positions_and_where_it_may_be_cut() -> None:
    tokens = prompt()
    assert n_positions(tokens) == 2 + 3 + 1
    whole = [whole_prefix(tokens[:n]) for n in range(len(tokens) + 1)]
    assert whole == [0, 1, 2, 2, 2, 2, 2, 2, 8, 9]


def test_a_token_after_an_image_has_the_position_that_the_image_leaves() -> None:
    sequence = Sequence(1, prompt(), 8, has_images=True)
    assert [sequence.position(n) for n in (0, 2, 8, 9, 12)] == [0, 2, 5, 6, 9]


def test_a_shared_prefix_never_ends_within_an_image() -> None:
    tokens = prompt(n_before=40)
    slots = Slots(ContextLimits(n_cells=256, n_parallel=2))
    slots.cells.extend(0, tokens[:43])
    found = slots.find(Sequence(1, tokens, 8, has_images=True))
    assert found == PrefixSource(40, seq_id=0)


def test_an_image_whose_rows_see_one_another_is_never_divided() -> None:
    for piece, lengths in ((AT_ONCE, [2, 6, 1]), (FLAT, [2, 4, 2, 1])):
        scheduler = Scheduler(ContextLimits(n_cells=64, n_parallel=1, n_batch_tokens=4))
        scheduler.add(Sequence(1, prompt(piece), 8, has_images=True))
        seen = []
        for _ in lengths:
            step = scheduler.schedule()
            seen += [len(piece.tokens) for piece in step.pieces]
            scheduler.computed(step, Agreement())
        assert seen == lengths
