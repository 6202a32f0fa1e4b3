"""A file has settled when a second look, late enough, shows it as the first one did."""

from dataclasses import replace

from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.folders.unfinished_files import SettlingFiles

A = FileVersion("a", 10, 1, 7)


def test_one_look_settles_nothing_however_old_the_file_is() -> None:
    settling = SettlingFiles(2)
    settling.see(A, 100)
    assert list(settling.stable({"a": A}, 101.9)) == []
    assert list(settling.stable({"a": A}, 102)) == [A]
    assert len(settling) == 0


def test_whatever_changes_begins_the_time_again() -> None:
    grown, touched, other = replace(A, size=11), replace(A, mtime_ns=2), replace(A, inode=8)
    for changed in (grown, touched, other):
        settling = SettlingFiles(2)
        settling.see(A, 0)
        settling.see(changed, 1.5)
        assert list(settling.stable({"a": changed}, 2)) == []
        assert settling.next_at() == 3.5
        assert list(settling.stable({"a": changed}, 3.5)) == [changed]


def test_a_change_between_the_looks_is_seen_by_the_second() -> None:
    settling = SettlingFiles(2)
    settling.see(A, 0)
    grown = replace(A, size=11)
    assert list(settling.stable({"a": grown}, 5)) == []
    assert list(settling.stable({"a": grown}, 7)) == [grown]


def test_looking_again_and_again_delays_nothing() -> None:
    settling = SettlingFiles(2)
    for now in range(5):
        settling.see(A, now / 2)
    assert settling.to_check(2) == ["a"]


def test_what_is_not_there_any_more_is_forgotten() -> None:
    settling = SettlingFiles(2)
    settling.see(A, 0)
    assert list(settling.stable({"a": None}, 2)) == []
    settling.see(A, 3)
    settling.keep({})
    assert len(settling) == 0
    assert settling.next_at() is None
