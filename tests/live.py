"""A live service for tests: the real pool and the real models behind a real socket, in a thread.

All test modules of a process share one (the fixture `live` of `tests/conftest.py`), with
the bundled models and a store that is empty at first.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.routing import BaseRoute

from paddock.engine.api.pool_server import pool_routes
from paddock.engine.api.request_log import RequestLogEvents
from paddock.engine.api.server import listen, make_server
from paddock.engine.api.service import Service
from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_store import ModelStore
from paddock.engine.settings import PoolSettings, ServiceSettings
from paddock.engine.system.distribution import own_version
from paddock.engine.system.records import replace
from tests.waiting import PATIENCE_S, until

CHAT = "smollm2:135m"
# No model can end this before it is given up.
STORY = {
    "prompt": "Write a very long story about a ferry.",
    "format": {"type": "array", "items": {"type": "integer"}, "minItems": 4000},
    "options": {"num_predict": 4000},
}
VECTORS = "all-minilm"
# The bundled model counts to 9 once more: for 16 tokens the likeliest is ahead of the next by at
# least 3 in logits, more than twice what rounding moves them by. Other chats are decided by it.
COUNTING = [
    *({"role": "user", "content": "Count."},
      {"role": "assistant", "content": "1, 2, 3, 4, 5, 6, 7, 8, 9"}) * 4,
    {"role": "user", "content": "Count."},
]  # fmt: skip

_T = TypeVar("_T")


@dataclass(frozen=True)
class Live:
    url: str
    service: Service
    loop: asyncio.AbstractEventLoop
    root: Path
    n_earlier_deaths: int = 0
    """Workers that had died before the test module began."""

    def call(self, work: Coroutine[Any, Any, _T], timeout_s: float = PATIENCE_S) -> _T:
        """Do something in the service's own event loop, such as asking its pool."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def client(self, **more: Any) -> httpx.Client:
        """Return a client of this service, which takes no proxy from the environment.

        It loads no certificates, which takes 20 ms.
        """
        return httpx.Client(
            base_url=self.url, timeout=PATIENCE_S, trust_env=False, verify=False, **more
        )

    def add_model(self, name: str, *files: Path) -> None:
        """Make a model of GGUF files; `live` deletes it when the test module ends."""
        digests = {}
        with self.client() as client:
            for file in files:
                data = file.read_bytes()
                digests[file.name] = digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
                client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
            body = {"model": name, "files": digests, "stream": False}
            client.post("/api/create", json=body).raise_for_status()

    def n_users(self) -> int:
        """Return how many requests are inside the pool's workers."""

        async def count() -> int:
            return sum(one.n_users for one in self.service.pool.stats().resident)

        return self.call(count())

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test in the service's event loop."""
        self.call(asyncio.wait_for(test, PATIENCE_S), 2 * PATIENCE_S)

    def n_deaths(self) -> int:
        """Return how many workers died since the test module began."""

        async def count() -> int:
            models = self.service.pool.metrics.snapshot().values()
            return sum(model.n_deaths for model in models)

        return self.call(count()) - self.n_earlier_deaths

    def since_now(self) -> Live:
        """Return the same service with its counts from now on."""
        return dataclasses.replace(self, n_earlier_deaths=self.n_earlier_deaths + self.n_deaths())

    def remove_models(self) -> None:
        """Delete what the tests have put into the store."""
        with self.client() as client:
            for model in client.get("/api/tags").json()["models"]:
                client.request("DELETE", "/api/delete", json={"model": model["name"]})

    def until_idle(self) -> None:
        """Wait until no request is in the pool's workers."""
        until(lambda: not self.n_users())

    def n_decoded(self) -> int:
        """Return how many tokens the loaded models have decoded."""

        async def count() -> int:
            return sum(model.n_decoded_tokens for model in self.service.pool.stats().resident)

        return self.call(count())


@contextmanager
def live_service(
    root: Path,
    pool: PoolSettings | None = None,
    service: ServiceSettings | None = None,
    routes: Callable[[Service], Sequence[BaseRoute]] = lambda service: (),
) -> Iterator[Live]:
    """Serve until the block ends. `pool` and `service` are completed with folders under `root`.

    `routes` returns those of other packages.
    """
    # One thread, so that servers of tests which run next to one another do not wait in barriers.
    pool = replace(
        pool or PoolSettings(n_threads=1),
        models_dir=root / "models",
        cache_dir=root / "cache",
        profile_s=0,
    )
    settings = replace(service or ServiceSettings(), state_dir=root / "service")
    door = listen("127.0.0.1", 0)
    settings = replace(settings, port=door.getsockname()[1])
    started: list[tuple[Live, asyncio.Event]] = []
    failed: list[BaseException] = []
    ready = threading.Event()

    def run() -> None:
        try:
            asyncio.run(_serve(door, root, (pool, settings, routes), started, ready))
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="live service", daemon=True)
    thread.start()
    ready.wait(PATIENCE_S)
    if not started:
        raise RuntimeError("the service did not start") from (failed[0] if failed else None)
    ((live, ends),) = started
    try:
        yield live
    finally:
        live.loop.call_soon_threadsafe(ends.set)
        thread.join(PATIENCE_S)
        if failed:
            raise failed[0]


async def _serve(
    door: socket.socket,
    root: Path,
    wishes: tuple[PoolSettings, ServiceSettings, Callable[[Service], Sequence[BaseRoute]]],
    started: list[tuple[Live, asyncio.Event]],
    ready: threading.Event,
) -> None:
    pool_settings, settings, routes = wishes
    finder = ModelFinder(pool_settings.models_dir, pool_settings.cache_dir)
    async with LocalPool(pool_settings, models=finder, events=RequestLogEvents()) as pool:
        doors = pool_routes(pool, names_only=True)
        store = ModelStore(pool_settings.models_dir)
        service = Service(pool, store, finder, settings, own_version(), extra_routes=doors)
        service.extra_routes = [*doors, *routes(service)]
        server = make_server(service)
        serving = asyncio.create_task(server.serve(sockets=[door]))
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells no event
            await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{settings.port}"
        ends = asyncio.Event()
        started.append((Live(url, service, asyncio.get_running_loop(), root), ends))
        ready.set()
        ending = asyncio.create_task(ends.wait())
        await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        server.should_exit = True
        await serving
