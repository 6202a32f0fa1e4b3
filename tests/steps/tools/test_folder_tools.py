"""Documents of one folder: found and read, never those above it or hidden in it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from paddock.steps.base import Roots, StepError, ToolResult
from paddock.steps.tools import builtin_tools
from paddock.steps.tools.tool import ToolContext
from tests.fakes.tools import FakeLog

LOG = FakeLog()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LOG.notes.clear()
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# Ferry\nThe ferry leaves at nine.\nBees stay.\n")
    (docs / "b.txt").write_text("nothing here")
    (docs / ".hidden").write_text("the ferry's password")
    (docs / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    (tmp_path / "secret.txt").write_text("the ferry's key")
    (docs / "link.txt").symlink_to(tmp_path / "secret.txt")
    return tmp_path.resolve()


def call(folder: Path, name: str, options: dict[str, Any] | None = None, **args: Any) -> ToolResult:
    within = ToolContext(Roots(folder, (folder,)), LOG)
    tool = builtin_tools.bind_builtin(name, options or {"root": "docs"}, within)
    return asyncio.run(tool.do(args))  # type: ignore[arg-type]


def test_lines_are_found_by_their_words_in_any_case(folder: Path) -> None:
    assert call(folder, "files.search", query="FERRY nine").value == [
        {"path": "a.md", "line": 2, "text": "The ferry leaves at nine."}
    ]
    assert call(folder, "files.search", query="password", pattern="*.md").text == (
        "Nothing was found."
    )
    assert call(folder, "files.search", query="key").value == []


def test_accents_are_found_whether_they_are_characters_of_their_own(folder: Path) -> None:
    (folder / "docs" / "mac.txt").write_text("Gebu\u0308hr: 40\n")
    assert call(folder, "files.search", query="gebühr").value == [
        {"path": "mac.txt", "line": 1, "text": "Gebu\u0308hr: 40"}
    ]
    (folder / "docs" / "mac.txt").write_text("Gebühr: 40\n")
    assert len(call(folder, "files.search", query="gebu\u0308hr").value) == 1


@pytest.mark.parametrize("query", ["2^3", "2\\^3", "a|b", "~~x", "<!--", "[^1]"])
def test_what_a_page_shows_is_found_though_its_text_has_backslashes(
    folder: Path, query: str
) -> None:
    page = "<table><tr><td>2^3</td><td>a|b ~~x &lt;!-- [^1]</td></tr></table>"
    (folder / "docs" / "page.html").write_text(page)
    hits = call(folder, "files.search", query=query, pattern="page.html").value
    assert [hit["text"] for hit in hits] == [r"| 2\^3 | a\|b \~~x \<!-- [\^1] |"]
    assert call(folder, "files.search", query="23", pattern="page.html").value == []


def test_what_is_not_searched_is_named_in_the_answer_and_noted(folder: Path) -> None:
    unread = "1 document was not searched, being too large, too many or not readable: bad.pdf"
    assert call(folder, "files.search", query="ferry nine").text == (
        f"a.md:2: The ferry leaves at nine.\n[{unread}]"
    )
    assert LOG.notes == [f"'docs': {unread}."]


def test_what_a_document_hides_is_noted(folder: Path) -> None:
    (folder / "docs" / "page.html").write_text("<p>Ferry</p><p hidden>Pay now</p>")
    note = (
        "'page.html': text that the page does not show is read as well (7 characters: 'Pay now')."
    )
    assert "Pay now" in call(folder, "files.read", path="page.html").text
    assert LOG.notes == [note]
    assert "Pay now" in call(folder, "files.search", query="pay", pattern="*.html").text
    assert LOG.notes == [note, note]


def test_without_words_documents_are_listed(folder: Path) -> None:
    assert call(folder, "files.search", pattern="*.md").text == "a.md (45 bytes)"
    assert call(folder, "files.search", pattern="[").text.startswith("Nothing was found.")
    found = call(folder, "files.search", limit=1)
    assert len(found.value) == 1


def test_a_document_is_read_in_parts(folder: Path) -> None:
    part = call(folder, "files.read", path="a.md", limit=7)
    assert part.text == "# Ferry\n[38 characters follow; continue at offset 7]"
    assert call(folder, "files.read", path="a.md", offset=36).value["left"] == 0


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "link.txt", ".hidden", "x\0y"])
def test_what_lies_elsewhere_or_is_hidden_is_no_document(folder: Path, path: str) -> None:
    result = call(folder, "files.read", path=path)
    assert (result.is_error, result.text) == (True, f"'{path}' is not a document in this folder.")


def test_a_document_that_cannot_be_read_says_why_without_the_machines_paths(folder: Path) -> None:
    result = call(folder, "files.read", path="bad.pdf")
    assert result.is_error
    assert str(folder) not in result.text
    assert "bad.pdf" in result.text
    assert "it does not exist" in call(folder, "files.read", path="none.md").text


def test_a_root_outside_is_the_authors_mistake(folder: Path) -> None:
    with pytest.raises(StepError, match="leads outside the pipeline's folders"):
        call(folder, "files.search", {"root": ".."})
