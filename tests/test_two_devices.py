"""Placement on two graphics devices, with ggml's RPC servers as devices.

`PADDOCK_TEST_RPC` names a folder with llama.cpp's libraries of this version, `libggml-rpc` among
them, and `ggml-rpc-server`; build them with -DGGML_RPC=ON -DGGML_BACKEND_DL=ON. Without it, only
what needs no device is tried.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import ModelUnusable, WorkerLost
from paddock.engine.memory.model_layout import LayoutRequest
from paddock.engine.memory.worker_starter import WorkerStarter
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_protocol import WorkerOptions
from tests.fakes.rpc_devices import RpcProbe

FOLDER = Path(os.environ.get("PADDOCK_TEST_RPC", ""))
MODEL = ModelSpec("smollm2:135m", n_ctx_tokens=512)
SMALL_MIB = 100  # 105 MB of weights are more
WORKER = (sys.executable, "-m", "tests.fakes.rpc_devices")

T = TypeVar("T")


@dataclass
class Devices:
    """Servers that are devices of pools; none: the pools compute on the processor."""

    home: Path
    servers: dict[str, subprocess.Popen[bytes]]
    """By address."""

    def kill(self, number: int) -> None:
        server = [*self.servers.values()][number]
        server.kill()
        server.wait()

    def settings(self, **more: Any) -> PoolSettings:
        models, cache = self.home / "models", self.home / "cache"
        return PoolSettings(models_dir=models, cache_dir=cache, n_threads=1, profile_s=0, **more)

    def go(
        self, work: Callable[[LocalPool], Awaitable[T]], memory_mib: int = 2000, **more: Any
    ) -> T:
        """Run work in a pool whose devices have so much memory each."""
        settings = self.settings(**more)
        start = WorkerStarter(settings, WORKER)
        probe = RpcProbe(settings, [*self.servers], memory_mib << 20) if self.servers else None

        async def main() -> T:
            async with (
                asyncio.timeout(300),
                LocalPool(settings, memory_probe=probe, start=start) as pool,
            ):
                return await work(pool)

        return asyncio.run(main())


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    if not FOLDER.name:
        pytest.skip("two devices were NOT tried: PADDOCK_TEST_RPC names a build with RPC")
    # Of the workers: llama.cpp may be loaded in this process.
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(FOLDER))
    monkeypatch.delenv("MTMD_CPP_LIB", raising=False)
    with ExitStack() as stack:
        servers = {}
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            server = subprocess.Popen(
                [FOLDER / "ggml-rpc-server", "-p", str(port), "-t", "1"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(server.wait)
            stack.callback(server.kill)
            servers[f"127.0.0.1:{port}"] = server
        yield Devices(tmp_path, servers)


# Said for the seventh time, so that every layout goes on alike.
SENTENCES = (
    "the ferry left at nine and came back at noon,",
    "my old dog sleeps under the table by the window,",
    "two sisters found a golden key in the garden,",
)
AT_NOON = " at nine and came back at noon,"  # eight tokens


def asked(
    number: int = 0, n_tokens: int = 8, model: ModelSpec = MODEL, n_times: int = 6
) -> ChatRequest:
    sentence = SENTENCES[number]
    prompt = f"{sentence} " * n_times + " ".join(sentence.split()[:3])
    params = {"temperature": 0, "max_tokens": n_tokens, "repeat_penalty": 1.0}
    return ChatRequest(model, (), params, prompt=prompt, drafts=False)


async def answer(pool: LocalPool, request: ChatRequest | None = None) -> str:
    return (await pool.chat(request or asked()).reply()).text


async def answers(pool: LocalPool, *requests: ChatRequest) -> list[str]:
    """Return the answers to requests that are computed together."""
    return list(await asyncio.gather(*(answer(pool, one) for one in requests)))


def placed(pool: LocalPool) -> list[str]:
    return [one.placed for one in pool.stats().resident if one.state == "ready"]


# What needs no device


def test_without_devices_the_worker_of_these_tests_answers_on_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Devices(tmp_path, {}).go(answer, num_parallel=1)


@pytest.mark.parametrize(
    ("memory_mib", "names"), [(2000, "RPC0"), (SMALL_MIB, "RPC0, RPC1")], ids=["fits", "is larger"]
)
def test_a_layout_for_two_devices_needs_none(tmp_path: Path, memory_mib: int, names: str) -> None:
    settings = Devices(tmp_path, {}).settings(num_parallel=2, n_batch_tokens=64)
    probe = RpcProbe(settings, ["first", "second"], memory_mib << 20)
    facts = ModelFinder(settings.models_dir, settings.cache_dir).find(MODEL.ref, 512)

    async def main() -> WorkerOptions:
        return (await probe.layouts(LayoutRequest(facts, 512), await probe.probe_device()))[0].load

    load = asyncio.run(main())
    assert load.placed == f"31 of 31 layers on {names}"
    assert load.visible_devices == ("first,second" if "," in names else "first")


# What needs them


def test_a_model_that_fits_lies_on_one_device_and_a_larger_one_on_both(devices: Devices) -> None:
    async def work(pool: LocalPool) -> tuple[str, list[str]]:
        return await answer(pool), placed(pool)

    one, where = devices.go(work, num_parallel=2)
    assert one == AT_NOON
    assert where == ["31 of 31 layers on RPC0"]
    both, where = devices.go(work, SMALL_MIB, num_parallel=2, n_batch_tokens=64)
    assert where == ["31 of 31 layers on RPC0, RPC1"]
    assert one == both, "it computes the same"


@pytest.mark.parametrize("layout", ["split", "unified"])
def test_over_both_devices_sequences_do_not_disturb_one_another_and_their_context_grows(
    devices: Devices, layout: str
) -> None:
    async def work(pool: LocalPool) -> None:
        requests = [asked(number, 12) for number in range(3)]
        alone = [await answer(pool, one) for one in requests]
        assert await answers(pool, *requests) == alone
        longer = replace(MODEL, n_ctx_tokens=768)
        requests = [replace(one, model=longer) for one in requests]
        assert await answers(pool, *requests) == alone
        # Of 575 tokens, more than the context had.
        assert await answer(pool, asked(0, 8, longer, n_times=52)) == AT_NOON
        (one,) = pool.stats().resident
        assert one.n_ctx_tokens == 768
        assert one.placed == "31 of 31 layers on RPC0, RPC1"
        assert pool.stats().loads[MODEL.ref].loads == 1, "the weights stayed"

    devices.go(work, SMALL_MIB, num_parallel=3, n_batch_tokens=64, cache_layout=layout)


def test_a_crowded_model_is_loaded_on_the_second_device_and_both_answer(devices: Devices) -> None:
    async def work(pool: LocalPool) -> None:
        await answer(pool)
        assert (await pool.facts(MODEL)).n_parallel == 2
        texts = await crowded(pool, lambda: None)
        assert placed(pool) == ["31 of 31 layers on RPC0", "31 of 31 layers on RPC1"]
        assert len(texts) == 1, "every replica answers the same"
        assert (await pool.facts(MODEL)).n_parallel == 4

    devices.go(work, num_parallel=2)


async def crowded(pool: LocalPool, then: Callable[[], None]) -> set[str]:
    """Ask until both devices compute at once, and do something then; return the answers."""
    texts, is_done = set[str](), False
    while not is_done:  # the first round brings the second device in
        tasks = [asyncio.create_task(answer(pool, asked(n_tokens=32))) for _ in range(6)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.05)
            n_running = [one.n_running for one in pool.stats().resident]
            if not is_done and len(n_running) == 2 and all(n_running):
                is_done = True
                then()
        texts |= {task.result() for task in tasks}
    return texts


def test_where_the_device_of_a_replica_dies_the_other_answers_its_requests(
    devices: Devices,
) -> None:
    async def work(pool: LocalPool) -> None:
        await answer(pool)
        texts = await crowded(pool, lambda: devices.kill(1))
        assert len(texts) == 1
        assert placed(pool) == ["31 of 31 layers on RPC0"]

    devices.go(work, num_parallel=2)


def test_a_device_that_dies_is_a_clear_error_and_nothing_hangs(devices: Devices) -> None:
    reason = r"\(llama.cpp's last line: \S+ggml-rpc.cpp:\d+: "

    async def work(pool: LocalPool) -> None:
        await answer(pool)
        assert placed(pool) == ["31 of 31 layers on RPC0, RPC1"]
        stream = pool.chat(asked(n_tokens=200))
        with pytest.raises(WorkerLost, match=f"SIGABRT while answering request 2 {reason}Remote"):
            async for _ in stream:
                devices.kill(1)
        # The probe still names it, as a driver may.
        with pytest.raises(ModelUnusable, match=f"SIGABRT while loading.* {reason}Failed to conn"):
            await answer(pool)

    devices.go(work, SMALL_MIB, num_parallel=2, n_batch_tokens=64)
