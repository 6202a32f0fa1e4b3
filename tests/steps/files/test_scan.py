import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.engine.system.no_links import open_folder
from paddock.runner.folders.file_filter import WatchFilter, WatchSpec
from paddock.steps.base import StepError
from paddock.steps.files.scan import FilesScan, FilesScanOutput, FilesScanParams
from tests.fakes.tools import Call, FakeOutputs, FakeTools


@pytest.fixture
def scan(hands: FakeTools) -> Call:
    def scan(root: str = ".", **wishes: Any) -> FilesScanOutput:
        return asyncio.run(FilesScan().run(FilesScanParams(root=root, **wishes), hands))

    return scan


def lay(base: Path, *names: str) -> None:
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def listed(out: FilesScanOutput) -> list[str]:
    return [file["relpath"] for file in out.files]


def test_each_file_tells_what_it_is(tmp_path: Path, scan: Call) -> None:
    lay(tmp_path, "sub/Report.v2.MD")
    os.utime(tmp_path / "sub/Report.v2.MD", (1_700_000_000, 1_700_000_000))
    [file] = scan().files
    assert file == {
        "path": str(tmp_path.resolve() / "sub" / "Report.v2.MD"),
        "relpath": "sub/Report.v2.MD",
        "name": "Report.v2.MD",
        "stem": "Report.v2",
        "suffix": ".MD",
        "size": 16,
        "modified": "2023-11-14T22:13:20Z",
        "sha256": hashlib.sha256(b"sub/Report.v2.MD").hexdigest(),
    }


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["**/*.{md,txt}"], [], ["a.md", "docs/b.txt", "docs/old/c.md"]),
        (["*.md"], [], ["a.md", "docs/old/c.md"]),
        (["/*.md"], [], ["a.md"]),
        (["docs"], [], ["docs/b.txt", "docs/e.pdf", "docs/old/c.md"]),
        (["docs/"], ["*.pdf"], ["docs/b.txt", "docs/old/c.md"]),
        (["**/*"], ["docs"], ["a.md"]),
        (["**/*"], ["old/"], ["a.md", "docs/b.txt", "docs/e.pdf"]),
        (["**/*", "!*.md"], [], ["docs/b.txt", "docs/e.pdf"]),
        (["**/*"], ["*.md", "!c.md"], ["docs/b.txt", "docs/e.pdf", "docs/old/c.md"]),
        (["**/[a-b].*"], [], ["a.md", "docs/b.txt"]),
        (["**/*.PDF"], [], []),
    ],
)
def test_patterns_mean_what_they_mean_in_a_gitignore(
    tmp_path: Path, scan: Call, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    lay(tmp_path, "a.md", "docs/b.txt", "docs/old/c.md", "docs/e.pdf")
    assert listed(scan(include=include, exclude=exclude)) == expected


def test_the_newest_are_those_changed_last(tmp_path: Path, scan: Call) -> None:
    lay(tmp_path, "a", "b", "c")
    for name, when in (("a", 300), ("b", 100), ("c", 200)):
        os.utime(tmp_path / name, (when, when))
    assert listed(scan(newest=2)) == ["a", "c"]


def test_a_suffix_in_other_letters_case_is_left_out_and_said(
    tmp_path: Path, scan: Call, hands: FakeTools
) -> None:
    lay(
        tmp_path,
        "a.pdf",
        "scans/SCAN.1.PDF",
        "b.Pdf",
        "c.txt",
        "PDF",
        "old/d.PDF",
        "e.exe",
        "f.EXE",
    )
    assert listed(scan(include=["*.{pdf,exe}"], exclude=["*.EXE", "/old/"])) == ["a.pdf", "e.exe"]
    assert hands.notes == [
        ".: 'b.Pdf', 'scans/SCAN.1.PDF' left out, `include` has the suffix in another case."
    ]


def test_followed_links_end_their_circles_and_stay_inside(
    tmp_path: Path, scan: Call, hands: FakeTools
) -> None:
    lay(tmp_path, "in/real/a.txt", "in/b.txt", "beside/c.txt")
    (tmp_path / "in/real/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/file.txt").symlink_to(tmp_path / "in/b.txt")
    (tmp_path / "in/beside").symlink_to(tmp_path / "beside")
    (tmp_path / "in/self").symlink_to(tmp_path / "in/self")
    (tmp_path / "in/broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in/etc").symlink_to("/etc")
    assert listed(scan("in", follow_links=True)) == [
        "b.txt",
        "beside/c.txt",
        "file.txt",
        "real/a.txt",
    ]
    assert hands.notes == [
        "in: 'broken', 'etc', 'self' left out, symbolic links outside the allowed folders, or "
        "broken."
    ]


def test_a_folder_that_cannot_be_read_is_said_and_the_others_go_on(
    tmp_path: Path, scan: Call, hands: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "a.txt", "locked/b.txt", "open/c.txt")
    opened = open_folder

    def refuse(path: str) -> int:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path)

    monkeypatch.setattr("paddock.steps.files.folder_walk.open_folder", refuse)
    assert listed(scan()) == ["a.txt", "open/c.txt"]
    assert hands.notes == [".: 'locked/' left out, the folder cannot be read."]


