"""Scope of expressions: inputs, finished steps and loop variables.

`Scope` is the immutable set of names that an item's expressions see; plain JSON data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddock.pipelines.times import moments

from .answer_names import as_expressions_see


class Scope(dict[str, Any]):
    """The names of one item's world. A child sees its parents'; nothing is ever changed in place.

    >>> scope = Scope.of({"folder": "in"}).with_step("text", {"text": "Hello"})
    >>> scope["steps"]["text"]
    {'text': 'Hello', 'skipped': False}
    """

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, Any],
        secrets: Mapping[str, str] | None = None,
        moment: float | None = None,
    ) -> Scope:
        """Return the outermost scope; only the places that may read secrets name them.

        `moment`: when the run began, for `now` and `today`; None: what is asked reads neither.
        """
        named = {"secrets": dict(secrets)} if secrets else {}
        times = {} if moment is None else moments(moment)
        return cls(inputs=dict(inputs), steps={}, **named, **times)

    def child(self, names: str | Mapping[str, Any], item: Any = None) -> Scope:
        """Return the scope of one item of a `for_each`: one name and its value, or several."""
        added = {names: item} if isinstance(names, str) else names
        return Scope({**self, **added})

    def with_step(self, step_id: str, outputs: Mapping[str, Any] | None) -> Scope:
        """Return the scope in which this step, or block, is done; outputs None: it was skipped."""
        seen: dict[str, Any] = SkippedOutputs(skipped=True)
        if outputs is not None:
            seen = {**as_expressions_see(outputs), "skipped": False}
        return Scope({**self, "steps": {**self["steps"], step_id: seen}})

    def is_skipped(self, step_id: str) -> bool:
        return bool(self["steps"].get(step_id, {}).get("skipped"))


class SkippedOutputs(dict[str, Any]):
    """The outputs of a skipped step: whatever one asks for is null."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> None:
        return None
