"""What every page does with texts of others."""

from paddock.runner.render.html_page import html_page
from paddock.runner.testing.junit_and_markdown import SuiteResult
from paddock.runner.testing.results_page import suites_page


def test_marks_that_turn_the_direction_of_a_name_are_seen_but_stay_in_attributes() -> None:
    page = html_page("a\u202etxt.exe", "notes.html", notes=["b\u2067c", "\u05e9\u05dc\u05d5\u05dd"])
    assert "<title>a\\u202etxt.exe</title>" in page
    assert ">b\\u2067c</p>" in page and ">\u05e9\u05dc\u05d5\u05dd</p>" in page
    page = suites_page([SuiteResult("gpj\u202eexe", "p.yaml", ())])
    assert ">gpj\\u202eexe</h2>" in page and 'aria-label="gpj\u202eexe"' in page
