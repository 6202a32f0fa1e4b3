from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundBlock, BoundNode

HEAD = """\
inputs:
  topic: {type: str, default: ferries}
  text: {type: str, default: ""}
on:
  webhook: [{path: /call, secret: "{{ secrets.key }}", inputs: {text: "payload.text"}}]
secrets: {key: {env: HOOK_KEY}}
steps:
"""


def untrusted(tmp_path: Path, steps: str) -> dict[str, tuple[str, ...]]:
    """Return what each step takes of others' words, by its id."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(HEAD + steps)
    bound = bind(read_plan(file), {}, cwd=tmp_path, default_models={"chat": "m", "embed": "v"})
    found: dict[str, tuple[str, ...]] = {}

    def walk(nodes: Any) -> None:
        for node in nodes:
            bound_node: BoundNode = node
            if isinstance(bound_node, BoundBlock):
                walk(bound_node.body)
            else:
                found[bound_node.id] = bound_node.untrusted
                walk(bound_node.inner.nodes if bound_node.inner is not None else ())

    walk(bound.nodes)
    return found


# Steps, and what each takes of others' words
CASES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "what is made of documents is of others however often it is rewritten": (
        """\
  - {id: docs, uses: files.scan, with: {root: .}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: about, uses: prompt, with: {template: "{{ steps.text.text }}, {{ doc.sha256 }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up {{ t }}", vars: {t: "{{ steps.about.text }}"}}}
  - {id: all, uses: chat, with: {prompt: "{{ steps.each.results }}"}}
  - {id: many, uses: chat, with: {prompt: "{{ steps.each.counts }}"}}
""",
        {"docs": (), "text": ("doc.path",), "about": ("steps.text.text",),
         "sum": ("steps.about.text",), "all": ("steps.each.results",), "many": ()},
    ),
    "a field of others is theirs whatever its name": (
        """\
  - {id: docs, uses: files.scan, with: {root: .}}
  - {id: rows, uses: files.rows, with: {path: a.csv}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: found
        uses: chat
        with: {prompt: "{{ doc.path }}"}
        reply: {schema: {size: str, usage: str}}
      - {id: spent, uses: prompt, with: {template: "{{ steps.found.usage.calls }} {{ doc.size }}"}}
      - {id: told, uses: prompt, with: {template: "{{ steps.found.output.size }}"}}
      - {id: given, uses: prompt, with: {template: "-"}, returns: {usage: steps.found.text}}
      - {id: after, uses: prompt, with: {template: "{{ steps.given.usage }}"}}
  - id: lines
    for_each: row in steps.rows.rows
    do:
      - {id: line, uses: prompt, with: {template: "{{ row.size }}, {{ row.modified }}"}}
      - id: inner
        for_each: n in [1, 2]
        do: [{id: n, uses: prompt, with: {template: "{{ n }}"}}]
        returns: {counts: row.size}
      - {id: last, uses: prompt, with: {template: "{{ steps.inner.results }}"}}
""",
        {"docs": (), "rows": (), "found": ("doc.path",), "spent": (),
         "told": ("steps.found.output.size",), "given": (), "after": ("steps.given.usage",),
         "line": ("row.modified", "row.size"), "n": (), "last": ("steps.inner.results",)},
    ),
    "what a webhook fills in is of others, and not what caller and author wrote": (
        """\
  - {id: one, uses: chat, with: {prompt: "Of {{ inputs.topic }}"}}
  - {id: two, uses: chat, with: {prompt: "Once more: {{ steps.one.text }}"}}
  - {id: three, uses: chat, with: {prompt: "{{ inputs.topic }}: {{ inputs.text }}"}}
""",
        {"one": (), "two": (), "three": ("inputs.text",)},
    ),
    "an inner pipeline knows which of its inputs are of others": (
        """\
  - {id: text, uses: files.read, with: {path: pipeline.yaml}}
  - id: within
    uses: pipeline
    with: {file: inner.yaml, inputs: {tone: dry, text: "{{ steps.text.text }}"}}
""",
        {"text": (), "within": ("steps.text.text",), "say": ("inputs.text",)},
    ),
}  # fmt: skip
INNER = """\
inputs: {tone: {type: str}, text: {type: str}}
steps:
  - {id: say, uses: chat, with: {prompt: "{{ inputs.tone }}: {{ inputs.text }}"}}
"""


@pytest.mark.parametrize("case", CASES)
def test_what_each_step_takes_of_others_words(tmp_path: Path, case: str) -> None:
    (tmp_path / "inner.yaml").write_text(INNER)
    steps, expected = CASES[case]
    assert untrusted(tmp_path, steps) == expected


@pytest.mark.parametrize(
    ("step", "is_foreign"),
    [
        ("{id: a, uses: chat, with: {prompt: Hi}}", False),
        ("{id: a, uses: chat, with: {prompt: Hi, images: [a.png]}}", True),
        ("{id: a, uses: summarise, with: {text: Hi}}", False),
        ("{id: a, uses: summarise, with: {file: a.md}}", True),
        ("{id: a, uses: agent, with: {prompt: Hi, tools: [calculator, now]}}", False),
        ("{id: a, uses: agent, with: {prompt: Hi, tools: [calculator, files.read]}}", True),
        ("{id: a, uses: agent, with: {prompt: Hi, tools: [{server: notes}]}}", True),
    ],
)
def test_a_step_that_reads_more_than_it_is_given_gives_words_of_others(
    tmp_path: Path, step: str, is_foreign: bool
) -> None:
    steps = (
        f"  - {step}\n  - {{id: b, uses: prompt, with: {{template: '{{{{ steps.a.text }}}}'}}}}\n"
    )
    if "server: notes" in step:
        steps = f"{steps}mcpServers: {{notes: {{command: none}}}}\n"
    assert untrusted(tmp_path, steps)["b"] == (("steps.a.text",) if is_foreign else ())
