"""Temporary names are left alone, in whatever folder and however they are written."""

import pytest

from paddock.steps.files.folder_walk import is_temporary, is_temporary_path


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
