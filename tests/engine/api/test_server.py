"""The server: its port, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from paddock.engine.api.server import CannotListen, PortTaken, listen
from paddock.engine.models.model_creation import create_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_recipe import ModelRecipe
from paddock.engine.models.model_store import ModelStore
from tests.fakes import tiny
from tests.waiting import PATIENCE_S, is_alive, until

CHAT = "noise:latest"

SERVE = """
import asyncio, sys
from pathlib import Path
from paddock.engine.api.server import listen, serve
from paddock.engine.api.service import Service
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.backends.local import LocalPool
from paddock.engine.settings import PoolSettings, ServiceSettings
from paddock.engine.models.model_store import ModelStore

def ready(door):
    print(door.getsockname()[1], flush=True)

async def main(root, stop_s):
    settings = PoolSettings(models_dir=root, cache_dir=root, profile_s=0, n_threads=1)
    finder = ModelFinder(root, root)
    async with LocalPool(settings, models=finder) as pool:
        own = ServiceSettings(stop_timeout_s=stop_s, state_dir=root)
        service = Service(pool, ModelStore(root), finder, own, "0.1.0")
        await serve(service, listen("127.0.0.1", 0), ready)

asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
"""


@contextmanager
def served(root: Path, stop_s: float) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    finder = ModelFinder(root, root)
    recipe = ModelRecipe(CHAT, files={"m.gguf": tiny.llama(root / "m.gguf")})
    create_model(finder.store, finder, recipe, lambda _: None)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(root), str(stop_s)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False
        ) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def until_it_takes_no_one_more(client: httpx.Client) -> None:
    """Wait until a server has seen its signal: it looks for one twice a second."""
    until = time.monotonic() + PATIENCE_S
    with pytest.raises(httpx.TransportError):
        while time.monotonic() < until:
            httpx.get(f"{client.base_url}/", trust_env=False, timeout=PATIENCE_S)


def body(n_tokens: int) -> dict[str, object]:
    options = {"num_predict": n_tokens, "temperature": 1.2, "repeat_penalty": 1.5, "seed": 3}
    return {"model": CHAT, "prompt": "Tell a very long story of the sea.", "options": options}


def endless(n_tokens: int) -> dict[str, object]:
    """Ask for what no model can end earlier, whatever this processor makes of its numbers."""
    form = {"type": "array", "items": {"type": "integer"}, "minItems": n_tokens}
    return {**body(n_tokens), "format": form}


def test_a_port_that_someone_has_is_named(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken) as caught:
            listen("127.0.0.1", port)
    assert (caught.value.port, caught.value.is_ollama) == (port, False)
    assert str(caught.value) == f"127.0.0.1:{port} is taken: another program listens there already."


def test_an_ollama_that_has_the_port_is_recognised() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]

        def answer() -> None:
            wire, _ = other.accept()
            with wire:
                wire.recv(1024)
                wire.sendall(b"HTTP/1.0 200 OK\r\n\r\nOllama is running")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PortTaken) as caught:
            listen("127.0.0.1", port)
        thread.join()
    assert caught.value.is_ollama
    assert str(caught.value) == f"127.0.0.1:{port} is taken: Ollama listens there already."


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(CannotListen, match=f"cannot listen on {host}:0: "):
        listen(host, 0)


def test_a_signal_lets_what_runs_finish(tmp_path: Path) -> None:
    with served(tmp_path, PATIENCE_S) as (process, client):
        with client.stream("POST", "/api/generate", json=body(600)) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            until_it_takes_no_one_more(client)
            last = json.loads(list(lines)[-1])
        assert last["done"] is True
        assert process.wait(PATIENCE_S) == 0


def test_what_does_not_finish_in_time_is_told_to_come_back(tmp_path: Path) -> None:
    end = {"error": "the server is shutting down"}
    with served(tmp_path, 1) as (process, client), ThreadPoolExecutor() as threads:
        with client.stream("POST", "/api/generate", json=endless(4000)) as answer:
            lines = answer.iter_lines()
            next(lines)
            body = {**endless(4000), "stream": False}
            whole = threads.submit(client.post, "/api/generate", json=body)
            while len(client.get("/ui/state.json").json()["under_way"]) < 2:
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert json.loads(list(lines)[-1]) == end
        refused = whole.result()
        assert (refused.status_code, refused.json()) == (503, end)
        assert refused.headers["retry-after"]
        assert process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_at_once_and_leaves_no_worker(tmp_path: Path) -> None:
    with served(tmp_path, 2 * PATIENCE_S) as (process, client):
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        with client.stream("POST", "/api/generate", json=endless(2000)) as answer:
            lines = answer.iter_lines()
            next(lines)  # kept, or the connection would be closed
            workers = [int(pid) for pid in Path(children).read_text().split()]
            process.send_signal(signal.SIGINT)
            until_it_takes_no_one_more(client)
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)  # not when the first signal's time is up
        assert workers
        until(lambda: not any(map(is_alive, workers)))


def test_a_signal_during_a_creation_leaves_nothing_broken(tmp_path: Path) -> None:
    with served(tmp_path, 0.2) as (process, client):
        body = {"model": "twin", "from": "smollm2:135m"}
        with client.stream("POST", "/api/create", json=body) as answer:
            lines = answer.iter_lines()
            for _ in range(3):
                next(lines)
            process.send_signal(signal.SIGTERM)
            with suppress(httpx.TransportError):
                list(lines)
        assert process.wait(PATIENCE_S) == 0
    store = ModelStore(tmp_path)
    assert store.check() == []
    assert {name.short for name in store.names()} - {"twin:latest"} == {CHAT}
