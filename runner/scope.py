"""What expressions see: inputs, steps that are done, loop variables. Plain JSON data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Scope(dict[str, Any]):
    """The names of one item's world. A child sees its parents'; nothing is ever changed in place.

    >>> scope = Scope.of({"folder": "in"}).with_step("text", {"text": "Hello"})
    >>> scope["steps"]["text"]
    {'text': 'Hello', 'skipped': False}
    """

    @classmethod
    def of(cls, inputs: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> Scope:
        """Give the outermost scope; only the places that may read secrets name them."""
        named = {"secrets": dict(secrets)} if secrets else {}
        return cls(inputs=dict(inputs), steps={}, **named)

    def child(self, names: str | Mapping[str, Any], item: Any = None) -> Scope:
        """Give the scope of one item of a `for_each`: one name and its value, or several."""
        added = {names: item} if isinstance(names, str) else names
        return Scope({**self, **added})

    def with_step(
        self, step_id: str, outputs: Mapping[str, Any] | None, skipped: bool = False
    ) -> Scope:
        """Give the scope in which this step, or block, is done; outputs None: it was skipped."""
        if outputs is None or skipped:
            seen: dict[str, Any] = Nulls(skipped=True)
        else:
            seen = {**outputs, "skipped": False}
        return Scope({**self, "steps": {**self["steps"], step_id: seen}})

    def is_skipped(self, step_id: str) -> bool:
        """Tell whether a step was skipped; one that is not there was not."""
        return bool(self["steps"].get(step_id, {}).get("skipped"))


class Nulls(dict[str, Any]):
    """The outputs of a skipped step: whatever one asks for is null."""

    def __contains__(self, name: object) -> bool:
        """Every output is there."""
        return True

    def __missing__(self, name: str) -> None:
        """And it is null."""
        return
