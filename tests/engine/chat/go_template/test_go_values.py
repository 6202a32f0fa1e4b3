from typing import Any

import pytest

from paddock.engine.chat.go_template.go_values import go_float_text, sprint, sprintf


def formatted(form: str, *values: Any) -> str:
    return sprintf(form, values, lambda n_chars: None)


@pytest.mark.parametrize(
    ("form", "values", "expected"),
    [
        ("%s|%10s|%-5s|%.2s", ["a", "b", "c", "def"], "a|         b|c    |de"),
        ("%d|%5d|%-5d|%05d|%+d", [1, 2, 3, 4, 5], "1|    2|3    |00004|+5"),
        ("%x|%X|%o|%b|%c|%U", [255, 255, 8, 5, 65, 65], "ff|FF|10|101|A|U+0041"),
        ("%x", ["hi"], "6869"),
        (
            "%f|%.1f|%8.3f|%e|%g",
            [1.5, 1.25, 2.0, 1500.0, 0.1],
            "1.500000|1.2|   2.000|1.500000e+03|0.1",
        ),
        ("%t %v %v", [True, None, [1, "a"]], "true <nil> [1 a]"),
        ("%q %q", ['a"b\n\x01', 65], '"a\\"b\\n\\x01" \'A\''),
        ("%T %T %T", [1, "a", None], "int string <nil>"),
        ("%*d", [5, 42], "   42"),
        ("100%%", [], "100%"),
        ("%d", ["x"], "%!d(string=x)"),
        ("%s", [], "%!s(MISSING)"),
        ("a", [1, "b"], "a%!(EXTRA int=1, string=b)"),
        ("%", [], "%!(NOVERB)"),
        ("%z", [1], "%!z(int=1)"),
        ("%9999999d", [1], "%!(BADWIDTH)1"),
        ("%#v", ["a"], '"a"'),
    ],
)
def test_printf_writes_as_go_does(form: str, values: list[Any], expected: str) -> None:
    assert formatted(form, *values) == expected


def test_print_puts_spaces_between_what_is_no_text() -> None:
    assert sprint([1, 2, "a", "b", 3, None, True]) == "1 2ab3 <nil> true"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1"), (-0.25, "-0.25"), (123456.0, "123456"), (1234567.0, "1.234567e+06"),
        (1e21, "1e+21"), (0.0001, "0.0001"), (0.00001, "1e-05"), (0.0, "0"), (-0.0, "-0"),
        (float("nan"), "NaN"), (float("-inf"), "-Inf"), (5e-324, "5e-324"),
    ],
)  # fmt: skip
def test_floats_are_as_short_as_they_may_be(value: float, expected: str) -> None:
    assert go_float_text(value) == expected
