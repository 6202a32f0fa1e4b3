import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.decoding.drafts import (
    FIRST_PAUSE,
    MOST_DRAFT_TOKENS,
    MOST_KEPT_TOKENS,
    MOST_STEPS,
    N_SAME_TOKENS,
    LookupDrafter,
    PastAnswers,
)


def drafter(*ids: int) -> LookupDrafter:
    return LookupDrafter(np.array(ids, np.int32))


def test_what_followed_the_same_words_earlier_is_guessed() -> None:
    lookup = drafter(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2)
    lookup.add(3)
    assert lookup.guess(4, 0.3) == [4, 5, 6, 7]


def test_nothing_is_guessed_where_nothing_repeats_or_where_it_costs_as_much() -> None:
    lookup = drafter(1, 2, 3, 4, 5, 1, 2, 3)
    assert lookup.guess(10, 1.0) == []
    assert lookup.guess(0, 0.3) == []
    assert drafter(1, 2, 3, 4).guess(10, 0.3) == []


def test_guesses_grow_while_they_are_right_and_pause_when_they_are_not() -> None:
    text = list(range(100, 400))
    lookup = drafter(*text, *text[:3])
    lengths = []
    for _ in range(12):
        lengths.append(len(guess := lookup.guess(1000, 0.3)))
        lookup.learn(len(guess), len(guess))
    assert lengths[0] == 10
    assert lengths == sorted(lengths)
    assert lengths[-1] == MOST_DRAFT_TOKENS
    for _ in range(30):
        lookup.learn(4, 0)
    assert lookup.guess(10, 0.3) == []
    for token in text[100 : 100 + FIRST_PAUSE]:
        lookup.add(token)
    again = lookup.guess(10, 0.3)
    assert 1 <= len(again) <= 4, "a short try"
    assert again == text[100 + FIRST_PAUSE : 100 + FIRST_PAUSE + len(again)]


def test_the_dearer_a_check_the_shorter_the_guess() -> None:
    text = list(range(100, 400))
    lengths = [len(drafter(*text, *text[:3]).guess(100, price)) for price in (0.1, 0.3, 0.6, 0.85)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 1


def test_a_prompt_is_indexed_only_where_the_price_allows_a_guess() -> None:
    text = list(range(100, 400))
    lookup = drafter(*text, *text[:3])
    for price in (1.0, 1.5):
        assert lookup.guess(10, price) == []
    assert not lookup._index.after
    assert lookup.guess(10, 0.1)
    assert len(lookup._index.after) >= 300


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=20))
def test_a_guess_is_always_something_that_was_said(prompt: list[int], answer: list[int]) -> None:
    lookup = drafter(*prompt)
    for token in answer:
        lookup.add(token)
    guess = lookup.guess(8, 0.3)
    whole = [*prompt, *answer]
    assert not guess or any(
        whole[start : start + len(guess)] == guess for start in range(len(whole))
    )


INSTRUCTIONS = list(range(1000, 1000 + N_SAME_TOKENS))
FORM = [11, 12, 13, 14, 15, 16]


def drafter_of(past: PastAnswers, document: int, *tokens: int) -> LookupDrafter:
    """Return a drafter for one request of a step, whose documents differ."""
    prompt = np.array([*INSTRUCTIONS, document, *tokens, 1, 2, 3], np.int32)
    return LookupDrafter(prompt, past.like(prompt))


def answered(past: PastAnswers, document: int, answer: list[int]) -> None:
    lookup = drafter_of(past, document)
    for token in answer:
        lookup.add(token)
    lookup.keep()


def test_what_an_earlier_answer_of_the_same_step_said_is_guessed_from_its_first_token_on() -> None:
    past = PastAnswers()
    assert drafter_of(past, 501).guess(4, 0.3) == []
    answered(past, 501, FORM)
    assert drafter_of(past, 502).guess(4, 0.3) == FORM[:4]
    lookup = drafter_of(past, 503)
    for token in FORM[:4]:
        lookup.add(token)
    assert lookup.guess(10, 0.3) == FORM[4:], "not beyond the end of that answer"


def test_the_answers_own_document_comes_before_other_answers() -> None:
    past = PastAnswers()
    answered(past, 501, FORM)
    lookup = drafter_of(past, 502, *FORM[:3], 77, 78)
    for token in FORM[:3]:
        lookup.add(token)
    assert lookup.guess(2, 0.3) == [77, 78]


def test_answers_of_another_step_are_no_guess() -> None:
    past = PastAnswers()
    answered(past, 501, FORM)
    other = np.array([9, *INSTRUCTIONS, 1, 2, 3], np.int32)
    assert LookupDrafter(other, past.like(other)).guess(4, 0.3) == []


def test_a_step_whose_answers_do_not_repeat_stops_guessing_for_all_its_requests() -> None:
    past = PastAnswers()
    answered(past, 501, FORM)
    for document in range(502, 512):
        lookup = drafter_of(past, document)
        lookup.learn(len(lookup.guess(4, 0.3)), 0)
    assert drafter_of(past, 600).guess(4, 0.3) == []


def test_answers_that_are_kept_have_a_bound() -> None:
    past = PastAnswers()
    for document in range(60):
        answered(past, document, list(range(document * 500, document * 500 + 500)))
    step, _ = past.like(np.array(INSTRUCTIONS, np.int32))
    assert len(step._index.tokens) <= MOST_KEPT_TOKENS
    assert step.followed((29_997, 29_998, 29_999), 4) == []
    assert step.followed((29_994, 29_995, 29_996), 9) == [29_997, 29_998, 29_999]
    for number in range(MOST_STEPS + 3):
        past.like(np.array([number], np.int32))
    assert len(past._by_beginning) == len(past._by_end) == MOST_STEPS


def after_document(past: PastAnswers, document: int, instruction: int) -> LookupDrafter:
    """Return a drafter for a request that begins with its document."""
    instructions = [instruction] * N_SAME_TOKENS
    prompt = np.array([*range(document, document + 99), *instructions, 1, 2, 3], np.int32)
    return LookupDrafter(prompt, past.like(prompt))


def test_answers_of_a_step_are_guessed_though_its_requests_begin_with_their_documents() -> None:
    past, other = PastAnswers(), [21, 22, 23, 24]
    for document in (4000, 5000, 6000):
        for instruction, answer in ((71, FORM), (72, other)):
            lookup = after_document(past, document, instruction)
            for token in answer:
                lookup.add(token)
            lookup.keep()
    assert after_document(past, 7000, 71).guess(4, 0.3) == FORM[:4]
    assert after_document(past, 7000, 72).guess(4, 0.3) == other
    for _ in range(20):
        wrong = after_document(past, 6000, 71)
        wrong.learn(len(wrong.guess(4, 0.3)), 0)
    assert after_document(past, 6000, 71).guess(4, 0.3) == []
    assert after_document(past, 6000, 72).guess(4, 0.3) == other, "one step does not stop another"
