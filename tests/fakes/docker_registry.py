"""Debian's own registry, started on a free port with a folder that goes with the test."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmarks.processes import free_port
from tests.waiting import PATIENCE_S


@dataclass(frozen=True)
class DockerRegistry:
    port: int
    log: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def requests(self) -> list[str]:
        """Return the requests that were answered: `PATCH /v2/… 202`."""
        lines = self.log.read_text().splitlines()
        parts = [line.split('"') for line in lines if '" 2' in line or '" 4' in line]
        return [f"{one[1].rsplit(' ', 1)[0]} {one[2].split()[0]}" for one in parts if len(one) > 2]


@contextmanager
def docker_registry(folder: Path) -> Iterator[DockerRegistry]:
    """Start it, or skip with what to install."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs Debian's registry: apt-get install docker-registry")
    port = free_port()
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: "
        f"{folder / 'registry'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: quiet}}\n"
    )
    log = folder / "registry.log"
    with log.open("wb") as out:
        process = subprocess.Popen([program, "serve", config], stdout=out, stderr=out)
        try:
            _wait(port, process)
            yield DockerRegistry(port, log)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_S)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, "the registry ended at once"
        time.sleep(0.05)
    raise TimeoutError("the registry does not answer")
