"""A real worker while it computes an image: it reads on, and ends at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Message, ModelSpec, Sampling
from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.worker_main import SLOW_IMAGE_ROW_S
from paddock.engine.workers.worker_process import WorkerProcess
from paddock.engine.workers.worker_protocol import (
    IMAGE_BYTES,
    AnswerEnd,
    PendingRequest,
    WorkerOptions,
)
from tests.engine.llama.test_vision import N_MODEL, PATCH, SIDE
from tests.fakes import faulty_worker
from tests.fakes.eyes import llava, square


@asynccontextmanager
async def worker_at_work(
    tmp_path: Path,
) -> AsyncIterator[tuple[WorkerProcess, Callable[[], Awaitable[None]]]]:
    """Yield a worker, and what waits until an image is being computed."""
    projector = tmp_path / "mmproj.gguf"
    llava(projector, N_MODEL)
    model = ModelFinder(tmp_path, tmp_path).locate("smollm2:135m").path
    load = WorkerOptions(
        str(model), "chat", 512, 1024, 2, 512, 1, projector=str(projector), n_gpu_layers=0
    )
    begun = tmp_path / "begun"
    command = faulty_worker.command("slow-eyes", begun, tmp_path / "gate")

    async def until_begun() -> None:
        while not begun.exists():  # noqa: ASYNC110 - there is nothing else to wait for
            await asyncio.sleep(0.01)

    worker = await WorkerProcess.started(load, 50, command)
    try:
        yield worker, until_begun
    finally:
        await worker.kill(WorkerEnd("it was ended"))


ENDS = {0: -100.0, 2: -100.0, 4: -100.0}
"""The model does not end an answer by itself."""


async def ask(worker: WorkerProcess, *images: bytes) -> AnswerEnd:
    request = ChatRequest(ModelSpec(""), (Message("user", "What is it?", images=images),))
    sampling = Sampling(max_tokens=2, logit_bias=ENDS)
    return await worker.chat(request, sampling, PendingRequest(), 512)


async def test_all_else_goes_on_while_an_image_is_computed(tmp_path: Path) -> None:
    async with worker_at_work(tmp_path) as (worker, until_begun):
        first, given_up, last = (
            asyncio.create_task(ask(worker, square(shade))) for shade in (0, 100, 255)
        )
        await until_begun()
        n_rows, now = (SIDE // PATCH) ** 2, asyncio.get_running_loop().time()
        assert (await ask(worker)).usage.completion_tokens
        assert await worker.count_texts(("one",)) == [1]
        assert worker.last_turn_at > now + n_rows * SLOW_IMAGE_ROW_S - 2, "it is known to be busy"
        given_up.cancel()
        await asyncio.sleep(0)  # now the cancellation is in the pipe, before all that follows
        await worker.count_texts(("one",))
        (tmp_path / "gate").touch()
        for answer in await asyncio.gather(first, last):
            assert answer.usage.completion_tokens
        assert (tmp_path / "begun").read_text("utf-8") == "..", "one was never computed"


@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_worker_ends_at_once_while_it_computes_an_image(
    tmp_path: Path, is_asked: bool
) -> None:
    async with worker_at_work(tmp_path) as (worker, until_begun):
        seeing = asyncio.create_task(ask(worker, square(0)))
        await until_begun()
        if is_asked:
            worker._send({"op": "stop"})
        else:  # the pool is gone
            assert worker._process.stdin is not None
            worker._process.stdin.close()
        assert await worker._process.wait() == 0, "and was not killed"
        await asyncio.gather(seeing, return_exceptions=True)


async def test_memory_for_images_is_planned_with_a_worker_before_it_sees_any(
    tmp_path: Path,
) -> None:
    async with worker_at_work(tmp_path) as (worker, _):
        (tmp_path / "gate").touch()
        before = worker.measure()
        assert before.host_growth_bytes >= IMAGE_BYTES
        await ask(worker, square(0))
        after = worker.measure()
        assert after.host_growth_bytes < before.host_growth_bytes
        grown = after.host_bytes - before.host_bytes
        assert grown < IMAGE_BYTES // 4, "what a small image takes was planned"
