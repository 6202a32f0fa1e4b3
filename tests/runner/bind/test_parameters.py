"""What expressions see."""

from paddock.pipelines.expressions import Expression, Value
from paddock.runner.bind.scope import Scope

from .pipeline_faults import faults_of, sentences


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


def test_a_rule_of_several_parameters_is_checked_unless_it_looks_at_what_only_a_run_knows() -> None:
    def found(given: str) -> list[str]:
        return sentences(
            faults_of(
                "models: {default: m}\ninputs: {it: {type: str}}\n"
                f"steps: [{{id: s, uses: summarise, with: {{text: x, {given}}}}}]"
            )
        )

    later = '"{{ inputs.it }}"'
    what = (
        "in 'with': nothing is written with `how: extract`, so that `style`, `instructions` would"
    )
    assert found(f"how: extract, style: {later}, instructions: a") == [
        f"{what} do nothing: remove it."
    ]
    assert found(f"how: {later}, style: {later}, instructions: a") == []
