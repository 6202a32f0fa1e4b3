"""The contract of sources: a document is had, left or gone, and one that is left stops no other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from paddock.steps.sources.mirror import (
    Answer,
    Gone,
    Had,
    Left,
    Mirror,
    Source,
    SourceAway,
    SourceDocument,
    SourceListing,
    SourceParams,
    SourceRefused,
    Whole,
)
from paddock.steps.sources.place_states import PlaceStates

Answers = Callable[[list[str]], Iterator[tuple[str, Answer]]]


def had(identity: str) -> tuple[str, Answer]:
    return identity, Had(f"of {identity}".encode(), Whole.LENGTH)


class Odd(Source):
    """Has a, b and c, and answers as it likes."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def listing(self, cursor: str) -> SourceListing:
        return SourceListing("", [SourceDocument(name, f"{name}.txt", 4, "1") for name in "abc"])

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        return self._answers([*identities])


class OddParams(SourceParams):
    kind = "odd"

    @property
    def address(self) -> str:
        return "odd://"

    @contextmanager
    def opened(self, credential: str) -> Iterator[Source]:
        yield Odd(ANSWERS.pop(0) if len(ANSWERS) > 1 else ANSWERS[0])


ANSWERS = list[Answers]()


def copies(folder: Path) -> str:
    return "".join(sorted(path.stem for path in folder.glob("*.txt")))


def all_had(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield from map(had, asked)


def silent_of_b(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield from (had(each) for each in asked if each != "b")


def silent_of_b_among_others(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield from (had(each) for each in asked if each != "b" or len(asked) == 1)


def says_nothing(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield from ()


def refuses_b(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    if "b" in asked:
        raise SourceRefused("does not hand over 'b'")
    yield from map(had, asked)


def refuses_amid(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    for each in asked:
        if each == "b":
            raise SourceRefused("does not hand over 'b'")
        yield had(each)


def leaves_b(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield from ((each, Left("it is broken")) if each == "b" else had(each) for each in asked)


def breaks_off_at_b(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    if "b" in asked:
        raise SourceAway("it broke off")
    yield from map(had, asked)


def answers_of_others(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield had("z")
    yield had("../../out")
    yield from (had(each) for each in asked if each != "b")


def answers_twice(asked: list[str]) -> Iterator[tuple[str, Answer]]:
    yield from map(had, asked)
    yield from ((each, Gone()) for each in asked)


@pytest.mark.parametrize(
    ("answers", "here", "said"),
    [
        (all_had, "abc", ""),
        (silent_of_b, "ac", "'b.txt' (nothing came of it)"),
        (silent_of_b_among_others, "abc", ""),
        (says_nothing, "", "3 documents of"),
        (refuses_b, "ac", "'b.txt' (does not hand over 'b')"),
        (refuses_amid, "ac", "'b.txt' (does not hand over 'b')"),
        (leaves_b, "ac", "'b.txt' (it is broken)"),
        (answers_of_others, "ac", "'b.txt' (nothing came of it)"),
        (answers_twice, "abc", ""),
    ],
)
def test_what_does_not_come_is_left_and_named_and_comes_later(
    tmp_path: Path, answers: Answers, here: str, said: str
) -> None:
    ANSWERS[:] = [answers, answers, all_had]
    folder = tmp_path / "copies"
    mirror = Mirror(folder, OddParams(), "", PlaceStates.of(tmp_path / ".paddock"))
    for _ in range(2):
        notes = mirror.fetch()
        assert copies(folder) == here
        assert (said in "".join(notes)) and bool(notes) == bool(said)
    assert (mirror.fetch(), copies(folder)) == ([], "abc")


def test_a_document_at_which_the_source_breaks_off_stops_the_others_once_at_most(
    tmp_path: Path,
) -> None:
    ANSWERS[:] = [breaks_off_at_b]
    folder = tmp_path / "copies"
    mirror = Mirror(folder, OddParams(), "", PlaceStates.of(tmp_path / ".paddock"))
    for _ in range(3):
        (note,) = mirror.fetch()
        assert " is away, it broke off. " in note
    assert copies(folder) == "ac"


def test_what_is_gone_is_not_named_and_not_asked_for_again(tmp_path: Path) -> None:
    asked = list[str]()

    def b_is_gone(identities: list[str]) -> Iterator[tuple[str, Answer]]:
        asked.extend(identities)
        yield from ((each, Gone()) if each == "b" else had(each) for each in identities)

    ANSWERS[:] = [b_is_gone]
    folder = tmp_path / "copies"
    mirror = Mirror(folder, OddParams(), "", PlaceStates.of(tmp_path / ".paddock"))
    assert (mirror.fetch(), copies(folder), asked) == ([], "ac", ["a", "b", "c"])
