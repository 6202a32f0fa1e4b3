"""Prompt files of GitHub Models: read as they are, with every fault at its place."""

from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import Template
from paddock.pipelines.prompt_file import (
    ConversationTemplate,
    prompt_file_of,
    read_template_file,
    to_template,
)
from paddock.pipelines.yaml_source import parse_yaml

WHOLE = """\
name: Text Summarizer
description: Summarizes input text concisely
model: openai/gpt-4o-mini
modelParameters: {temperature: 0.5, topP: 0.9, maxTokens: 200}
responseFormat: json_schema
jsonSchema: '{"name": "sum", "strict": true, "schema": {"type": "object", "properties": {}}}'
messages:
  - {role: System, content: You are a text summarizer.}
  - {role: user, content: "Sum up <text>{{ input }}</text> for {{reader}} {% not ours %}"}
testData: [{input: The quick fox, expected: A fox}]
evaluators:
  - {name: starts, string: {startsWith: "A"}}
  - {name: near, uses: github/similarity}
  - name: judged
    llm: {modelId: openai/gpt-4o, prompt: "{{completion}}", choices: [{choice: yes, score: 1}]}
x-unknown: 1
futureKey: 2
"""


def test_a_whole_file_is_read() -> None:
    made = prompt_file_of(parse_yaml(WHOLE, "a.prompt.yml"))
    assert made.parameters.given() == {"temperature": 0.5, "top_p": 0.9, "max_tokens": 200}
    assert [turn.role for turn in made.messages] == ["system", "user"]
    assert made.variables == ("input", "reader")
    assert made.schema_of_answer == {"type": "object", "properties": {}}
    assert made.test_data == [{"input": "The quick fox", "expected": "A fox"}]
    assert len(made.evaluators) == 3


def test_every_fault_has_its_place() -> None:
    text = """\
modelParameters: {temprature: 1, topP: high}
messages: [{role: robot, content: x}, {role: user}]
evaluators: [{name: x}, {name: y, string: {}}, {name: z, llm: {prompt: x, choices: []}}]
"""
    with pytest.raises(PipelineError) as caught:
        prompt_file_of(parse_yaml(text, "a.prompt.yml"))
    told = [(f.mark.line if f.mark else 0, f.message) for f in caught.value.faults]
    assert told == [
        (1, "unknown key 'temprature'."),
        (1, "'topP' must be a number; 'high' is text."),
        (2, "'role' cannot be 'robot'."),
        (2, "the key 'content' is missing here."),
        (3, "in 'evaluators': give exactly one of `string`, `llm` and `uses`."),
        (3, "in 'string': give `equals`, `contains`, `startsWith` or `endsWith`."),
        (3, "'choices' must not be empty."),
    ]


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{input}} and {{ input }}", "X and X"),
        ("{% raw %} {# no comment #}", "{% raw %} {# no comment #}"),
        ("{{#if x}} {{ input | upper }} {{ 7*7 }}", "{{#if x}} {{ input | upper }} {{ 7*7 }}"),
        ("}} {{ '{{", "}} {{ '{{"),
    ],
)
def test_variables_are_all_that_is_an_expression(text: str, rendered: str) -> None:
    assert Template.of(to_template(text)).render(input="X") == rendered


TEXT = """\
modelParameters: {temperature: 0.5}
messages: [{role: system, content: Be brief.}, {role: user, content: "Sum up {{input}}"}]
"""


def test_each_message_is_a_template_over_the_same_scope(tmp_path: Path) -> None:
    (tmp_path / "a.prompt.yml").write_text(TEXT)
    made = read_template_file(tmp_path, "a.prompt.yml").bound({"input": "this"})
    assert isinstance(made, ConversationTemplate)
    told = [(role, template.render()) for role, template in made.turns]
    assert told == [("system", "Be brief."), ("user", "Sum up this")]
    assert made.params == {"temperature": 0.5}
    assert made.references == {("input",)}


def test_what_decides_an_answer_is_in_its_source(tmp_path: Path) -> None:
    sources = []
    for text in (TEXT, TEXT + "testData: [{input: x}]\n", TEXT.replace("0.5", "0.6")):
        (tmp_path / "a.prompt.yml").write_text(text)
        sources.append(read_template_file(tmp_path, "a.prompt.yml").source)
    assert sources[0] == sources[1], "tests decide no answer"
    assert sources[0] != sources[2]
