"""Placement on two graphics devices, with ggml's RPC servers as devices.

`PADDOCK_TEST_RPC` names a folder with llama.cpp's libraries of this version, `libggml-rpc` among
them, and `ggml-rpc-server`; build them with -DGGML_RPC=ON -DGGML_BACKEND_DL=ON.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        "PADDOCK_TEST_RPC" not in os.environ,
        reason="two devices were NOT tried: PADDOCK_TEST_RPC names a build with RPC",
    ),
]
FOLDER = Path(os.environ.get("PADDOCK_TEST_RPC", ""))
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start two servers."""
    with ExitStack() as stack:
        addresses = []
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
            addresses.append(f"127.0.0.1:{port}")
        yield {
            "LLAMA_CPP_LIB_PATH": str(FOLDER),
            "PADDOCK_TEST_RPC_SERVERS": ",".join(addresses),
            "PADDOCK_HOME": str(tmp_path_factory.mktemp("home")),
        }


def computed(environ: Mapping[str, str], code: str) -> Any:
    """Run Python with the servers as devices; returns the JSON of its last line."""
    kept = {name: value for name, value in os.environ.items() if name != "MTMD_CPP_LIB"}
    done = subprocess.run(
        [sys.executable, "-c", f"{_BEFORE}\n{code}"],
        env={**kept, **environ}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_BEFORE = """
import asyncio, json, os, sys
from pathlib import Path
from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.memory.loader import ProfiledStart
from paddock.engine.settings import PoolSettings
from tests.fakes.rpc_devices import RpcSurvey

home = Path(os.environ["PADDOCK_HOME"])
MODEL = ModelSpec("smollm2:135m", n_ctx_tokens=512)

def go(work, memory_mib, **more):
    settings = PoolSettings(
        n_threads=1, models_dir=home / "models", cache_dir=home / "cache", profile_s=0, **more
    )
    start = ProfiledStart(settings, (sys.executable, "-m", "tests.fakes.rpc_devices"))

    async def main():
        survey = RpcSurvey(settings, memory_mib << 20)
        async with LocalPool(settings, surveyor=survey, start=start) as pool:
            return await work(pool)

    return asyncio.run(main())

async def answer(pool, text="Name a sea.", n_tokens=8):
    params = {"temperature": 0, "max_tokens": n_tokens}
    request = ChatRequest(MODEL, (Message("user", text),), params)
    return (await pool.chat(request).reply()).text
"""


def test_a_model_that_fits_lies_on_one_device_and_a_larger_one_on_both(
    environ: dict[str, str],
) -> None:
    found = computed(environ, _PLACES)
    assert found["one"][0] == "31 of 31 layers on RPC0"
    assert found["both"][0] == "31 of 31 layers on RPC0, RPC1"
    assert found["one"][1] == found["both"][1], "it computes the same"


_PLACES = """
async def work(pool):
    text = await answer(pool)
    return [pool.stats().resident[0].placed, text]

found = {"one": go(work, 2000, num_parallel=2)}
# 105 MB of weights are more than one device has.
found["both"] = go(work, 100, num_parallel=2, n_batch_tokens=64)
print(json.dumps(found))
"""


def test_a_crowded_model_is_loaded_on_the_second_device_and_both_answer(
    environ: dict[str, str],
) -> None:
    found = computed(environ, _REPLICAS)
    assert found["placed"] == ["31 of 31 layers on RPC0", "31 of 31 layers on RPC1"]
    assert all(found["running"]), "both compute at once"
    assert len({*found["texts"]}) == 1, "every replica answers the same"
    assert found["places"] == [2, 4]


_REPLICAS = """
async def work(pool):
    await answer(pool)
    places = [(await pool.facts(MODEL)).n_parallel]
    texts, running = [], [0]
    while min(running) == 0:  # the first round brings the second device in
        tasks = [asyncio.create_task(answer(pool, n_tokens=32)) for _ in range(6)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.05)
            now = [one.n_running for one in pool.stats().resident]
            running = now if len(now) == 2 and min(now) >= min(running) else running
        texts += [task.result() for task in tasks]
    places.append((await pool.facts(MODEL)).n_parallel)
    return {
        "placed": [one.placed for one in pool.stats().resident],
        "running": running,
        "texts": texts,
        "places": places,
    }

print(json.dumps(go(work, 2000, num_parallel=2)))
"""
