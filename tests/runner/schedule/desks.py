"""A queue, a served pipeline and the desk of a trigger, without `paddock up` around them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from paddock.engine.settings import PoolSettings
from paddock.runner.core.other_runs.concurrency_groups import group_holders
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_locks import LockHolder
from paddock.runner.progress.report import Report
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.run_processes import PrefectPlace
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.triggers import Trigger, TriggerDesk
from paddock.runner.settings import Settings
from paddock.runner.workers.order import Order

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


class Around:
    """The surroundings of a run manager: no ledger, no groups, no server of Prefect's."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.faults: dict[Path, str] = {}
        self.ends: dict[str, Report] = {}
        """What the ledger knows, by order; the key "" stands for all."""
        self.crashes: list[str] = []
        self.ended: list[Order] = []
        self.settings: Settings | None = None
        """Where groups have their turns."""

    def trigger_keys(self, pipeline: str) -> Collection[str]:
        return self.keys

    def group_holders(
        self, names: Collection[str], unwanted: Collection[str] = ()
    ) -> Mapping[str, LockHolder]:
        return {} if self.settings is None else group_holders(self.settings, names, unwanted)

    def place_in_prefect(self, pipeline: TriggeredPipeline) -> PrefectPlace:
        return PrefectPlace()

    def known_end(self, pipeline: TriggeredPipeline, order: str) -> tuple[str, Report] | None:
        end = self.ends.get(order) or self.ends.get("")
        return None if end is None else (end.run, end)

    def has_progressed(self, pipeline: TriggeredPipeline, run: str) -> bool:
        return False

    def ledger_fault(self, folder: Path) -> str:
        return self.faults.get(folder, "")

    async def check_ledger(self, pipeline: TriggeredPipeline) -> str:
        return self.ledger_fault(pipeline.file.parent)

    async def report_crashes(self, pipeline: TriggeredPipeline, crash: str, run: str) -> None:
        self.crashes.append(crash)

    def note_ended(self, order: Order) -> None:
        self.ended.append(order)


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
