"""What expressions see."""

from .pipeline_faults import faults_of, sentences


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
