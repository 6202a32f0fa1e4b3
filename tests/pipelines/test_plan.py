"""The graph: edges from references, order, and what cannot work."""

from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.model import Block
from paddock.pipelines.plan import Plan
from tests.pipelines.checked import checked_pipeline, checked_plan


def planned(text: str, file: str = "news.yaml") -> Plan:
    return checked_plan(checked_pipeline(text, file))


def fault(text: str) -> str:
    with pytest.raises(PipelineError) as caught:
        planned(text)
    return str(caught.value)


def test_order_follows_from_references_and_needs_else_from_the_file() -> None:
    made = planned(
        """
steps:
  - {id: last, uses: prompt, with: {template: "{{ steps.b.text }} {{ steps.a.text }}"}}
  - {id: a, uses: prompt, needs: [b], with: {template: x}}
  - {id: b, uses: prompt, with: {template: x}}
  - {id: c, uses: prompt, if: steps.a.skipped, with: {template: x}}
"""
    )
    assert [node.id for node in made.nodes] == ["b", "a", "last", "c"]
    assert made.edges == {
        "b": frozenset(),
        "a": frozenset({"b"}),
        "last": frozenset({"a", "b"}),
        "c": frozenset({"a"}),
    }


def test_a_reference_in_a_template_file_makes_an_edge(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("{% for f in steps.docs.files %}{{ f.name }}{% endfor %}")
    made = planned(
        """
steps:
  - {id: page, uses: prompt, with: {template: {file: page.md}}}
  - {id: docs, uses: files.scan, with: {root: .}}
""",
        str(tmp_path / "x.yaml"),
    )
    assert [node.id for node in made.nodes] == ["docs", "page"]


def test_a_block_waits_for_what_its_body_reads() -> None:
    made = planned(
        """
steps:
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: b, uses: prompt, with: {template: "{{ steps.a.text }} {{ steps.style.text }}"}}
      - {id: a, uses: prompt, with: {template: "{{ doc.name }}"}}
  - {id: style, uses: prompt, with: {template: x}}
  - {id: docs, uses: files.scan, with: {root: .}}
"""
    )
    assert [node.id for node in made.nodes] == ["style", "docs", "each"]
    assert made.edges["each"] == {"docs", "style"}
    block = made.nodes[-1]
    assert isinstance(block, Block)
    assert [node.id for node in block.body] == ["a", "b"]


def test_steps_without_an_id_have_names_that_no_id_can_have() -> None:
    made = planned('steps: [{uses: a}, {uses: a}, {for_each: "x in [1]", do: [{uses: a}]}]')
    assert [node.id for node in made.nodes] == ["(a)", "(a)#2", "(for_each)"]


def test_a_cycle_is_named() -> None:
    assert fault(
        """
steps:
  - {id: one, uses: x, with: {a: "{{ steps.two.text }}"}}
  - {id: two, uses: x, needs: [three]}
  - {id: three, uses: x, if: steps.one.text}
"""
    ) == (
        "news.yaml:3:10: these steps depend on each other: one → two → three → one.\n"
        '       3 |   - {id: one, uses: x, with: {a: "{{ steps.two.text }}"}}\n'
        "         |          ^^^\n"
        "  Remove one of the references or `needs`."
    )
    assert "step 'a' reads its own outputs" in fault("steps: [{id: a, uses: x, if: steps.a.text}]")


def test_reaching_into_a_block_is_explained() -> None:
    assert fault(
        """
steps:
  - {id: each, for_each: "x in [1]", do: [{id: inner, uses: y}]}
  - {uses: z, needs: [inner]}
"""
    ) == (
        "news.yaml:4:23: step 'inner' runs for each item of 'each' "
        "and is not known outside.\n"
        "       4 |   - {uses: z, needs: [inner]}\n"
        "         |                       ^^^^^\n"
        "  Read `steps.each.results`: a list of the `returns` of each item."
    )


def test_every_unknown_name_is_told_at_once() -> None:
    told = fault(
        """
inputs: {folder: {type: dir}}
on: {watch: [{path: "{{ inputs.foldr }}"}]}
steps:
  - {id: a, uses: x, if: dox.name, with: {deep: {er: "{{ inputs.fold }}"}}}
  - {for_each: y in steps.nope.files, key: y.name ~ z.name, do: [{uses: x, if: y and steps}]}
returns: {b: steps.b.text}
"""
    )
    assert [line for line in told.splitlines() if line.startswith("news.yaml")] == [
        "news.yaml:3:21: there is no input 'foldr'.",
        "news.yaml:5:26: 'dox' is not known here.",
        "news.yaml:5:54: there is no input 'fold'.",
        "news.yaml:6:16: there is no step 'nope'.",
        "news.yaml:6:44: 'z' is not known here.",
        "news.yaml:6:80: `steps` alone names no step.",
        "news.yaml:7:14: there is no step 'b'.",
    ]


def test_a_block_cannot_read_itself_from_within() -> None:
    assert "step 'each' is the block around this reference" in fault(
        'steps: [{id: each, for_each: "x in [1]", do: [{uses: y, if: steps.each.results}]}]'
    )
