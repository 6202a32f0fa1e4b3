"""One Prefect server is kept alive, whatever became of the one before it and of its port."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from paddock.engine.system.private_files import private_folder
from paddock.runner.daemon import prefect_server
from paddock.runner.daemon.prefect_server import PrefectServer
from tests.waiting import soon

# Answers every request with 200, as a server does that is well; ends with its parent.
ANSWERS = """
import os, socket, sys, threading
door = socket.socket(fileno=int(sys.argv[1]))
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
while True:
    link = door.accept()[0]
    link.recv(1000)
    link.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    link.close()
"""
# Still listens for a second, as the server of a parent that was killed.
ENDS = """
import socket, time
door = socket.create_server(("127.0.0.1", 0))
print(door.getsockname()[1], flush=True)
time.sleep(1)
"""

pytestmark = pytest.mark.may_take(280, "each starts a Prefect server")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server, "COMMAND", (sys.executable, "-c", ANSWERS))


@pytest.fixture
def taken() -> Iterator[int]:
    """Yield a port at which a foreign program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def record(folder: Path, port: int, pid: int) -> None:
    """Write what the process that kept the server before has left."""
    residence = private_folder(folder / "residence")
    (residence / "prefect.server").write_text(json.dumps({"port": port, "pid": pid}))


async def addresses(folder: Path) -> tuple[str, str]:
    """Return the address that was expected, and the one where it answers."""
    async with PrefectServer(folder, 3601.0) as server:
        expected = server.status.url
        status = await server.ready(120.0)
        assert status.state == "ready", status
        return expected, status.url


def test_it_takes_the_port_of_a_killed_process_over_as_soon_as_its_server_has_ended(
    tmp_path: Path,
) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", ENDS], stdout=subprocess.PIPE, text=True)
    with orphan:
        assert orphan.stdout is not None
        port = int(orphan.stdout.readline())
        record(tmp_path, port, orphan.pid)
        expected, url = asyncio.run(addresses(tmp_path))
    assert expected == url == f"http://127.0.0.1:{port}/api"


@pytest.mark.parametrize("has_ended", [True, False])
def test_where_a_foreign_program_has_its_port_it_tells_another_address(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch, has_ended: bool
) -> None:
    monkeypatch.setattr(prefect_server, "VACATE_S", 0.5)
    record(tmp_path, taken, 2**30 if has_ended else os.getpid())
    expected, url = asyncio.run(addresses(tmp_path))
    assert expected == f"http://127.0.0.1:{taken}/api"
    assert url != expected
    assert json.loads((tmp_path / "residence/prefect.server").read_text())["port"] == int(
        url.removesuffix("/api").rpartition(":")[2]
    )


async def test_the_next_holder_goes_on_at_the_same_address(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(PrefectServer(tmp_path, 3601.0))
        before = await first.ready(120.0)
        async with PrefectServer(tmp_path, 3601.0) as second:
            assert (await second.ready(120.0)).pid == before.pid
            await stack.aclose()
            await soon(lambda: second.status.pid != before.pid)
            after = await second.ready(120.0)
    assert (after.state, after.url) == ("ready", before.url)


async def test_it_is_started_again_after_it_could_not_be(tmp_path: Path) -> None:
    in_the_way = tmp_path / "residence/prefect.log"
    in_the_way.mkdir(parents=True)

    async with PrefectServer(tmp_path, 3601.0) as server:
        await soon(lambda: server.status.state == "failing")
        in_the_way.rmdir()
        assert (await server.ready(120.0)).state == "ready"
