"""A Prefect server of a test's own, and one that many tests share."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from paddock.engine.system.file_locks import lock_now
from paddock.engine.system.private_files import open_private, private_folder
from paddock.runner.daemon.prefect_server import BACKLOG, COMMAND, TUNED
from tests.waiting import PATIENCE_S

MADE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "prefect"
MIGRATE = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


def seed(home: Path) -> None:
    """Lay an empty database with all tables into a server's folder, which has none yet.

    A server that finds none makes it in 100 migrations, which take 6 s of a processor.
    """
    if (home / "prefect.db").exists():
        return
    made = MADE / version("prefect")
    with lock_now(MADE / "lock", wait_s=-1):
        if not (made / "prefect.db").exists():
            new = private_folder(MADE / "new")
            subprocess.run(
                [sys.executable, "-c", MIGRATE], env={**os.environ, "PREFECT_HOME": str(new)},
                capture_output=True, check=True,
            )  # fmt: skip
            new.rename(made)
    private_folder(home)
    with (made / "prefect.db").open("rb") as old, open_private(home / "prefect.db", "wb") as file:
        shutil.copyfileobj(old, file)


@contextmanager
def server(home: Path, port: int = 0) -> Iterator[str]:
    """Run a Prefect server of its own, in the process and with the settings that Paddock ships.

    A second one in the same folder, at the same port, is the first one come back.

    `prefect server start` takes 4.7 s of a processor in place of 4, and 1.7 % of one while idle.
    """
    seed(home)
    with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}/api"
        own = {"PREFECT_HOME": str(home), "PREFECT_API_URL": url}
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, str(door.fileno())], env={**os.environ, **TUNED, **own},
                pass_fds=(door.fileno(),), stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            _wait_for(url, process, home)
            yield url
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


Started = TypeVar("Started")
_SHARED: dict[str, Any] = {}
_ENDS = ExitStack()


def shared(name: str, start: Callable[[], AbstractContextManager[Started]]) -> Started:
    """Return what the tests of a group share, until `end_shared`: idle it takes 1 to 2 % of a core.

    The next group of a process has a server of its own.
    """
    if name not in _SHARED:
        _SHARED[name] = _ENDS.enter_context(start())
    found: Started = _SHARED[name]
    return found


def end_shared() -> None:
    _SHARED.clear()
    _ENDS.close()


class _AskingAgain(httpx.HTTPTransport):
    """Sends a request again while the server's database is locked (503), as Prefect's does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while (answer := super().handle_request(request)).status_code == 503:
            if time.monotonic() > deadline:
                break
            answer.close()
            time.sleep(0.3)
        return answer


def prefect_client(url: str, auth: tuple[str, str] | None = None) -> httpx.Client:
    """Return a client of a server's API; it loads no certificates, which takes 20 ms."""
    return httpx.Client(
        base_url=url, transport=_AskingAgain(verify=False), timeout=PATIENCE_S, auth=auth
    )


def _wait_for(url: str, process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=60):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.3)
    pytest.fail(f"the Prefect server did not start: {(home / 'log').read_text()[-2000:]}")
