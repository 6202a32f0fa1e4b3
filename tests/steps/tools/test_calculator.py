"""Arithmetic: exact, bounded, and nothing else."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.steps.tools.calculator import CalculationError, evaluate, format_number


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("0.1 + 0.2", "0.3"),
        ("1,234.50 * 2", "2469"),
        ("(1200 * 0.19) + 42.5 =", "270.5"),
        ("7 \u00d7 6 \u00f7 2 \u2212 1", "20"),
        ("2 ^ 100", str(2**100)),
        ("-7 // 2", "-4"),
        ("-7.5 % 2", "0.5"),
        ("round(2.675, 2)", "2.68"),
        ("max(1, 20, 3) + min(4, 5) + abs(-6)", "30"),
        ("floor(-2.5) + ceil(2.1) + sqrt(81)", "9"),
        ("round(sin(pi / 2) + log10(1000), 6)", "4"),
        ("1 / 3", "0." + "3" * 34),
        ("1e20 * 1e20", "1E+40"),
    ],
)
def test_it_gives_what_a_person_expects(expression: str, result: str) -> None:
    assert format_number(evaluate(expression)) == result


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("1 / 0", "it divides by zero."),
        ("9 ** 9 ** 9", "the result is too large."),
        ("exp(100000)", "the result is too large."),
        ("1e999", "a number in it is too large."),
        ("sqrt(-1)", "it has no result in real numbers."),
        ("log(0)", "it has no result in real numbers."),
        ("__import__('os')", "'os' is not a number."),
        ("'a' * 9", "'a' is not a number."),
        ("open", "'open' is not arithmetic."),
        ("[1, 2]", "'[1, 2]' is not arithmetic."),
        ("", "the expression is empty."),
        ("factorial(100000)", "factorial takes 0 to 300."),
        ("1 +" * 400 + "1", "it has more than 1,000 characters."),
        ("-" * 900 + "1", "it has too many parts."),
    ],
)
def test_whatever_is_no_arithmetic_is_refused_in_a_sentence(expression: str, sentence: str) -> None:
    with pytest.raises(CalculationError) as caught:
        evaluate(expression)
    assert str(caught.value) == sentence


numbers = st.integers(-1000, 1000) | st.decimals(-100, 100, places=3).map(abs)


@given(st.lists(st.tuples(st.sampled_from("+-*"), numbers), max_size=8), numbers)
@settings(max_examples=60, deadline=None)
def test_sums_and_products_are_exact(steps: list[tuple[str, int | Decimal]], first: object) -> None:
    expression, expected = f"({first})", Fraction(str(first))
    for sign, number in steps[:4]:
        expression = f"({expression} {sign} ({number}))"
        value = Fraction(str(number))
        expected = {"+": expected + value, "-": expected - value, "*": expected * value}[sign]
    assert Fraction(evaluate(expression)) == expected
