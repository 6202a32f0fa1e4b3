"""JSON Schema for editors: what it takes, what it marks."""

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from paddock.pipelines import yaml_source
from paddock.pipelines.editor_schema import pipeline_schema
from paddock.steps import registry
from tests.pipelines.test_model import WHOLE


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return pipeline_schema(
        {name: registry.load_step(name).params for name in registry.step_names()}
    )


def faults(made: dict[str, Any], text: str) -> list[str]:
    data = yaml_source.parse_yaml(text, "x.yaml").data
    errors = jsonschema.Draft7Validator(made).iter_errors(data)
    return sorted("/".join(map(str, error.absolute_path)) for error in errors)


def test_it_is_a_schema_of_draft_7(made: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(made)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        "steps: [{uses: files.scan, with: {root: .}}]",
        'steps: [{uses: summarize, with: {text: x, words: "{{ inputs.n }}"}}]',
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {a: str}, check: text}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {file: f.json}, check: [a, b]}}]",
        "{x-a: 1, models: {a: m, b: {ref: c, ctx: 4k, keep_alive: -1}}, inputs: {n: 5}, "
        "steps: [{uses: prompt, with: {template: x}, needs: a, timeout: {idle: 5s}}]}",
        "{inputs: {x-a: 5}, models: {x-b: {c: 1}}, secrets: {x-c: 1}, mcpServers: {x-d: 1, "
        "web: {command: npx, args: [a]}, far: {url: 'http://a', headers: {X-Key: k}}}, "
        "steps: [{uses: './my steps.py:clean', with: {anything: 1}}]}",
        "{mcpServers: {file: mcp.json}, steps: [{uses: tool, with: {name: now}}]}",
        'steps: [{uses: chat, with: {prompt: x}, reply: {schema: {title: str, points: "list[str]",'
        ' risk: "enum[low, high]", score: "float?", deep: {er: [{a: int}]}}, check: [true], '
        "repair: 0}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {type: object, properties: "
        "{a: {type: string, maxLength: 3}}}, check: 'words(text) < 3'}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {file: form.json}}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {a: {choose: steps.tags.rows, "
        "by: name, describe: note, unknown: none, relabel: all}, b: [{c: {choose: inputs.x, "
        "most: 3}}]}}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {a: str}, evidence: steps.text, "
        "confidence: true}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {a: str}, evidence: [a, b]}}]",
        "steps: [{uses: chat, with: {prompt: x}, reply: {schema: {a: str}, evidence: {from: a, "
        "only: [b]}}}]",
        "{on: {watch: [{path: a, deletes: prune}, {path: b, deletes: {prune: true, most: 5%}}]}, "
        "steps: [{uses: chat, with: {prompt: x}}]}",
    ],
)
def test_it_takes_what_the_language_takes(made: dict[str, Any], text: str) -> None:
    assert faults(made, text) == []


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("name: x", [""]),
        ("{nam: x, steps: [{uses: prompt, with: {template: x}}]}", [""]),
        ("steps: [{uses: files.scan, with: {rot: .}}]", ["steps/0/with", "steps/0/with"]),
        ("steps: [{uses: files.sacn, with: {root: .}}]", ["steps/0/uses"]),
        ("steps: [{uses: split, with: {text: x, tokens: [1]}}]", ["steps/0/with/tokens"]),
        ('steps: [{for_each: "a in b", uses: prompt, with: {template: x}}]', ["steps/0"]),
        ("{on: {window: 5}, steps: [{uses: chat, with: {prompt: x}}]}", ["on/window"]),
        ("{on: {watch: {path: a, deletes: {most: half}}}, steps: [{uses: tool, with: {name: a}}]}",
         ["on/watch"]),
        ("{mcpServers: {a: {comand: x}}, steps: [{uses: chat, with: {prompt: x}}]}",
         ["mcpServers"]),
        ("steps: [{uses: chat, with: {prompt: x}, reply: {schema: {title: text}}}]",
         ["steps/0/reply"]),
        ("steps: [{uses: chat, with: {prompt: x}, reply: {schema: {a: str}, evidence: {only: b}}}]",
         ["steps/0/reply"]),
    ],
)  # fmt: skip
def test_it_marks_what_the_language_refuses(
    made: dict[str, Any], text: str, places: list[str]
) -> None:
    assert faults(made, text) == places


def test_everything_is_described(made: dict[str, Any]) -> None:
    bare = [
        f"{name}.{key}"
        for name, table in {"top": made, **made["definitions"]}.items()
        for key, field in table.get("properties", {}).items()
        if "description" not in field and not name.startswith("with ")
    ]
    known = {"DocumentPage", "MessageParam"}
    assert [one for one in bare if one.split(".")[0] not in known] == []
