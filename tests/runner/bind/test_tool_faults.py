"""Tools that steps name are checked before anything runs, and none of their code is."""

from pathlib import Path

import pytest

from paddock.engine.system.text import ordered_json
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_without_inputs
from tests.runner.bind.pipeline_faults import faults_of, sentences

SERVERS = "mcpServers: {files: {command: npx}, web: {url: http://x/mcp}}\n"


def faults(folder: Path, step: str, servers: str = SERVERS) -> list[str]:
    text = f"{servers}steps:\n  - {{id: s0, uses: {step}}}\n"
    return sentences(faults_of(text, folder / "p.yaml"))


@pytest.mark.parametrize(
    "step",
    [
        "tool, with: {name: calculator, args: {expression: '{{ 1 }}'}}",
        "tool, with: {name: http.get, args: {url: http://x}, options: {hosts: [x], timeout: 5s}}",
        "tool, with: {name: files.read_file, args: {path: x}}",
        "tool, with: {name: anything, server: web, options: {timeout: 5s}}",
        "tool, with: {name: 'tools.py:clean'}",
    ],
)
def test_what_is_there_is_no_fault(tmp_path: Path, step: str) -> None:
    (tmp_path / "tools.py").write_text("raise SystemExit\ndef clean(): ...")
    assert faults(tmp_path, step) == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("tool, with: {name: calculater}",
         "there is no tool 'calculater'. Known: 'calculator', 'files.read', 'files.search', "
         "'http.get', 'now', 'files.…', 'web.…'. Did you mean 'calculator'? Write a function "
         "of your own as `tools.py:clean`."),
        ("tool, with: {name: x, server: flies}",
         "there is no MCP server 'flies'. Known: 'files', 'web'. Did you mean 'files'?"),
        ("tool, with: {name: '{{ steps.s.x }}'}",
         "a tool is named as it is, so that what a pipeline reaches for is known before. "
         "Use two steps with `if`."),
        ("tool, with: {name: http.get, args: {url: http://x}}",
         "`http.get` asks no server that is not named. "
         "Name them: `options: {hosts: [example.org]}`."),
        ("tool, with: {name: http.get, args: {url: http://x}, options: {hosts: '{{ inputs.h }}'}}",
         "`hosts` is an expression, and what a pipeline reaches is known before it runs. "
         "Name them: `options: {hosts: [example.org]}`."),
        ("tool, with: {name: http.get, args: {url: http://x}, options: {hosts: ['{% if 1 %}x']}}",
         "`hosts`: '{% if 1 %}x' is an expression, and hosts are written as they are. "
         "Write a name, `*.name`, an address or a network, with a port or without."),
        ("agent, with: {prompt: p, tools: [{name: http.get, options: {hosts: [127.0.0.0/0]}}]}",
         "`hosts`: '127.0.0.0/0' begins within a network, which is written '0.0.0.0/0'. "
         "Write a name, `*.name`, an address or a network, with a port or without."),
        ("tool, with: {name: 'tools{% if 1 %}.py:clean'}",
         "a tool is named as it is, so that what a pipeline reaches for is known before. "
         "Use two steps with `if`."),
        ("tool, with: {name: now, options: {root: x}}",
         "the tool 'now' has no option 'root'. Known: 'timeout'."),
        ("tool, with: {name: calculator, args: {expresion: '1'}}",
         "the tool 'calculator' takes no 'expresion'. Known: 'expression'. "
         "Did you mean 'expression'?"),
        ("tool, with: {name: calculator, args: {expression: [1]}}",
         "`args`: `expression` should be a valid string."),
        ("tool, with: {name: 'tools.py:cleen'}",
         "there is no function 'cleen' in 'tools.py'. Known: 'clean'. Did you mean 'clean'?"),
        ("tool, with: {name: 'none.py:clean'}", "there is no file 'none.py'. "
         "Paths are relative to the YAML; create or correct it."),
        ("tool, with: {name: '../tools.py:clean'}",
         "the file '../tools.py' lies outside the pipeline's folder. Move or copy it there."),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_with_its_place(tmp_path: Path, step: str, expected: str) -> None:
    (tmp_path / "tools.py").write_text("def clean(): ...")
    assert expected in faults(tmp_path, step)


def test_without_servers_one_is_told_how_to_name_them(tmp_path: Path) -> None:
    assert faults(tmp_path, "tool, with: {name: x, server: web}", servers="") == [
        "there is no MCP server 'web'. Name it under `mcpServers`."
    ]


def test_a_servers_own_file_next_to_the_pipeline_counts_as_a_functions_does(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "mcpServers: {own: {command: '{{ python }}', args: [server.py, --quiet]}}\n"
        "steps: [{id: a, uses: tool, with: {name: add, server: own}}]\n"
    )

    def spec() -> str:
        (step,) = bind_without_inputs(read_plan(tmp_path / "p.yaml")).nodes
        return ordered_json(step.spec)

    before = spec()
    (tmp_path / "server.py").write_text("print(1)")
    there = spec()
    (tmp_path / "server.py").write_text("print(2)")
    edited = spec()
    (tmp_path / "README.md").write_text("Another file.")
    assert len({before, there, edited}) == 3
    assert spec() == edited
