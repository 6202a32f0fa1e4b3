"""A filter that can only fail is a fault before anything runs."""

import pytest

from paddock.pipelines.expressions import Expression, ExpressionError


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("[[1]] | sum(start=[])",
         "`start` of `sum` must be a number. `flatten` makes one list of lists."),
        ("[1] | sum(begin=1)", "`sum` takes no `begin`. Known: 'attribute', 'start'."),
        ("x | truncate_words", "`truncate_words` needs `count`"),
        ("x | truncate_words('3')", "`count` of `truncate_words` must be a whole number"),
        ("x | truncate_words(3, count=3)", "`truncate_words` is given `count` twice"),
        ("x | upper(3)", "`upper` takes fewer arguments"),
        ("x | split(1)", "`sep` of `split` must be a text"),
        ("[] | fromjson", "`value` of `fromjson` must be a text"),
        ("x | flatten('all')", "`levels` of `flatten` must be a whole number"),
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
                   "x | sum(*args)", "x | indent(4, 1)", "x | round(1, 'floor')"):  # fmt: skip
        Expression.of(source)
