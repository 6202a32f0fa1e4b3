"""The calculator among the built-in tools: exact fractions where it can, limits on size."""

from __future__ import annotations

import ast
import decimal
import math
import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeAlias

from paddock.engine.system.python_syntax import parse_expression

Number = int | Decimal

_MOST_CHARACTERS = 1_000
_MOST_NODES = 300
_MOST_BITS = 4_096  # some 1,200 digits
_DIGITS = 34
_CONTEXT = decimal.Context(
    prec=_DIGITS, Emax=6_000, Emin=-6_000,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)  # fmt: skip
# Other signs for multiplication, division and minus.
_SIGNS = str.maketrans("\u00d7\u00b7\u00f7\u2212\u2013", "**/--")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_CONSTANTS: Mapping[str, Number] = {"pi": Decimal(repr(math.pi)), "e": Decimal(repr(math.e))}


class CalculationError(Exception):
    """Not arithmetic, or without a result; the message is a plain sentence."""


def evaluate(expression: str) -> Number:
    """Return the value.

    >>> evaluate("1,234 * 2 + 0.1 + 0.2"), evaluate("2 ^ 10"), evaluate("sqrt(16)")
    (Decimal('2468.3'), 1024, 4)

    Raises:
        CalculationError: it is not arithmetic, or has no result.
    """
    text = expression.strip().removesuffix("=").strip().translate(_SIGNS).replace("^", "**")
    if not text:
        raise CalculationError("the expression is empty.")
    if len(text) > _MOST_CHARACTERS:
        raise CalculationError(f"it has more than {_MOST_CHARACTERS:,} characters.")
    if not re.search(r"[A-Za-z]", text):  # in `max(1,200)` the comma separates numbers
        text = _THOUSANDS.sub("", text)
    try:
        tree = parse_expression(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CalculationError(f"'{expression[:80]}' is not arithmetic.") from None
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise CalculationError("it has too many parts.")
    try:
        with decimal.localcontext(_CONTEXT) as context:
            value = _value(tree, context)
            if isinstance(value, Decimal) and value == value.to_integral_value():
                return int(value) if value.adjusted() < _DIGITS else value
            return value
    except ZeroDivisionError:
        raise CalculationError("it divides by zero.") from None
    except (decimal.Overflow, OverflowError):
        raise CalculationError("the result is too large.") from None
    except (decimal.InvalidOperation, ValueError):
        raise CalculationError("it has no result in real numbers.") from None


def format_number(value: Number) -> str:
    """Return a number as people write it.

    >>> format_number(Decimal("2.50")), format_number(Decimal("1E+40")), format_number(7)
    ('2.5', '1E+40', '7')
    """
    if isinstance(value, int):
        return str(value)
    value = value.normalize(_CONTEXT)
    is_short = -_DIGITS < value.adjusted() < _DIGITS
    return f"{value:f}" if is_short else str(value)


def _value(node: ast.AST, context: decimal.Context) -> Number:
    """Evaluate one node; the parser limits the depth."""
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CalculationError(f"'{value!s}' is not a number.")
        return _bounded(value if isinstance(value, int) else _decimal(value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        inner = _value(node.operand, context)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, context), _value(node.right, context)
        return _bounded(_OPERATORS[type(node.op)](left, right, context))
    if isinstance(node, ast.Name) and node.id.lower() in _CONSTANTS:
        return _CONSTANTS[node.id.lower()]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _bounded(_function_value(node, node.func.id.lower(), context))
    raise CalculationError(f"'{ast.unparse(node)[:80]}' is not arithmetic.")


def _decimal(value: float) -> Decimal:
    if not math.isfinite(value):
        raise CalculationError("a number in it is too large.")
    return Decimal(repr(value))


def _bounded(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise CalculationError("the result is too large.")
    return value


def _exact(whole: Callable[[int, int], int], name: str) -> Callable[..., Number]:
    def of(left: Number, right: Number, context: decimal.Context) -> Number:
        if isinstance(left, int) and isinstance(right, int):
            return whole(left, right)
        result: Decimal = getattr(context, name)(Decimal(left), Decimal(right))
        return result

    return of


def _divided(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return context.divide(Decimal(left), Decimal(right))


def _modulo(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    left, right = Decimal(left), Decimal(right)
    quotient = context.divide(left, right).to_integral_value(decimal.ROUND_FLOOR)
    return context.subtract(left, context.multiply(quotient, right))


def _floor_divided(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    return int(context.divide(Decimal(left), Decimal(right)).to_integral_value(decimal.ROUND_FLOOR))


def _power(left: Number, right: Number, context: decimal.Context) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right >= 0:
        if left.bit_length() * right > _MOST_BITS:
            raise CalculationError("the result is too large.")
        return int(left**right)
    return context.power(Decimal(left), Decimal(right))


_OPERATORS: Mapping[type[ast.operator], Callable[[Number, Number, decimal.Context], Number]] = {
    ast.Add: _exact(operator.add, "add"),
    ast.Sub: _exact(operator.sub, "subtract"),
    ast.Mult: _exact(operator.mul, "multiply"),
    ast.Div: _divided,
    ast.FloorDiv: _floor_divided,
    ast.Mod: _modulo,
    ast.Pow: _power,
}


def _function_value(node: ast.Call, name: str, context: decimal.Context) -> Number:
    arguments = [_value(argument, context) for argument in node.args]
    if name in _OF_MANY and arguments:
        return _OF_MANY[name](arguments)
    if name in _OF_ONE and len(arguments) == 1:
        return _OF_ONE[name](arguments[0], context)
    if name == "round" and len(arguments) in (1, 2):
        places = int(arguments[1]) if arguments[1:] else 0
        if abs(places) > _DIGITS:
            raise CalculationError(f"round takes at most {_DIGITS} places.")
        return Decimal(arguments[0]).quantize(Decimal(1).scaleb(-places), decimal.ROUND_HALF_UP)
    if name == "factorial" and len(arguments) == 1 and isinstance(arguments[0], int):
        value = arguments[0]
        if not 0 <= value <= _MOST_FACTORIAL:
            raise CalculationError(f"factorial takes 0 to {_MOST_FACTORIAL}.")
        return math.factorial(value)
    raise CalculationError(
        f"'{ast.unparse(node)[:80]}' is not a known function; known: {', '.join(FUNCTION_NAMES)}."
    )


_OfOne: TypeAlias = Callable[[Number, decimal.Context], Number]


def _real(function: Callable[[float], float]) -> _OfOne:
    return lambda value, _: _decimal(function(float(value)))


def _whole(rounding: str) -> _OfOne:
    return lambda value, context: int(Decimal(value).to_integral_value(rounding, context))


_MOST_FACTORIAL = 300
_OF_MANY: Mapping[str, Callable[[list[Number]], Number]] = {
    "max": lambda given: max(given),
    "min": lambda given: min(given),
    "sum": lambda given: sum(given, start=0),
}
_OF_ONE: Mapping[str, _OfOne] = {
    "abs": lambda value, _: -value if value < 0 else value,
    "sqrt": lambda value, context: context.sqrt(Decimal(value)),
    **{"ceil": _whole(decimal.ROUND_CEILING), "floor": _whole(decimal.ROUND_FLOOR)},
    **{"cos": _real(math.cos), "sin": _real(math.sin), "tan": _real(math.tan)},
    **{"exp": _real(math.exp), "ln": _real(math.log), "log": _real(math.log)},
    **{"log10": _real(math.log10), "log2": _real(math.log2)},
}
FUNCTION_NAMES = tuple(sorted({*_OF_MANY, *_OF_ONE, "round", "factorial"}))