def test_a_file_that_cannot_be_read_is_listed_without_a_hash(
    tmp_path: Path, scan: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "a.txt", "b.txt")

    def refuse(path: str, **_: bool) -> str:
        if path.endswith("a.txt"):
            raise PermissionError(13, "Permission denied", path)
        raise FileNotFoundError(2, "gone", path)

    monkeypatch.setattr("paddock.steps.files.scan.sha256_of", refuse)
    [file] = scan().files
    assert (file["relpath"], file["sha256"]) == ("a.txt", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inbox", "the folder '{}/inbox' does not exist. Correct `root`, or create the folder."),
        ("a.txt", "'{}/a.txt' is a file, not a folder. Correct `root`."),
    ],
)
def test_a_root_that_is_no_folder_is_an_error(
    scan: Call, tmp_path: Path, name: str, said: str
) -> None:
    lay(tmp_path, "a.txt")
    with pytest.raises(StepError) as caught:
        scan(name)
    assert str(caught.value) == said.format(tmp_path.resolve())
    with pytest.raises(StepError, match="leads outside the pipeline's folders"):
        scan("..")


def test_patterns_that_are_none_are_faults() -> None:
    with pytest.raises(ValidationError, match="'!/' is not a pattern"):
        FilesScanParams(root=".", include=["!/"])
    with pytest.raises(ValidationError, match="is invalid"):
        FilesScanParams(root=".", include=["{1..2000}"])


def test_an_empty_listing_says_why(tmp_path: Path, scan: Call, hands: FakeTools) -> None:
    lay(tmp_path, "in/a.md", "in/b.md", "in/c/d.pdf", "in/c/e.pdf")
    (tmp_path / "none").mkdir()
    for wishes in (
        {"root": "none"},
        {"root": "in", "include": ["*.txt", "*.csv"]},
        {"root": "in/c", "include": ["*.pdf"], "exclude": ["d*", "e*"]},
        {"root": "in", "include": ["a.md"], "exclude": ["c/"]},
    ):
        scan(**wishes)
    assert hands.notes == [
        "none: the folder has no files.",
        "in: 4 files are there, and none matches `include` ('*.txt', '*.csv'): "
        "'a.md', 'b.md', 'c/d.pdf' and 1 more.",
        "in/c: 2 files are there, and none matches `include` ('*.pdf') without `exclude` "
        "('d*', 'e*'): 'd.pdf', 'e.pdf'.",
    ]


def test_temporary_and_deleted_files_are_left_out_as_by_a_watch(
    tmp_path: Path, scan: Call, hands: FakeTools
) -> None:
    left_out = (
        "#recycle/old.docx", "~$letter.docx", "@eaDir/a.txt", "a.pdf.part", "4913", "letter.txt~",
        "sub/Thumbs.db", "sub/x.TMP", "a.crdownload", "lost+found/a.txt",
    )  # fmt: skip
    lay(tmp_path, "sub/a.part", "sub/.b")
    assert listed(scan("sub")) == []
    assert hands.notes == ["sub: the folder has no files but temporary ones: 'a.part'."]
    lay(tmp_path, "a.txt", "4913.txt", "parts/a.part.txt", *left_out)
    assert listed(scan()) == ["4913.txt", "a.txt", "parts/a.part.txt"]
    assert listed(scan(include=["*.part", "letter*", "#recycle"])) == []
    watch = WatchFilter(WatchSpec("w", tmp_path))
    assert [name for name in left_out if watch.wants(name)] == []


def test_what_is_no_document_is_left_out_and_most_of_it_said(
    tmp_path: Path, scan: Call, hands: FakeTools
) -> None:
    """Hidden files, our own outputs, stores, pipes and links that no one wants need no words."""
    lay(tmp_path, "a.md", ".hidden.md", ".paddock/x.md", "out/a.md.md", ".a.md.1234.paddock-tmp")
    lay(tmp_path, "index.lance/rows.lance/data/x", "out/store/rows.lance/y", "b.lance")
    lay(
        tmp_path,
        "out/store/.paddock.json",
        "much-longer",
        "other-long",
        "third-long",
        "fourth-long",
    )
    assert isinstance(hands.files.outputs, FakeOutputs)
    hands.files.outputs.known[tmp_path.resolve() / "out" / "a.md.md"] = {"0"}
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.md")
    (tmp_path / "again").symlink_to(tmp_path / "out")
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**31)
    assert listed(scan(include=["**/*", ".*"], max_bytes=9)) == ["a.md", "b.lance"]
    with_outputs = scan(include=["*.md", "out/*.md"], outputs=True)
    assert listed(with_outputs) == ["a.md", "out/a.md.md"]
    hands.notes[1:] = []
    longer = "'fourth-long', 'holes', 'much-longer' and 2 more left out, larger than max_bytes (9)."
    assert hands.notes == [f".: {longer}"]
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))).write_text("x")
    scan(include=["caf*", "holes", "a.md"])
    assert hands.notes[1:] == [
        ".: 'holes' left out, nearly nothing of the size is on the disk.",
        r".: 'caf\xe9.txt' left out, the name is not UTF-8.",
    ]
