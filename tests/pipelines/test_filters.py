import random
import textwrap

import pytest

from paddock.engine.system.template_filters import wordwrap
from paddock.pipelines.expressions import Expression, ExpressionError


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("[1, [2, [3, []]]] | flatten", [1, 2, 3]),
        ("['a', 'b'] | zip([1, 2, 3])", [["a", 1], ["b", 2]]),
        ("['a', 'b'] | enumerate(1)", [[1, "a"], [2, "b"]]),
        ("'a; b; c' | split('; ', 1)", ["a", "b; c"]),
        ("' a  b ' | split", ["a", "b"]),
        ('\'{"a": [1, null, "ü"]}\' | fromjson', {"a": [1, None, "ü"]}),
        ("[{'a': 1}, {'a': 1}, [2], [2], 3, 3, 'X', 'x'] | unique", [{"a": 1}, [2], 3, "X"]),
    ],
)
def test_lists_and_texts_are_taken_apart_and_put_together(source: str, wanted: object) -> None:
    assert Expression.of(source).evaluate({}) == wanted


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("'Gesamt: 2.120,00 €' | number_in", 2120),
        ("'EUR -61.40 (refund)' | number_in", -61.4),
        ("['1.234', '5 million', '40 to 50', 'F-309', '2 of 3', '3 May 2024'] | map('number_in')"
         " | reject('none') | list", []),
        ("('9' * 17) | number_in or ('9' * 400) | number_in", None),  # would lose digits
        ("'1.234' | number_in('de')", 1234),
        ("'zahlbar bis 28. Oktober 2026' | date_in", "2026-10-28"),
        ("['03/05/2024', '3 May', '31.02.2024', '2 May 2024 or 3 May 2024'] | map('date_in')"
         " | reject('none') | list", []),
        ("'03/05/2024' | date_in('de')", "2024-05-03"),
        ("none | number_in or none | date_in", None),
        ("(84 | evidence_in('Net: ~~84~~\\nTotal: 84,00 EUR')).line", 2),
        ("({'total': 84, 'paid': none} | evidence_in('84')).paid", None),
    ],
)  # fmt: skip
def test_the_number_or_date_of_a_line_is_read_and_null_where_it_may_be_two(
    source: str, wanted: object
) -> None:
    assert Expression.of(source).evaluate({}) == wanted


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("'x' | flatten", "flatten takes a list"),
        ("[1] | zip(1)", "zip takes a list"),
        ("[1] | first | fromjson", "fromjson takes a text"),
        ("'[1,' | fromjson", "the text is not JSON: Expecting value (line 1, column 4)"),
        ("'[NaN]' | fromjson", "the text is not JSON: it has NaN"),
        ("'1e999' | fromjson", "the text is not JSON: it has 1e999"),
        ("('[' * 90000) | fromjson", "it is nested too deeply"),
        ("'12,50' | float", "'12,50' is no number. `number_in` reads one as people write it"),
        ("'1.234,50' | int", "'1.234,50' is no number. `number_in`"),
        ("['7', '12 EUR'] | map('float') | list", "'12 EUR' is no number."),
        ("'' | int", "'' is no number."),
        ("'nan' | float", "'nan' is no number."),
        ("'1_000' | int", "'1_000' is no number."),
        ("none | float > 10", "null is no number."),
        ("[] | int", "'[]' is no number."),
        ("('a' * 5000000) | split('b')", "the text would have more than 4,000,000 characters"),
        ("range(99999) | list | tojson(1000)", "a text of more than 33,554,432 characters"),
        ("range(99999) | zip(*[range(99999)] * 9)", "more than 1,000,000 values"),
    ],
)
def test_what_such_a_filter_cannot_do_is_one_sentence(source: str, told: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression.of(source).evaluate({})
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (
            "[2.675, -2.675, 0.285, 1.005, 2.5, 1e300, 7] | map('round', 2) | list",
            [2.68, -2.68, 0.29, 1.01, 2.5, 1e300, 7],
        ),
        (
            "[1.1 | round(2, 'ceil'), 0.29 | round(2, 'floor'), 2.5 | round, 1250.0 | round(-2)]",
            [1.1, 0.29, 3, 1300],
        ),
        ("'12.50' | float", 12.5),
        ("' 7 ' | int", 7),
        ("'12.50' | int", 12),
        ("'ff' | int(0, 16)", 255),
        ("true | int", 1),
        ("'1e3' | float", 1000),
        ("'12,50' | float(0)", 0),
        ("'n/a' | int(-1)", -1),
        ("'n/a' | float(none)", None),
        ("none | int(default=3)", 3),
        ("'inf' | float('')", ""),
    ],
)
def test_a_number_is_read_or_rounded_as_people_do(source: str, wanted: object) -> None:
    assert Expression.of(source).evaluate({}) == wanted


def test_wordwrap_gives_what_the_standard_library_gives() -> None:
    chance = random.Random(1)
    for _ in range(60):
        words = "".join(chance.choice("ab- .\n") for _ in range(chance.randint(0, 60)))
        text = words + chance.choice(["", "x" * 1500, "x-y" * 500, "--" * 700])
        width = chance.randint(1, 30)
        lines = [textwrap.wrap(line, width) for line in text.split("\n")]
        assert wordwrap(text, width) == "\n".join("\n".join(one) for one in lines)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("[[1]] | sum(start=[])",
         "`start` of `sum` must be a number. `flatten` makes one list of lists."),
        ("x | truncate_words", "`truncate_words` needs `count`"),
        ("x | truncate_words('3')", "`count` of `truncate_words` must be a whole number"),
        ("x | truncate_words(3, count=3)", "`truncate_words` is given `count` twice"),
        ("x | upper(3)", "`upper` takes fewer arguments"),
        ("x | split(1)", "`sep` of `split` must be a text"),
        ("x | first(n=1)", "`first` takes no `n`. It takes none."),
    ],
)  # fmt: skip
def test_a_filter_that_can_only_fail_is_a_fault_before_anything_runs(
    source: str, told: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression.of(source)
    assert str(caught.value) == f"'{source}' is refused: {told}"


def test_what_only_a_run_shows_of_a_filters_arguments_is_no_fault() -> None:
    for source in ("x | truncate_words(n)", "x | sum(start=n)", "x | truncate(9, true, '')",
                   "x | indent('> ')", "x | join(1)", "x | map('truncate_words', 3) | list",
                   "x | truncate_words(*args)", "x | truncate_words(**args)",
                   "x | indent(4, 1)", "x | round(1, 'floor')"):  # fmt: skip
        Expression.of(source)
