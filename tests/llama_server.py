"""A real llama-server in a process of its own, with the small model that comes with the tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from paddock.engine.models.model_finder import ModelFinder
from tests.benchmarks.processes import free_port
from tests.waiting import PATIENCE_S

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDER = "all-minilm-l6-v2.gguf"
KEY = "sk-of-the-far-server"

_PROGRAM = """
import sys, time
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_parallel, params.n_ctx, params.cpuparams.n_threads = 2, 2048, 1
params.api_keys, params.warmup = [sys.argv[3]], False
if sys.argv[4] == "embed":
    params.embedding, params.n_parallel = True, 1
    params.n_ctx = params.n_batch = params.n_ubatch = 512
server = xllamacpp.Server(params)
time.sleep(3600)
"""


@dataclass
class LlamaServer:
    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it as a lost machine does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def llama_server(port: int = 0, role: str = "chat") -> Iterator[LlamaServer]:
    pytest.importorskip("xllamacpp", reason="no llama-server for this machine: xllamacpp has none")
    name = "smollm2:135m" if role == "chat" else "all-minilm"
    nowhere = Path(os.devnull)
    path = ModelFinder(nowhere, nowhere).locate(name).path
    port = port or free_port()
    command = [sys.executable, "-c", _PROGRAM, str(path), str(port), KEY, role]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = LlamaServer(f"http://127.0.0.1:{port}", process)
        _wait(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(server: LlamaServer) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and server.process.poll() is None:
        try:
            if (
                httpx.get(f"{server.url}/health", trust_env=False, timeout=PATIENCE_S).status_code
                == 200
            ):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"llama-server did not come up: {server.process.poll()}")
