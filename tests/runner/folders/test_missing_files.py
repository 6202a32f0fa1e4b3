"""A file counts as gone after two looks at the folder in which it was seen."""

from paddock.runner.folders.folder_identity import FolderIdentity, known_folder
from paddock.runner.folders.missing_files import MissingFiles, is_mass_deletion, is_other_folder

SHARE, POINT = FolderIdentity("7:1"), FolderIdentity("1:9")


def test_two_looks_some_time_apart_are_needed() -> None:
    deletions = MissingFiles(2)
    assert deletions.look(["a"], 0) == []
    assert deletions.next_at() == 2
    assert deletions.look(["a"], 1) == []
    assert deletions.look(["a"], 2) == ["a"]
    assert deletions.next_at() is None


def test_a_file_that_was_seen_in_between_begins_again() -> None:
    deletions = MissingFiles(2)
    deletions.look(["a"], 0)
    deletions.look([], 2)
    assert deletions.look(["a"], 4) == []


def test_looks_at_another_folder_confirm_nothing() -> None:
    deletions = MissingFiles(2)
    deletions.look(["a"], 0)
    deletions.forget()
    assert deletions.look(["a"], 10) == []


def test_a_folder_that_lacks_files_is_the_same_only_where_it_is_known_to_be() -> None:
    assert not is_other_folder(SHARE, SHARE, n_absent=5, n_present=0)
    assert is_other_folder(SHARE, POINT, n_absent=1, n_present=99)
    assert not is_other_folder(
        SHARE, POINT, n_absent=0, n_present=5
    )  # mounted under another number


def test_where_no_folder_is_known_one_file_that_is_there_is_enough() -> None:
    assert is_other_folder(None, POINT, n_absent=5, n_present=0)
    assert not is_other_folder(None, POINT, n_absent=5, n_present=1)
    assert not is_other_folder(None, POINT, n_absent=0, n_present=0)


def test_a_folder_that_any_machine_saw_is_known_else_this_machine_s_counts() -> None:
    assert known_folder(SHARE, [POINT, SHARE]) == SHARE
    assert known_folder(FolderIdentity("3:3"), [POINT, SHARE]) == POINT
    assert known_folder(SHARE, []) is None


def test_a_person_is_asked_when_more_than_the_share_is_gone_and_never_of_one_file_alone() -> None:
    assert [n for n in range(11) if is_mass_deletion(n, 10, 0.5)] == [6, 7, 8, 9, 10]
    assert not is_mass_deletion(1, 1, 0.5)
    assert is_mass_deletion(1, 1, 0.0)
    assert not is_mass_deletion(10, 10, 1.0)
