"""Workers that die or hang, models that cannot be loaded: what the pool makes of them."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import ModelBroken, WorkerLost
from paddock.engine.request import ModelSpec
from paddock.engine.system.records import replace
from tests.engine.pools import CHAT, SETTINGS, ask, opened, started_by
from tests.fakes import faulty_worker, tiny


async def test_a_worker_that_makes_no_step_is_killed_and_started_again(
    noise: ModelSpec, tmp_path: Path
) -> None:
    async with opened(replace(SETTINGS, cache_dir=tmp_path / "cache", step_timeout_s=2.0)) as pool:
        await pool.chat(ask("Hello", noise, {"max_tokens": 2})).reply()
        (pid,) = pool.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        reply = await pool.chat(ask("Hello again", noise, {"max_tokens": 2})).reply()
        assert reply.text
        assert pool.worker_pids() != (pid,)


async def test_where_memory_lets_no_context_grow_fewer_requests_share_the_cells(
    tmp_path: Path,
) -> None:
    start = started_by(*faulty_worker.command("short", 200 * 1024**2))
    spec = replace(CHAT, n_ctx_tokens=8192)
    settings = replace(SETTINGS, cache_dir=tmp_path / "cache", num_parallel=8, cache_layout="split")
    async with LocalPool(settings, start=start) as pool:
        assert (await pool.chat(ask("Hello", spec, {"max_tokens": 2})).reply()).text
        (model,), pids = pool.stats().resident, pool.worker_pids()
        # Streams of 2,048 tokens for all of them would be 550 MB, of which half is there.
        story = ask("Once there were llamas. " * 180, spec, {"max_tokens": 2})
        assert (await pool.chat(story).reply()).text
        (later,) = pool.stats().resident
        assert later.n_cells < model.n_cells
        assert pool.worker_pids() == pids, "it is the same worker"


async def test_a_worker_that_aborts_is_started_again_and_every_request_answered(
    noise: ModelSpec, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, cache_dir=tmp_path / "cache")
    start = started_by(*faulty_worker.command("aborting", tmp_path / "aborted"))
    async with LocalPool(settings, start=start) as pool:
        requests = [
            ask(f"Tell a story about {n} llamas.", noise, {"max_tokens": 400}) for n in range(6)
        ]
        read = pool.chat(ask("Tell a long story.", noise, {"max_tokens": 400}))
        answers = asyncio.gather(*(pool.chat(request).reply() for request in requests))
        with pytest.raises(WorkerLost) as caught:
            async for _ in read:
                (tmp_path / "aborted.read").touch()
        assert caught.value.reason.startswith("killed by SIGABRT while answering request")
        assert caught.value.reason.endswith(
            "a part of the answer was read, so it is not sent again"
        )
        assert all(reply.text for reply in await answers)
        assert pool.stats().loads[noise.ref].loads == 2


async def test_a_corrupt_model_is_named_and_crashes_nothing(tmp_path: Path) -> None:
    source = tiny.llama(tmp_path / "sound.gguf")
    cut, odd = tmp_path / "cut.gguf", tmp_path / "odd.gguf"
    raw = bytearray(source.read_bytes())
    cut.write_bytes(raw[: len(raw) // 2])
    at = raw.index(b"llama.attention.head_count")
    raw[at : at + 5] = b"LLAMA"  # the header is whole, but a value that llama.cpp needs is missing
    odd.write_bytes(bytes(raw))
    async with opened(replace(SETTINGS, cache_dir=tmp_path / "cache")) as pool:
        with pytest.raises(ModelBroken, match="truncated") as caught:
            await pool.chat(ask("Hello", model=ModelSpec(str(cut)))).reply()
        assert caught.value.path == str(cut)
        with pytest.raises(ModelBroken, match="cannot load") as caught:
            await pool.chat(ask("Hello", model=ModelSpec(str(odd)))).reply()
        assert caught.value.path == str(odd)
        assert (await pool.chat(ask("Hello", model=ModelSpec(str(source)))).reply()).text


async def test_closing_the_pool_ends_what_runs_and_leaves_no_process(noise: ModelSpec) -> None:
    async with opened() as pool:
        stream = pool.chat(ask("Tell a long story.", noise, {"max_tokens": 1500}))
        async for _ in stream:
            break
        pids = pool.worker_pids()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
