"""Calls of a method that goes on working, noted."""

from collections.abc import Callable
from typing import Any

import pytest


def note_calls(
    patch: pytest.MonkeyPatch, owner: object, name: str, note: Callable[..., object]
) -> None:
    """Call `note` with the result and the arguments of each call, after it."""
    real = getattr(owner, name)

    def noted(*args: Any, **named: Any) -> Any:
        result = real(*args, **named)
        note(result, *args)
        return result

    patch.setattr(owner, name, noted)
