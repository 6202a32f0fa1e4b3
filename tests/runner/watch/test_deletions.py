"""A file counts as gone after two looks at a folder in which files were seen."""

from __future__ import annotations

from paddock.runner.watch.deletions import Deletions
from paddock.runner.watch.listing import Listing
from paddock.runner.watch.spec import Seen

FULL = Listing((1, 1), {"b": Seen("b", 1, 1)})
EMPTY = Listing((1, 1))


def test_two_looks_some_time_apart_are_needed() -> None:
    deletions = Deletions(2)
    assert deletions.look(FULL, ["a"], 0) == ([], False)
    assert deletions.next_at() == 2
    assert deletions.look(FULL, ["a"], 1) == ([], False)
    assert deletions.look(FULL, ["a"], 2) == (["a"], False)
    assert deletions.next_at() is None


def test_a_file_that_was_seen_in_between_begins_anew() -> None:
    deletions = Deletions(2)
    deletions.look(FULL, ["a"], 0)
    deletions.look(FULL, [], 2)
    assert deletions.look(FULL, ["a"], 4) == ([], False)


def test_an_empty_folder_is_believed_where_files_were_seen() -> None:
    deletions = Deletions(2)
    deletions.look(FULL, [], 0)
    assert deletions.look(EMPTY, ["b"], 1) == ([], False)
    assert deletions.look(EMPTY, ["b"], 3) == (["b"], False)


def test_an_empty_folder_that_is_another_one_is_not_believed() -> None:
    deletions = Deletions(2)
    deletions.look(FULL, [], 0)
    for now, root in ((10, (2, 1)), (100, (2, 1)), (1000, (1, 2))):
        assert deletions.look(Listing(root), ["b"], now) == ([], True)
    assert deletions.look(FULL, [], 2000) == ([], False)


def test_an_empty_folder_at_the_start_is_not_believed() -> None:
    deletions = Deletions(2)
    for now in (0, 10, 100):
        assert deletions.look(EMPTY, ["b"], now) == ([], True)
