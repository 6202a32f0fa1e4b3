"""What `gpu.py` checks besides speed: equal fingerprints, equal answers; memory as foreseen."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import EngineError
from paddock.engine.memory.machine_probe import MachineProbe
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import EmbedRequest, ModelSpec
from tests.benchmarks.contenders import PADDOCK, Ours, ours
from tests.benchmarks.device_rows import Bench, Row
from tests.benchmarks.loads import Ask, documents, summaries

OURS = PADDOCK.name
EMBEDDER = "all-minilm"
_MB = 1e6
# More than nothing, less than what any second model takes.
_NARROW_BYTES = 150_000_000


async def fingerprints(bench: Bench) -> None:
    """Ask the same alone, in company, and during cancelled bursts; compare by fingerprint."""
    args, n = bench.args, bench.args.at_once
    asks = [ask for i in range(n) for ask in summaries(7 + i, 1, args.job_tokens, 60 + 20 * i)]
    for layout in ("unified", "split"):
        texts = defaultdict[tuple[int, str], list[str]](list)
        setup = replace(
            bench.setup, n_parallel=n, more={**bench.setup.more, "cache_layout": layout}
        )
        async with ours(setup) as running:
            answer = partial(_collect, running, asks, texts)

            for _ in range(2):
                for number in range(n):
                    await answer(number)
            for _ in range(3):
                burst = [asyncio.create_task(answer(number % n)) for number in range(3 * n)]
                await asyncio.sleep(0.3)
                for task in burst[::2]:
                    task.cancel()
                await asyncio.gather(*burst, return_exceptions=True)
                await asyncio.gather(*map(answer, range(n)))
            for number in range(n):
                await answer(number)
        n_answers = sum(map(len, texts.values()))
        n_pairs = sum(len(same) - 1 for same in texts.values())
        n_wrong = sum(len(set(same)) - 1 for same in texts.values())
        bench.rows.append(
            Row(
                f"equal requests with equal fingerprints that differ, {layout}",
                {OURS: f"{n_wrong} of {n_pairs}; {len(texts)} fingerprints of {n_answers}"},
            )
        )


async def _collect(
    running: Ours, asks: Sequence[Ask], texts: dict[tuple[int, str], list[str]], number: int
) -> None:
    reply = await running.pool.chat(running.request(asks[number])).reply()
    texts[number, reply.fingerprint].append(reply.text)


async def rooms(bench: Bench) -> None:
    """Compare the memory that was foreseen with what was taken; let one model make room."""
    setup = bench.setup
    settings = setup.settings(profile_s=0.0)
    device = await MachineProbe(settings).look()
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    chat = ModelSpec(str(setup.model), n_ctx_tokens=setup.n_ctx_tokens)
    embed = ModelSpec(EMBEDDER)
    async with LocalPool(settings, models=finder) as pool:
        before = await MachineProbe(settings).look()
        await pool.load(chat)
        (one,) = pool.stats().resident
        after = await MachineProbe(settings).look()
        on_device = sum(before.free.gpus) - sum(after.free.gpus)
        in_memory = before.free.host - after.free.host
        bench.rows += [
            Row("placed", {OURS: one.placed}),
            Row("memory of the device: in the books, gone by the driver, MB",
                {OURS: f"{one.device_bytes / _MB:.0f}, {on_device / _MB:.0f}"}),
            Row("main memory: in the books, gone by the system, MB",
                {OURS: f"{one.host_bytes / _MB:.0f}, {in_memory / _MB:.0f}"}),
        ]  # fmt: skip
        await _vectors(bench, pool, embed)
        names = sorted(one.name for one in pool.stats().resident)
        bench.rows.append(Row("two models in memory at once", {OURS: str(len(names) == 2)}))
    await _evicted(bench, chat, sum(device.free.gpus), one.device_bytes)
    gone = await MachineProbe(settings).look()
    left = (sum(before.free.gpus) - sum(gone.free.gpus)) / _MB
    bench.rows.append(Row("memory of the device that is not given back, MB", {OURS: f"{left:.0f}"}))


async def _vectors(bench: Bench, pool: LocalPool, embed: ModelSpec) -> None:
    texts = [text[:400] for text in documents(7, 16, 60)]
    packed = (await pool.embed(EmbedRequest(embed, tuple(texts)))).vectors
    alone = [(await pool.embed(EmbedRequest(embed, (text,)))).vectors[0] for text in texts]
    worst = min(
        sum(a * b for a, b in zip(one, other, strict=True))
        for one, other in zip(packed, alone, strict=True)
    )
    bench.rows.append(Row("vectors packed and alone, smallest cosine", {OURS: f"{worst:.6f}"}))


async def _evicted(bench: Bench, chat: ModelSpec, free_bytes: int, taken_bytes: int) -> None:
    """Leave room for one model: the idle one must go for the other, and come back."""
    limit: dict[str, int] = {"max_loaded_models": 1}
    if free_bytes and taken_bytes:  # not by number but by the device's memory
        limit = {"gpu_overhead_bytes": free_bytes - taken_bytes - _NARROW_BYTES}
    settings = bench.setup.settings(profile_s=0.0, max_wait_s=0.0, **limit)
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    said: list[str] = []
    async with LocalPool(settings, models=finder) as pool:
        for spec in (chat, ModelSpec(EMBEDDER), chat):
            try:
                async with asyncio.timeout(60):
                    await pool.load(spec)
                said.append(", ".join(one.role for one in pool.stats().resident))
            except (EngineError, TimeoutError) as error:
                said.append(f"{type(error).__name__}: {error}"[:80])
    bench.rows.append(
        Row("room for one, asked chat, embed, chat: there are", {OURS: "; ".join(said)})
    )
