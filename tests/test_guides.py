"""The guide's pages: narrow enough to read, links that lead somewhere, an example that is run."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MOST_COLUMNS = 100
MOST_WORDS = 1_250  # five minutes at 250 words a minute
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for glob in ("*.md", "for/*.md", "*/README.md") for page in EXAMPLES.glob(glob)),
    ],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
GUIDE = re.findall(r"^\| \[[^]]+\]\((\w+\.md)\)", (EXAMPLES / "GUIDE.md").read_text("utf-8"), re.M)
NOT_BY_AN_EXAMPLE = {
    "TUTORIAL.md",
    "MACHINES.md",
    "PREFECT.md",
    "REFERENCE.md",
}  # have tests of their own
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
_EXAMPLE = re.compile(r"\bexamples/([a-z-]+)|\]\(([a-z-]+)/README\.md\)")


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines outside of code, tables, headings and pictures."""
    is_code = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "#", "![", "    ")):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_narrow_and_its_links_lead_somewhere(page: Path) -> None:
    wide = [number for number, line in prose(page) if len(line) > MOST_COLUMNS and " " in line]
    links = _LINK.findall(page.read_text("utf-8"))
    assert (wide, [link for link in links if not (page.parent / link).exists()]) == ([], [])


@pytest.mark.parametrize("name", GUIDE)
def test_a_page_of_the_guide_takes_five_minutes_and_names_an_example_with_tests(name: str) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    named = {EXAMPLES / (found[0] or found[1]) for found in _EXAMPLE.findall(text)}
    if name not in NOT_BY_AN_EXAMPLE:
        assert any((folder / "tests").is_dir() for folder in named), "run by test_examples.py"
        assert len(" ".join(line for _, line in prose(EXAMPLES / name)).split()) <= MOST_WORDS
