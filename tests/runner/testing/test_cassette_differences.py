"""How a call that no one recorded differs from the nearest one."""

from paddock.runner.testing.cassette import RecordedCall
from paddock.runner.testing.cassette_differences import (
    MAX_DIFFERENCE_LINES,
    call_difference,
    nearest_call,
)


def chat(text: str, **fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [["system", "Be brief."], ["user", text]], **fields}


def call(request: dict[str, object]) -> RecordedCall:
    return RecordedCall("chat", request, {})


def test_the_nearest_is_the_one_with_most_in_common() -> None:
    calls = [call(chat(f"Sum up document {n}: {word} and more")) for n, word in enumerate("abc")]
    assert nearest_call(chat("Sum up document 1: b and much more"), calls) is calls[1]
    assert nearest_call(chat("anything"), []) is None


def test_a_long_paragraph_differs_in_one_sentence() -> None:
    long = "The ferry leaves at nine. It is white. " * 3
    old = chat(f"{long}It is new.")
    shown = call_difference(chat(f"{long}It is old."), old)
    assert shown.splitlines()[3:] == [" It is white.", "-It is new.", "+It is old."]


def test_wishes_next_to_the_messages_are_shown() -> None:
    shown = call_difference(chat("x", sampling={"seed": 2}), chat("x", sampling={"seed": 1}))
    assert shown.splitlines()[3:] == [" x", '-sampling: {"seed": 1}', '+sampling: {"seed": 2}']


def test_what_has_no_like_is_shown_whole_and_bounded() -> None:
    lines = call_difference(chat("\n".join(map(str, range(500)))), None).splitlines()
    assert lines[:4] == ["+model: m", "+[system]", "+Be brief.", "+[user]"]
    assert len(lines) == MAX_DIFFERENCE_LINES + 1
    assert lines[-1] == "… and 444 more lines"
