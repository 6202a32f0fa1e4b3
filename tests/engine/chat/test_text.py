from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.chat.stream_parser import PlainTextStream


@given(st.text(), st.lists(st.integers(1, 4), min_size=1))
def test_characters_come_whole_however_the_bytes_are_cut(text: str, lengths: list[int]) -> None:
    raw, answer, said, at, turn = text.encode(errors="replace"), PlainTextStream(), "", 0, 0
    while at < len(raw):
        n = lengths[turn % len(lengths)]
        said += answer.feed(raw[at : at + n])
        at, turn = at + n, turn + 1
    said += answer.close()
    assert said == raw.decode()


@given(
    st.text("abE", max_size=30),
    st.lists(st.text("abE", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_the_answer_ends_before_the_first_stop_string(
    text: str, stops: list[str], step: int
) -> None:
    answer, said, raw = PlainTextStream(tuple(stops)), "", text.encode()
    for at in range(0, len(raw), step):
        said += answer.feed(raw[at : at + step])
        if answer.is_stopped:
            break
    said += answer.close()
    assert not any(stop in said for stop in stops)
    assert text.startswith(said)
    assert answer.is_stopped == any(stop in text for stop in stops)
    if not answer.is_stopped:
        assert said == text


def test_half_a_character_at_the_end_is_left_out() -> None:
    answer = PlainTextStream()
    assert answer.feed("né".encode()[:2]) == "n"
    assert answer.close() == ""


def test_the_stop_string_that_comes_first_is_told() -> None:
    text = PlainTextStream(stop=("END", "stop", "top"))
    assert text.stopped_by == ""
    assert text.feed(b"a stop, END") == "a "
    assert text.stopped_by == "stop"
