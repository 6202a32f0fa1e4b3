"""One Prefect server is kept alive, whatever became of the one before it and of its port."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from paddock.engine.system.private_files import private_folder
from paddock.engine.system.tasks import end, running
from paddock.runner.daemon import prefect_server
from paddock.runner.daemon.prefect_server import keep_own_server
from tests.waiting import eventually

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


async def address(folder: Path) -> str:
    """Return where the server of a folder answers."""
    found: list[str] = []
    async with running(keep_own_server(folder, 3601.0, found.append)):
        await eventually(lambda: found)
    return found[0]


async def test_it_takes_the_port_of_a_killed_process_over_and_ends_its_server(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = int(door.getsockname()[1])
        command = [sys.executable, "-c", ANSWERS, str(door.fileno())]
        orphan = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[door.fileno()])  # noqa: ASYNC220
    with orphan:
        record(tmp_path, port, orphan.pid)
        assert await address(tmp_path) == f"http://127.0.0.1:{port}/api"
        assert not psutil.pid_exists(orphan.pid)


@pytest.mark.parametrize("has_ended", [True, False])
async def test_where_a_foreign_program_has_its_port_it_tells_another_address(
    tmp_path: Path, taken: int, has_ended: bool
) -> None:
    record(tmp_path, taken, 2**30 if has_ended else os.getpid())
    url = await address(tmp_path)
    assert url != f"http://127.0.0.1:{taken}/api"
    port = json.loads((tmp_path / "residence/prefect.server").read_text())["port"]
    assert url == f"http://127.0.0.1:{port}/api"


async def test_the_next_holder_goes_on_at_the_same_address(tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []
    file = tmp_path / "residence/prefect.server"
    async with running(keep_own_server(tmp_path, 3601.0, first.append)) as holder:
        await eventually(lambda: first)
        before = json.loads(file.read_text())
        async with running(keep_own_server(tmp_path, 3601.0, second.append)):
            await eventually(lambda: second)
            await end(holder)
            await eventually(lambda: json.loads(file.read_text())["pid"] != before["pid"])
            await eventually(lambda: len(second) > 1)  # the first one's address, then its own
    assert {*first, *second} == {f"http://127.0.0.1:{before['port']}/api"}
