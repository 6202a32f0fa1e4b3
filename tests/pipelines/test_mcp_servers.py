"""`mcpServers`: inline, or in the JSON file that people have already."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.mcp_servers import McpServer, secret_of
from tests.pipelines.checked import checked_pipeline, checked_plan

STEPS = "steps: [{uses: prompt, with: {template: x}}]\n"


def servers(text: str, file: str = "p.yaml") -> dict[str, McpServer]:
    return dict(checked_pipeline(text + STEPS, file).servers)


def faults(text: str, file: str = "p.yaml") -> list[str]:
    with pytest.raises(PipelineError) as caught:
        checked_plan(checked_pipeline(text + STEPS, file))
    return [f"{one.message} {one.remedy}".strip() for one in caught.value.faults]


def test_a_server_is_a_command_or_an_address() -> None:
    found = servers(
        "secrets: {k: {env: K}}\n"
        "mcpServers:\n"
        "  files: {command: npx, args: [-y, server], env: {K: '{{ secrets.k }}'}, timeout: 5s}\n"
        "  web: {url: http://x/mcp, headers: {A: b}}\n"
        "  off: {command: x, disabled: true}\n"
        "  x-note: anything\n"
    )
    assert list(found) == ["files", "web"]
    assert (found["files"].is_command, found["files"].keys.timeout) == (True, 5.0)
    scope = {"secrets": {"k": "s"}}
    assert found["files"].texts.render(scope) == {
        "command": "npx", "args": ["-y", "server"], "env": {"K": "s"},
    }  # fmt: skip
    assert (found["web"].is_command, found["web"].keys.timeout) == (False, 60.0)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{command: x, url: http://x}", "in 'a': give exactly one of `command` and `url`."),
        ("{url: http://x, args: [b]}", "in 'a': `args` belongs to `command`."),
        ("{command: x, timeout: 0s}", "'timeout' must be more than 0.0; it is '0.0'."),
        ("{type: sse, url: http://x}",
         "the older transport `sse` is not supported. Most servers also have streamable "
         "HTTP: remove `type` and use that URL."),
        ("{command: x, env: {K: '{{ secrets.k }}'}}",
         "there is no secret 'k'. Declare it: `secrets: {k: {env: K}}`."),
        ("{command: '{{ steps.a.text }}'}",
         "'steps' is not known here. Known: 'inputs', 'python', 'secrets'."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one_is_told(written: str, told: str) -> None:
    assert told in faults(f"mcpServers: {{a: {written}}}\n")


def test_a_name_is_of_letters_and_digits() -> None:
    assert faults("mcpServers: {'a b': {command: x}}\n") == [
        "'a b' cannot be the name of a server. Use letters, digits, '_' and '-'."
    ]


def in_file(folder: Path, content: Any) -> tuple[str, str]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "mcp.json").write_text(text)
    return "mcpServers: {file: mcp.json}\n", str(folder / "p.yaml")


def test_a_file_of_other_programs_is_read_and_its_variables_are_secrets(tmp_path: Path) -> None:
    server = {
        "type": "stdio", "command": "npx", "args": ["-y", "{{not ours}}", "a ${env:TOKEN} b"],
        "env": {"T": "${TOKEN}"}, "autoApprove": ["x"], "gallery": 1,
    }  # fmt: skip
    off = {"command": "x", "disabled": True}
    text, file = in_file(tmp_path, {"mcpServers": {"one": server, "off": off}})
    pipeline = checked_pipeline(text + STEPS, file)
    assert list(pipeline.servers) == ["one"]
    assert pipeline.secrets[secret_of("TOKEN")].env == "TOKEN"
    scope = {"secrets": {secret_of("TOKEN"): "s3cret"}}
    assert pipeline.servers["one"].texts.render(scope) == {
        "command": "npx", "args": ["-y", "{{not ours}}", "a s3cret b"], "env": {"T": "s3cret"},
    }  # fmt: skip
    text, file = in_file(tmp_path, {"servers": {"two": {"url": "http://x"}}})
    assert list(servers(text, file)) == ["two"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{// mine",
         "the file 'mcp.json' is not JSON: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1). JSON has no comments, and no comma before a closing bracket."),
        ({"other": 1}, "the file 'mcp.json' names no MCP servers. Write the servers under "),
        ({"mcpServers": {"a": {"args": []}}},
         "in the file 'mcp.json', server 'a': give exactly one of `command` and `url`."),
        ({"mcpServers": {"a": {"command": "x", "args": ["${input:key}"]}}},
         "in the file 'mcp.json', server 'a': '${input:key}' is not known here; `${NAME}` names "
         "an environment variable."),
        ({"mcpServers": {"a": "npx"}}, "in the file 'mcp.json', server 'a': this is not a server."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, content: Any, told: str) -> None:
    assert faults(*in_file(tmp_path, content))[0].startswith(told)


def test_a_file_must_lie_next_to_the_pipeline(tmp_path: Path) -> None:
    file = str(tmp_path / "p.yaml")
    assert faults("mcpServers: {file: ../mcp.json}\n", file) == [
        "the file '../mcp.json' lies outside the pipeline's folder. Move or copy it there."
    ]
    assert faults("mcpServers: {file: none.json}\n", file)[0].startswith("there is no file")
