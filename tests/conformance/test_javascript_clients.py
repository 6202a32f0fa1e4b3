"""The official JavaScript clients, `ollama` and `openai` of npm, against a live service."""

import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.conformance.test_ollama_clients import TOOLS_TEMPLATE
from tests.fakes.tool_caller import call_tools
from tests.live import Live
from tests.waiting import PATIENCE_S, until

HERE = Path(__file__).parent / "javascript"
NODE = shutil.which("node")
PARTS = {
    "ollama": ("chat", "stream", "generate", "structured", "create", "tools", "embed", "lists",
               "errors", "cancel"),
    "tool_runs": ("openai_chat", "openai_responses", "anthropic", "ollama", "vercel_compatible",
                  "vercel_ollama"),
    "openai": ("chat", "stream", "choices", "structured", "tools", "completions", "embeddings",
               "responses", "models", "errors", "cancel"),
}  # fmt: skip

pytestmark = [
    pytest.mark.skipif(
        NODE is None or not (HERE / "node_modules" / "ai").is_dir(),
        reason=f"NO JAVASCRIPT CLIENTS HERE: install Node.js, then npm install --prefix {HERE}",
    )
]


@pytest.mark.parametrize("name", PARTS)
def test_a_javascript_client_does_all_that_its_users_do(live: Live, name: str) -> None:
    with live.client() as client:  # a model that knows tools, for either
        made = {"model": "caller-js", "from": "smollm2:135m", "template": TOOLS_TEMPLATE}
        assert client.post("/api/create", json={**made, "stream": False}).status_code == 200
    with call_tools(live.service.pool) if name == "tool_runs" else nullcontext():
        ran = subprocess.run(
            [NODE or "", f"{name}.mjs", live.url, TOOLS_TEMPLATE],
            cwd=HERE, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert tuple(line.removeprefix("ok ") for line in ran.stdout.splitlines()) == PARTS[name]
    if name == "tool_runs":
        return
    log = live.service.request_log
    until(lambda: not live.n_users() and not log.running)  # a client that left frees its place
    last = log.last[-1]
    assert (last.fate, last.status) == ("gone", 200)
