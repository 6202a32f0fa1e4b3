"""What every page does with texts of others."""

import re

import pytest

from paddock.runner.render.html_page import COLOUR_CSS, html_page
from paddock.runner.testing.junit_and_markdown import SuiteResult
from paddock.runner.testing.results_page import suites_page


def test_marks_that_turn_the_direction_of_a_name_are_seen_but_stay_in_attributes() -> None:
    page = html_page("a\u202etxt.exe", "notes.html", notes=["b\u2067c", "\u05e9\u05dc\u05d5\u05dd"])
    assert "<title>a\\u202etxt.exe</title>" in page
    assert ">b\\u2067c</p>" in page and ">\u05e9\u05dc\u05d5\u05dd</p>" in page
    page = suites_page([SuiteResult("gpj\u202eexe", "p.yaml", ())])
    assert ">gpj\\u202eexe</h2>" in page and 'aria-label="gpj\u202eexe"' in page


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_written_or_drawn_can_be_told_from_what_is_behind_it(scheme: int) -> None:
    named = re.findall(r"--([a-z]+):#([0-9a-f]+)", COLOUR_CSS.split("@media")[scheme])
    colours = {name: luminance(colour) for name, colour in named}
    texts = {"ink", "soft", "done", "fresh", "failed", "running", "left", "work", "known"}
    for behind in ("paper", "box"):
        for name in (*texts, "line"):
            dark, light = sorted((colours[name], colours[behind]))
            least = 4.5 if name in texts else 3.0
            assert (light + 0.05) / (dark + 0.05) >= least, (name, behind)
