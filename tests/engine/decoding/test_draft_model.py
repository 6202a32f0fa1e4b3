"""A draft model is a help: whatever goes wrong with it, there are only fewer guesses."""

from collections.abc import Callable, Iterator

import pytest

from paddock.engine.decoding.draft_model import DraftModel
from paddock.engine.decoding.drafts import DraftRequest
from paddock.engine.llama.library import CacheFull, DecodeFailed, LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from tests.calls import note_calls

SHARED = [7, 8, 9] * 100


@pytest.fixture
def model(tiny_model: Callable[[str], Model]) -> Model:
    return tiny_model("llama")


@pytest.fixture
def small(model: Model) -> Iterator[DraftModel]:
    drafting = DraftModel(model, model, options())
    yield drafting
    drafting.close()


def options(n_cells: int = 2048, n_seq_max: int = 4) -> ContextOptions:
    return ContextOptions(n_cells, n_batch_tokens=512, n_seq_max=n_seq_max, n_threads=1)


def guess_of(
    small: DraftModel, texts: dict[int, list[int]], n_ahead: int = 4
) -> dict[int, list[int]]:
    """Ask for guesses until what there is of a prompt is read."""
    wishes = {number: DraftRequest(tokens, n_ahead) for number, tokens in texts.items()}
    for _ in range(8):
        guesses = small.guess(wishes, wishes)
        if len(guesses) == len(wishes):
            break
    return guesses


@pytest.fixture
def n_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each batch."""
    sizes: list[int] = []
    note_calls(
        monkeypatch, Context, "decode", lambda _, __, tokens, *___: sizes.append(len(tokens))
    )
    return sizes


def test_wrong_guesses_are_taken_back_and_only_what_is_new_is_read(
    small: DraftModel, model: Model, n_decoded: list[int]
) -> None:
    text = SHARED.copy()
    right = guess_of(small, {0: text})[0]
    assert n_decoded == [300, 1, 1, 1]
    text += [*right[:2], (right[2] + 1) % 256]
    n_decoded.clear()
    again = guess_of(small, {0: text})[0]
    assert n_decoded == [1, 1, 1, 1], "two guesses were right"
    fresh = DraftModel(model, model, options())
    assert guess_of(fresh, {0: text})[0] == again
    fresh.close()


def test_a_long_prompt_is_read_a_batch_at_a_time_next_to_those_that_answer(
    small: DraftModel, n_decoded: list[int]
) -> None:
    guess_of(small, {0: SHARED})
    n_decoded.clear()
    long = [3] * 1200
    wishes = {1: DraftRequest(long, 2), 0: DraftRequest([*SHARED, 1], 2)}
    assert [set(small.guess(wishes, wishes)) for _ in range(3)] == [{0}, {0}, {0, 1}]
    assert max(n_decoded) <= 512


def test_a_beginning_that_several_share_is_read_once(
    small: DraftModel, n_decoded: list[int]
) -> None:
    texts = {number: SHARED * 3 + [number] * 8 for number in range(4)}
    assert set(guess_of(small, texts)) == set(texts)
    assert sum(n_decoded) < 2 * len(texts[0])


def test_more_requests_than_sequences_get_guesses_for_some(small: DraftModel) -> None:
    texts = {number: [number] * 20 for number in range(10)}
    assert len(guess_of(small, texts)) == 4
    assert set(guess_of(small, {8: texts[8], 9: texts[9]})) == {8, 9}, "those that ended made room"


def test_a_fault_of_the_draft_model_only_ends_the_guessing(
    small: DraftModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> None:
        def decode(*_: object) -> int:
            raise error

        monkeypatch.setattr(Context, "decode", decode)

    before = guess_of(small, {0: SHARED})
    fail(CacheFull())
    assert guess_of(small, {0: [*SHARED, 1]}) == {}
    monkeypatch.undo()
    assert guess_of(small, {0: SHARED}) == before, "it begins again"
    fail(DecodeFailed("llama_decode answered -3"))
    assert guess_of(small, {0: [*SHARED, 1]}) == {}
    monkeypatch.undo()
    assert guess_of(small, {0: SHARED}) == {}
    assert (
        "the draft model is not used any more: llama_decode answered -3" in capfd.readouterr().err
    )


def test_a_recurrent_model_is_no_draft_model(
    tiny_model: Callable[[str], Model], model: Model
) -> None:
    with pytest.raises(LoadFailed, match="cannot undo a guess"):
        DraftModel(tiny_model("mamba"), model, options())
