"""What is typed: several lines, and a history for one person alone."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.runner.cli.chat_terminal import LineInput, without_marks


def typing(*lines: str) -> Callable[[str], str]:
    left = list(lines)

    def read(prompt: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return read


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["hello"], "hello"),
        (['"""one', "two", 'three"""'], "one\ntwo\nthree"),
        (['"""', "one", '"""'], "one"),
        (['/set system """Be', 'brief."""'], "/set system Be\nbrief."),
        (['"""one"""'], "one"),
        (['"""one', "the end of the input"], "one\nthe end of the input"),
    ],
)
def test_several_lines_stand_between_marks(tmp_path: Path, lines: list[str], text: str) -> None:
    keyboard = LineInput(tmp_path / "history", read=typing(*lines))
    assert without_marks(keyboard.ask()) == text


def test_the_end_of_the_input_is_told(tmp_path: Path) -> None:
    with pytest.raises(EOFError):
        LineInput(tmp_path / "history", read=typing()).ask()


def test_the_history_is_kept_for_this_person_alone(tmp_path: Path) -> None:
    readline = pytest.importorskip("readline")
    readline.clear_history()
    file = tmp_path / "state" / "history"
    with LineInput(file):
        readline.add_history("one")
    readline.clear_history()
    with LineInput(file):
        assert readline.get_history_item(1) == "one"
        readline.add_history("two")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [line for line in file.read_text().splitlines() if line in ("one", "two")] == [
        "one",
        "two",
    ]
    readline.clear_history()


def test_what_is_not_to_be_kept_is_not(tmp_path: Path) -> None:
    readline = pytest.importorskip("readline")
    readline.clear_history()
    with LineInput(tmp_path / "history", keeps_history=False):
        readline.add_history("one")
    assert not (tmp_path / "history").exists()
    readline.clear_history()
