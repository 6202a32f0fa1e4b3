import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from paddock.engine.arrays import Tokens
from paddock.engine.decoding.prefix_cache import PrefixCache, PromptRepeats, shared_prefix_length


def tokens(*ids: int) -> Tokens:
    return np.array(ids, np.int32)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_a_shared_beginning_is_the_longest_one(first: list[int], other: list[int]) -> None:
    n = shared_prefix_length(tokens(*first), tokens(*other))
    assert first[:n] == other[:n]
    assert n == min(len(first), len(other)) or first[n] != other[n]


def test_the_longest_beginning_wins() -> None:
    cells = PrefixCache(20)
    cells.extend(0, tokens(1, 2, 3, 4))
    cells.extend(1, tokens(1, 2, 9))
    assert cells.best(tokens(1, 2, 3, 7)) == (0, 3)
    assert cells.best(tokens(1, 2, 9, 7)) == (1, 3)
    assert cells.best(tokens(5)) == (-1, 0)


def test_of_equal_beginnings_the_shortest_sequence_is_copied() -> None:
    cells = PrefixCache(40, 20)
    cells.extend(0, tokens(1, 2, 3, 4, 5, 6))
    cells.extend(1, tokens(1, 2, 9))
    assert cells.best(tokens(1, 2, 7)) == (1, 2)


def test_instructions_of_all_jobs_are_no_repeated_document() -> None:
    repeats = PromptRepeats(8, is_likely=False)
    documents = [np.array([1] * 100 + [kind] * 200, np.int32) for kind in range(4)]
    for document in documents[:3]:
        repeats.finish(document)
    repeats.begin(documents[3], 0)  # none is running, as when a job begins
    assert not repeats.is_likely
    repeats.begin(documents[1], 100)
    assert repeats.is_likely


class Books(RuleBasedStateMachine):
    """The books against a simple truth: for each sequence, the identity of each of its cells."""

    residents = Bundle("residents")

    def __init__(self) -> None:
        super().__init__()
        self.cells = PrefixCache(60)
        self.truth: dict[int, list[tuple[int, int]]] = {}
        self.n_made = 0
        self.n_named = 0

    def _extend(self, seq_id: int, ids: list[int]) -> None:
        self.cells.extend(seq_id, tokens(*ids))
        for token in ids:
            self.n_made += 1
            self.truth[seq_id].append((self.n_made, token))

    @rule(target=residents, ids=st.lists(st.integers(0, 2), min_size=1, max_size=8))
    def begin(self, ids: list[int]) -> int:
        self.n_named += 1
        seq_id = self.n_named
        self.truth[seq_id] = []
        if len(ids) <= self.cells.n_free:
            self._extend(seq_id, ids)
        return seq_id

    @rule(seq_id=residents, ids=st.lists(st.integers(0, 2), min_size=1, max_size=8))
    def grow(self, seq_id: int, ids: list[int]) -> None:
        if seq_id in self.cells and len(ids) <= self.cells.n_free:
            self._extend(seq_id, ids)

    @rule(target=residents, source=residents, share=st.floats(0, 1))
    def share(self, source: int, share: float) -> int:
        self.n_named += 1
        target = self.n_named
        n = round(share * len(self.truth[source]))
        self.truth[target] = self.truth[source][:n]
        if n:
            self.cells.share(source, target, n)
        return target

    @rule(seq_id=residents, share=st.floats(0, 1))
    def cut(self, seq_id: int, share: float) -> None:
        n = round(share * len(self.truth[seq_id]))
        if seq_id in self.cells:
            self.cells.trim(seq_id, n)
            self.truth[seq_id] = self.truth[seq_id][:n]

    @rule(seq_id=consumes(residents))
    def leave(self, seq_id: int) -> None:
        if seq_id in self.cells:
            self.cells.trim(seq_id, 0)
        self.truth[seq_id] = []

    @invariant()
    def every_cell_is_counted_once(self) -> None:
        assert self.cells.n_used == len({c for cells in self.truth.values() for c, _ in cells})

    @invariant()
    def every_sequence_knows_its_tokens(self) -> None:
        for seq_id, cells in self.truth.items():
            known = self.cells.computed(seq_id).tolist() if seq_id in self.cells else []
            assert known == [token for _, token in cells]

    @invariant()
    def own_cells_are_those_that_nobody_shares(self) -> None:
        for seq_id in self.truth:
            if seq_id in self.cells:
                others = {c for s, cells in self.truth.items() if s != seq_id for c, _ in cells}
                own = [c for c, _ in self.truth[seq_id] if c not in others]
                assert self.cells.n_own(seq_id) == len(own)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=50, deadline=None)
