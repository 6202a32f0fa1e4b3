"""When a file counts as there, as finished and as gone."""

import pytest

from paddock.engine.system.records import replace
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.folders.folder_identity import FolderIdentity, known_folder
from paddock.runner.folders.missing_files import MissingFiles, is_mass_deletion, is_other_folder
from paddock.runner.folders.unfinished_files import SettlingFiles
from paddock.steps.temporary_names import is_temporary, is_temporary_path

A = FileVersion("a", 10, 1, 7)


def test_one_look_settles_nothing_however_old_the_file_is() -> None:
    settling = SettlingFiles(2)
    settling.note_version(A, 100)
    assert list(settling.take_stable({"a": A}, 101.9)) == []
    assert list(settling.take_stable({"a": A}, 102)) == [A]
    assert len(settling) == 0


def test_whatever_changes_begins_the_time_again() -> None:
    grown, touched, other = replace(A, size=11), replace(A, mtime_ns=2), replace(A, inode=8)
    for changed in (grown, touched, other):
        settling = SettlingFiles(2)
        settling.note_version(A, 0)
        settling.note_version(changed, 1.5)
        assert list(settling.take_stable({"a": changed}, 2)) == []
        assert settling.next_at() == 3.5
        assert list(settling.take_stable({"a": changed}, 3.5)) == [changed]


def test_a_change_between_the_looks_is_seen_by_the_second() -> None:
    settling = SettlingFiles(2)
    settling.note_version(A, 0)
    grown = replace(A, size=11)
    assert list(settling.take_stable({"a": grown}, 5)) == []
    assert list(settling.take_stable({"a": grown}, 7)) == [grown]


def test_looking_again_and_again_delays_nothing() -> None:
    settling = SettlingFiles(2)
    for now in range(5):
        settling.note_version(A, now / 2)
    assert settling.to_check(2) == ["a"]


# --- gone after two looks at the folder in which it was seen


SHARE, POINT = FolderIdentity("7:1"), FolderIdentity("1:9")


def test_two_looks_some_time_apart_are_needed() -> None:
    deletions = MissingFiles(2)
    assert deletions.confirm_missed(["a"], 0) == []
    assert deletions.next_at() == 2
    assert deletions.confirm_missed(["a"], 1) == []
    assert deletions.confirm_missed(["a"], 2) == ["a"]
    assert deletions.next_at() is None


def test_a_folder_that_lacks_files_is_the_same_only_where_it_is_known_to_be() -> None:
    assert not is_other_folder(SHARE, SHARE, n_absent=5, n_present=0)
    assert is_other_folder(SHARE, POINT, n_absent=1, n_present=99)
    assert not is_other_folder(
        SHARE, POINT, n_absent=0, n_present=5
    )  # mounted under another number


def test_a_folder_that_any_machine_saw_is_known_else_this_machine_s_counts() -> None:
    assert known_folder(SHARE, [POINT, SHARE]) == SHARE
    assert known_folder(FolderIdentity("3:3"), [POINT, SHARE]) == POINT
    assert known_folder(SHARE, []) is None


def test_a_person_is_asked_when_more_than_the_share_is_gone_and_never_of_one_file_alone() -> None:
    assert [n for n in range(11) if is_mass_deletion(n, 10, 0.5)] == [6, 7, 8, 9, 10]
    assert not is_mass_deletion(1, 1, 0.5)
    assert is_mass_deletion(1, 1, 0.0)
    assert not is_mass_deletion(10, 10, 1.0)


# --- temporary names, in whatever folder


@pytest.mark.parametrize(
    "name",
    [
        ".hidden", ".DS_Store", "._a.txt", ".a.txt.swp", ".~lock.a.odt#", "~$a.docx", "a.txt~",
        "a.tmp", "A.TMP", "a.part", "a.pdf.crdownload", "4913", "@eaDir", "#recycle",
        "__MACOSX", "Thumbs.db", "a.mp4.download", ".a.md.1f2e.paddock-tmp",
    ],
)  # fmt: skip
def test_a_temporary_name(name: str) -> None:
    assert is_temporary(name)
    assert is_temporary_path(f"sub/{name}/a.txt")


@pytest.mark.parametrize("name", ["a.txt", "4913.txt", "partial", "tmp", "a.party", "~a", "é.md"])
def test_an_ordinary_name(name: str) -> None:
    assert not is_temporary(name)
