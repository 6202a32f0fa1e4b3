"""Real MCP servers, made with the official package, over both ways; and what is none."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddock.steps.base import StepError
from paddock.steps.tools import mcp_client as server_module
from paddock.steps.tools.mcp_client import HttpServerSpec, McpSessions, StdioServerSpec
from tests.benchmarks.processes import free_port
from tests.waiting import PATIENCE_S

SERVER = str(Path(__file__).parents[2] / "fakes" / "mcp_server.py")
PYTHON = sys.executable
SUNDAY = "Error executing tool refuse: not on a Sunday"


def python(name: str, code: str, timeout_s: float = PATIENCE_S) -> StdioServerSpec:
    return StdioServerSpec(name, timeout_s, PYTHON, ("-c", code))


def work(do: Callable[[McpSessions, list[str]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        notes: list[str] = []
        servers = McpSessions(notes.append)
        try:
            await do(servers, notes)
        finally:
            await servers.close()

    asyncio.run(main())


async def failure(waiting: Awaitable[Any]) -> StepError:
    with pytest.raises(StepError) as caught:
        await waiting
    return caught.value


def test_a_server_that_is_started_serves_until_it_dies_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "of ours")
    folder = str(tmp_path.resolve())
    spec = StdioServerSpec("fake", PATIENCE_S, PYTHON, (SERVER,), (("FAKE_KEY", "k1"),), tmp_path)

    async def do(servers: McpSessions, notes: list[str]) -> None:
        tools = await servers.tools(spec)
        assert list(tools) == ["add", "facts", "look_up", "die", "hang", "picture", "refuse"]
        add = tools["add"]
        assert (add.description, add.server, add.timeout_s) == (
            "Add two numbers.",
            "fake",
            PATIENCE_S,
        )
        assert add.schema["required"] == ["a", "b"]
        effects = {name: tool.has_effects for name, tool in tools.items()}
        assert effects == {
            "add": False, "facts": False, "look_up": True, "die": True, "hang": True,
            "picture": False, "refuse": True,
        }  # fmt: skip
        both = await asyncio.gather(*(add.do({"a": n, "b": 1}) for n in range(3)))
        assert [(one.text, one.value) for one in both] == [("1", 1), ("2", 2), ("3", 3)]
        assert (await tools["facts"].do({})).value == {
            "name": "ferry", "key": "k1", "home": True, "secret": "",
            "folder": folder,
        }  # fmt: skip
        assert (await tools["picture"].do({})).text == (
            "[image, image/png, 6 bytes]\n[map: https://example.org/map]\nin a file"
        )
        refused = await tools["refuse"].do({})
        assert (refused.text, refused.is_error) == (SUNDAY, True)
        assert (await add.do({"a": "x"})).is_error
        lost = await failure(tools["die"].do({}))
        assert str(lost).startswith(f"the MCP server 'fake' (`{PYTHON}`) ended: ")
        assert lost.kind == "io"
        assert notes == []
        assert (await add.do({"a": 2, "b": 2})).value == 4
        assert notes == [
            f"the MCP server 'fake' (`{PYTHON}`) has ended or hangs; it is opened again"
        ]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await tools["hang"].do({})
        assert (await add.do({"a": 3, "b": 3})).value == 6, "a server that hangs is opened again"

    work(do)


def test_what_is_no_server_is_named_with_its_last_words() -> None:
    hello, flood = "echo Hello, I am no server", "yes | head -n 100000"
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"

    async def do(servers: McpSessions, notes: list[str]) -> None:
        async def told(spec: StdioServerSpec | HttpServerSpec) -> tuple[str, str]:
            error = await failure(servers.tools(spec))
            return str(error).partition(") ")[2] or str(error), error.kind

        found = await asyncio.gather(
            told(StdioServerSpec("a", 60.0, "no-such-program")),
            told(python("b", "import sys; sys.exit('no key given')")),
            told(StdioServerSpec("c", 30.0, "sh", ("-c", f"{hello}; exec sleep 900"))),
            told(StdioServerSpec("d", 30.0, "sh", ("-c", f"{flood}; exec sleep 900"))),
            told(python("e", stubborn, 6.0)),
            told(HttpServerSpec("f", 60.0, "http://127.0.0.1:9/mcp")),
            told(StdioServerSpec("g", 60.0, "true", cwd=Path("/no/such/folder"))),
        )
        assert found == [
            ("cannot be started: there is no such program here. Install it, or correct `command`.",
             "missing"),
            ("ended: no key given", "io"),
            ("did not answer within 30 s: its output is not JSON-RPC: 'Hello, I am no server'",
             "timeout"),
            ("did not answer within 30 s: its output is not JSON-RPC: 'y'", "timeout"),
            ("did not answer within 6 s.", "timeout"),
            ("the MCP server 'f' at http://127.0.0.1:9/mcp cannot be asked: "
             "All connection attempts failed.", "io"),
            ("cannot be started: the folder '/no/such/folder' does not exist.", "other"),
        ]  # fmt: skip

    work(do)


def test_a_server_that_ends_each_time_is_not_started_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "_RETRY_AFTER_S", 0.0)

    async def do(servers: McpSessions, notes: list[str]) -> None:
        spec = python("short", "")
        errors = [str(await failure(servers.tools(spec))) for _ in range(6)]
        assert errors[5] == f"{spec} was opened 5 times in this run and ended each time."

    work(do)


@contextmanager
def serving(number: int) -> Iterator[None]:
    process = subprocess.Popen(
        [PYTHON, SERVER, "http", str(number)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", number)) == 0:
                break
        time.sleep(0.05)
    yield
    process.kill()
    process.wait()


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_server_over_http_is_asked_and_missed_when_it_goes(port: int) -> None:
    spec = HttpServerSpec(
        "web", 60.0, f"http://127.0.0.1:{port}/mcp", (("Authorization", "Bearer x"),)
    )

    async def do(servers: McpSessions, notes: list[str]) -> None:
        with serving(port):
            tools = await servers.tools(spec)
            assert (await tools["add"].do({"a": 20, "b": 22})).value == 42
            assert (await tools["refuse"].do({})).text == SUNDAY
            lost = await failure(tools["die"].do({}))
            assert str(lost).startswith(f"{spec} cannot be asked: ")
            gone = await failure(tools["add"].do({"a": 1, "b": 1}))
            assert str(gone) == f"{spec} cannot be asked: All connection attempts failed."
        with serving(port):
            await asyncio.sleep(server_module._RETRY_AFTER_S)
            assert (await tools["add"].do({"a": 1, "b": 1})).value == 2

    work(do)
