"""A queue, a served pipeline and the desk of a trigger, without `paddock up` around them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from paddock.engine.settings import PoolSettings
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.triggers import Trigger, TriggerDesk
from paddock.runner.settings import Settings

STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"


def triggered(folder: Path, on: str, steps: str = STEPS, name: str = "p.yaml") -> TriggeredPipeline:
    """Return a pipeline with these keys under `on`."""
    text = f"name: {folder.name}\non: {on}\n{steps}"
    file = folder / name
    file.write_text(text, encoding="utf-8")
    made = read_triggered_pipeline(file, text, Settings(PoolSettings(), folder))
    assert made is not None
    return made


@asynccontextmanager
async def open_queue(folder: Path, *pipelines: TriggeredPipeline) -> AsyncIterator[OrderQueue]:
    queue = OrderQueue(folder / "state")
    await queue.open()
    await queue.serve([pipeline.key for pipeline in pipelines])
    yield queue
    await queue.close()


def desk_of(
    queue: OrderQueue, pipeline: TriggeredPipeline, trigger: Trigger, **more: Any
) -> TriggerDesk:
    def open_ledger(is_readonly: bool) -> Ledger:
        return Ledger(pipeline.file.parent / ".paddock", is_readonly=is_readonly)

    facts: dict[str, Any] = {"serve": lambda path, answer: None, "warn": lambda words: None}
    return TriggerDesk(trigger.key, lambda: pipeline, queue, open_ledger, **{**facts, **more})


@asynccontextmanager
async def at_work(trigger: Trigger, desk: TriggerDesk) -> AsyncIterator[None]:
    """Have a trigger run until the end of the block."""
    task = asyncio.create_task(trigger.run(desk))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
