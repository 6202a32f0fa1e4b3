import pytest

from paddock.pipelines.expressions import Expression, ExpressionError


def test_what_cannot_be_read_is_told_without_a_full_stop_of_its_own() -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression.of("words(output.title")
    assert caught.value.message == (
        "cannot read the expression 'words(output.title': unexpected the end, expected ','"
    )
    assert caught.value.remedy == "Correct it; the language is Jinja2's."
