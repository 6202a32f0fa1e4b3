"""What every offline page does with texts of others."""

from __future__ import annotations

from paddock.runner.render.html_page import html_page


def test_marks_that_turn_the_direction_of_a_name_are_seen_but_stay_in_forms() -> None:
    field, hebrew = (
        "<input type='hidden' value='gpj\u202eexe'>",
        "<td>\u05e9\u05dc\u05d5\u05dd</td>",
    )
    page = html_page("a\u202etxt.exe", ["<p>b\u2067c</p>", field, hebrew])
    assert "<title>a\\u202etxt.exe</title>" in page and "<p>b\\u2067c</p>" in page
    assert field in page and hebrew in page
