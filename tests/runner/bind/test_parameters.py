"""What expressions see."""

from __future__ import annotations

from paddock.pipelines.expressions import Expression, Value
from paddock.runner.bind.scope import Scope


def test_a_scope_is_never_changed_in_place() -> None:
    outer = Scope.of({"n": 1})
    inner = outer.child("doc", {"path": "a"}).with_step("text", {"text": "T"})
    assert outer == {"inputs": {"n": 1}, "steps": {}}
    assert inner["steps"] == {"text": {"text": "T", "skipped": False}}
    assert Value.of("{{ doc.path }}{{ steps.text.text }}{{ inputs.n }}").render(inner) == "aT1"


def test_the_outputs_of_a_skipped_step_are_null() -> None:
    scope = Scope.of({}).with_step("text", None)
    assert scope.is_skipped("text")
    assert not scope.is_skipped("other")
    assert Expression.of("steps.text.skipped").evaluate(scope) is True
    assert Expression.of("steps.text.whatever").evaluate(scope) is None
    assert Expression.of("steps.text.text or 'none'").evaluate(scope) == "none"


def test_a_step_that_ran_is_not_skipped() -> None:
    scope = Scope.of({}).with_step("text", {"text": "T"})
    assert Expression.of("steps.text.skipped").evaluate(scope) is False
