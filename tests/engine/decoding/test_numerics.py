import numpy as np
import pytest

from paddock.engine.arrays import Tokens
from paddock.engine.decoding.context_limits import ContextLimits
from paddock.engine.decoding.host_cache import HostCache
from paddock.engine.decoding.numerics import circumstances, fingerprint_numerics
from paddock.engine.decoding.prefix_cache import PrefixCache
from paddock.engine.decoding.scheduler_data import ScheduledStep, Sequence, SequencePiece
from paddock.engine.profile.profile import Agreement
from paddock.engine.system.records import replace

SPLIT = ContextLimits(4096, 4, is_unified=False)
EQUAL = Agreement(company=True, drafts=True)


def tokens(n: int) -> Tokens:
    return np.arange(n, dtype=np.int32)


def piece(start: int, n_tokens: int = 1, n_drafts: int = 0) -> SequencePiece:
    sequence = Sequence(1, tokens(40), 10, state="decode")
    return SequencePiece(sequence, tokens(n_tokens + n_drafts), start, 1 + n_drafts)


def step(*pieces: SequencePiece, budget: tuple[int, int] = (128, 512)) -> ScheduledStep:
    return ScheduledStep((), pieces, budget)


def test_fewer_threads_count_where_they_divide_a_token_s_cells() -> None:
    def of(
        start: int, limits: ContextLimits, n_used: int = 0, agreement: Agreement = EQUAL
    ) -> object:
        return circumstances(step(piece(start)), limits, agreement, n_used, 1)

    assert of(256, SPLIT) == ((("threads", 1),),)
    assert of(255, SPLIT) == ((),)
    assert of(300, replace(SPLIT, is_flash=False)) == ((),)
    assert of(40, replace(SPLIT, is_unified=True), n_used=300) == ((("threads", 1),),)
    beside = circumstances(step(piece(300), piece(300)), SPLIT, EQUAL, 600, 1)
    assert beside == ((), ()), "several rows take the path without division"


def test_company_pieces_and_drafts_count_unless_a_profile_found_the_same_logits() -> None:
    usual = circumstances(step(piece(10)), SPLIT, Agreement(), 10)
    others = [
        circumstances(step(piece(10), budget=(64, 512)), SPLIT, Agreement(), 10),
        circumstances(step(piece(10), piece(7)), SPLIT, Agreement(), 17)[:1],
        circumstances(step(piece(7), piece(10)), SPLIT, Agreement(), 17)[1:],
        circumstances(step(piece(10, n_drafts=2)), SPLIT, Agreement(), 10),
        circumstances(step(piece(10)), replace(SPLIT, is_unified=True), Agreement(), 900),
    ]
    assert len({usual, *others}) == 6
    everything = step(piece(10, n_drafts=2), piece(7), budget=(64, 512))
    assert circumstances(everything, SPLIT, EQUAL, 17) == ((), ())
    forced = circumstances(step(piece(10, n_tokens=3)), SPLIT, Agreement(), 10)
    assert forced == usual, "what a grammar forces is the same in equal requests"


def test_a_fingerprint_names_configuration_and_circumstances_but_no_lengths() -> None:
    usual, other = ("a",), ("b",)
    first = fingerprint_numerics("model", SPLIT, ((0, usual),))
    assert first == fingerprint_numerics("model", replace(SPLIT, n_cells=99), ((0, usual),))
    different = [
        fingerprint_numerics("another", SPLIT, ((0, usual),)),
        fingerprint_numerics("model", replace(SPLIT, is_flash=False), ((0, usual),)),
        fingerprint_numerics("model", SPLIT, ((0, other),)),
        fingerprint_numerics("model", SPLIT, ((0, usual), (7, other))),
        fingerprint_numerics("model", SPLIT, ((0, usual), (8, other))),
        fingerprint_numerics("model", SPLIT, ((0, usual),), 1),
    ]
    assert len({first, *different}) == 7


@pytest.mark.parametrize("n_each", [None, 100])
def test_cells_keep_their_marks_where_they_are_shared_saved_and_cut(n_each: int | None) -> None:
    cells = PrefixCache(200, n_each)
    cells.extend(0, tokens(10), ((0, ("a",)),))
    cells.extend(0, tokens(5), ((10, ("a",)),))
    cells.extend(0, tokens(5), ((15, ("b",)),))
    assert cells.marks(0) == ((0, ("a",)), (15, ("b",)))
    cells.share(0, 1, 15)
    assert cells.marks(1) == ((0, ("a",)),)
    cells.share(0, 2, 16)
    assert cells.marks(2) == cells.marks(0)
    saved = HostCache(100)
    key, _ = saved.put(cells.computed(0), cells.marks(0))
    assert key is not None
    cells.trim(0, 15)
    assert cells.marks(0) == ((0, ("a",)),)
    cells.trim(0, 0)
    cells.extend(0, saved.tokens(key), saved.marks(key))
    assert cells.marks(0) == ((0, ("a",)), (15, ("b",)))
