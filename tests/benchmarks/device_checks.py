"""What `gpu.py` checks besides speed: equal fingerprints, equal answers; memory as foreseen."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from paddock.engine.backends.local import LocalPool
from paddock.engine.memory.machine_probe import MachineProbe
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ModelSpec
from tests.benchmarks.contenders import PADDOCK, Ours, ours
from tests.benchmarks.device_rows import Bench, Row
from tests.benchmarks.loads import Ask, summaries

OURS = PADDOCK.name
EMBEDDER = "all-minilm"
_MB = 1e6


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
    """Compare the memory that was foreseen with what was taken."""
    setup = bench.setup
    settings = setup.settings(profile_s=0.0)
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    chat = ModelSpec(str(setup.model), n_ctx_tokens=setup.n_ctx_tokens)
    embed = ModelSpec(EMBEDDER)
    async with LocalPool(settings, models=finder) as pool:
        before = await MachineProbe(settings).probe_device()
        await pool.load(chat)
        (one,) = pool.stats().resident
        after = await MachineProbe(settings).probe_device()
        on_device = sum(before.free.gpus) - sum(after.free.gpus)
        in_memory = before.free.host - after.free.host
        bench.rows += [
            Row("placed", {OURS: one.placed}),
            Row("memory of the device: in the books, gone by the driver, MB",
                {OURS: f"{one.device_bytes / _MB:.0f}, {on_device / _MB:.0f}"}),
            Row("main memory: in the books, gone by the system, MB",
                {OURS: f"{one.host_bytes / _MB:.0f}, {in_memory / _MB:.0f}"}),
        ]  # fmt: skip
        await pool.load(embed)
        names = sorted(one.name for one in pool.stats().resident)
        bench.rows.append(Row("two models in memory at once", {OURS: str(len(names) == 2)}))
    gone = await MachineProbe(settings).probe_device()
    left = (sum(before.free.gpus) - sum(gone.free.gpus)) / _MB
    bench.rows.append(Row("memory of the device that is not given back, MB", {OURS: f"{left:.0f}"}))
