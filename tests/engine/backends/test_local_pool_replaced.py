"""Files of a model that are replaced while a pool has it: what answers, and under which digest."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import psutil

from paddock.engine.backends.local import LocalPool
from paddock.engine.gguf import read_header
from paddock.engine.memory.worker_starter import WorkerStarter
from paddock.engine.request import ChatRequest, Message, ModelSpec, Reply
from paddock.engine.settings import PoolSettings
from paddock.engine.system.files import sha256_of
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_process import WorkerProcess
from paddock.engine.workers.worker_protocol import WorkerOptions
from tests.fakes import tiny
from tests.fakes.eyes import square, write_family
from tests.fakes.gguf import split_gguf


def settings_of(folder: Path) -> PoolSettings:
    return PoolSettings(n_threads=1, models_dir=folder, cache_dir=folder / "cache", profile_s=0)


def request(path: Path, *images: bytes) -> ChatRequest:
    spec = ModelSpec(str(path), n_ctx_tokens=256)
    message = Message("user", "What is it?", images=images)
    return ChatRequest(spec, (message,), {"max_tokens": 8, "temperature": 0}, n_logprobs=1)


def is_alike(reply: Reply, other: Reply) -> bool:
    """Return whether one model gave both: others' first logprobs are 0.14 or more apart.

    Rounding moves them by less than 0.01.
    """
    return abs(reply.logprobs[0].logprob - other.logprobs[0].logprob) < 0.05


async def answered_alone(folder: Path, path: Path, *images: bytes) -> Reply:
    async with LocalPool(settings_of(folder)) as pool:
        return await pool.chat(request(path, *images)).reply()


async def test_a_replaced_model_answers_itself_and_the_old_worker_goes(tmp_path: Path) -> None:
    path = tiny.llama(tmp_path / "mine.gguf")
    chat_request = request(path)
    stays = replace(
        chat_request, model=replace(chat_request.model, keep_alive_s=-1, is_pinned=True)
    )
    async with LocalPool(settings_of(tmp_path)) as pool:
        old = await pool.chat(stays).reply()
        old_worker = psutil.Process(*pool.worker_pids())
        tiny.llama(tmp_path / "new", seed=2).replace(path)
        new = await pool.chat(chat_request).reply()
        assert old.digest != new.digest == sha256_of(path)
        await asyncio.to_thread(psutil.wait_procs, [old_worker], 150)
        assert not old_worker.is_running()
    alone = await answered_alone(tmp_path, path)
    assert is_alike(new, alone) and not is_alike(new, old)


async def test_a_replaced_projector_is_what_sees(tmp_path: Path) -> None:
    model, projector = write_family("llava", tmp_path)
    async with LocalPool(settings_of(tmp_path)) as pool:
        before = await pool.facts(ModelSpec(str(model)))
        old = await pool.chat(request(model, square(200))).reply()
        written, at = projector.read_bytes(), read_header(projector).data_at
        weights = np.frombuffer(written[at:], np.float32)
        projector.write_bytes(written[:at] + weights[::-1].tobytes())
        after = await pool.facts(ModelSpec(str(model)))
        new = await pool.chat(request(model, square(200))).reply()
    assert before.identity != after.identity
    assert (old.digest, new.digest) == (before.served_digest, after.served_digest)
    assert old.digest != new.digest
    alone = await answered_alone(tmp_path, model, square(200))
    assert is_alike(new, alone) and not is_alike(new, old)


def replacing(
    folder: Path, replace_files: Callable[[], object]
) -> Callable[[WorkerOptions, float], Awaitable[WorkerProcess]]:
    """Return what starts workers, and calls `replace_files` before the first one reads its file."""
    start, due = WorkerStarter(settings_of(folder)), [replace_files]

    async def started(load: WorkerOptions, timeout_s: float) -> WorkerProcess:
        if due:
            due.pop()()
        return await start(load, timeout_s)

    return started


async def test_a_model_that_is_replaced_before_its_worker_reads_it_has_its_own_digest(
    tmp_path: Path,
) -> None:
    path, new = tiny.llama(tmp_path / "mine.gguf"), tiny.llama(tmp_path / "new", seed=2)
    start = replacing(tmp_path, lambda: new.replace(path))
    async with LocalPool(settings_of(tmp_path), start=start) as pool:
        reply = await pool.chat(request(path)).reply()
    assert reply.digest == sha256_of(path)
    assert is_alike(reply, await answered_alone(tmp_path, path))


async def test_a_replaced_part_of_a_split_model_is_seen(tmp_path: Path) -> None:
    first, _ = split_gguf(tiny.llama(tmp_path / "a.gguf"), tmp_path / "mine.gguf")
    (tmp_path / "other").mkdir()
    source = tiny.llama(tmp_path / "b.gguf", seed=2)
    _, second = split_gguf(source, tmp_path / "other" / "mine.gguf")
    async with LocalPool(settings_of(tmp_path)) as pool:
        old = await pool.chat(request(first)).reply()
        second.replace(tmp_path / second.name)
        new = await pool.chat(request(first)).reply()
    assert old.digest != new.digest
    assert not is_alike(old, new)
