"""A widely used MCP server of npm, configured in the file that its users have, in a pipeline."""

import json
import shutil
from pathlib import Path

import pytest

from paddock.engine.system.records import replace
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from tests.fakes.pool import FakePool
from tests.runner.world import settings

HERE = Path(__file__).parent / "javascript"
SERVER = HERE / "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js"
NODE = shutil.which("node")
STEPS = """\
mcpServers: {file: mcp.json}
steps:
  - {id: list, uses: tool, with: {name: files.list_directory, args: {path: DOCS}}}
  - {id: read, uses: tool, with: {name: read_text_file, server: files, args: {path: "DOCS/a.txt"}}}
  - {id: write, uses: tool, with: {name: files.write_file, args: {path: "DOCS/b.txt", content: "{{ steps.read.text }}!"}}}
  - for_each: path in ["/etc/passwd"]
    do:
      - {uses: tool, with: {name: files.read_text_file, args: {path: "{{ path }}"}}}
returns: {list: steps.list.text, read: steps.read.result, write: steps.write.text}
"""  # noqa: E501

pytestmark = pytest.mark.skipif(
    NODE is None or not SERVER.is_file(),
    reason=f"NO MCP SERVER OF NPM HERE: install Node.js, then npm install --prefix {HERE}",
)


def test_the_servers_tools_are_steps_and_its_refusals_are_told(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("The ferry leaves at nine")
    server = {"type": "stdio", "command": NODE, "args": [str(SERVER), str(docs)], "gallery": True}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"files": server}}))
    file = tmp_path / "p.yaml"
    file.write_text(STEPS.replace("DOCS", str(docs)))
    own = replace(settings(tmp_path), allow=frozenset(("mcp",)))
    report = run(
        file,
        options=RunOptions(local=True),
        environment=RunEnvironment(pool=FakePool(), settings=own),
    )
    assert report.returns["list"] == "[FILE] a.txt"
    assert report.returns["read"] == {"content": "The ferry leaves at nine"}
    assert (docs / "b.txt").read_text() == "The ferry leaves at nine!"
    error = next(item.error for item in report.items if item.error)
    assert "the tool 'files.read_text_file' failed: Access denied" in error
