"""What may be None, and in a test must not be."""

from typing import TypeVar

_T = TypeVar("_T")


def present(value: _T | None) -> _T:
    assert value is not None
    return value
