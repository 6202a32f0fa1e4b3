"""`paddock tools`: what steps can call, with what; servers are asked only where that is allowed."""

import json
import sys
from pathlib import Path

import pytest

from tests.runner.cli.commands.shell import invoke

SERVER = Path(__file__).parents[3] / "fakes" / "mcp_server.py"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    path = tmp_path / "p.yaml"
    path.write_text(
        f"mcpServers:\n"
        f"  fake: {{command: {sys.executable}, args: [{SERVER}]}}\n"
        f"  gone: {{command: no-such-program}}\n"
        f"  far: {{url: 'http://gpu-1/mcp'}}\n"
        f"steps: [{{uses: prompt, with: {{template: x}}}}]\n"
    )
    return path


def test_without_a_file_what_is_built_in_is_listed() -> None:
    lines = invoke("tools").stdout.splitlines()
    assert lines[:2] == ["built in", "  calculator(expression)  Work out arithmetic exactly."]
    assert "  files.read(path, offset?, limit?)  Read the text of a document." in lines


def test_servers_are_asked_only_where_that_is_allowed(file: Path) -> None:
    shown = invoke("tools", str(file)).stdout
    assert "MCP server 'fake': not asked: that needs `--allow mcp`.\n" in shown
    assert "MCP server 'far': not asked: that needs `--allow network`.\n" in shown
    allowed = invoke("tools", str(file), "--allow", "mcp")
    assert "MCP server 'fake'\n  fake.add(a, b)  Add two numbers.\n" in allowed.stdout
    assert (
        "MCP server 'gone': the MCP server 'gone' (`no-such-program`) cannot be started: there is "
        "no such program here. Install it, or correct `command`.\n"
    ) in allowed.stdout
    wrong = invoke("tools", str(file), "--allow", "all")
    assert (wrong.exit_code, wrong.stderr.splitlines()[0]) == (2, "--allow: 'all' is not known.")


def test_machines_read_one_object() -> None:
    first = json.loads(invoke("tools", "--json").stdout)["groups"][0]
    assert (first["origin"], first["why"]) == ("built in", None)
    assert first["tools"][1]["name"] == "now"
    assert first["tools"][2]["has_effects"] is True
