"""Triggers of watched folders and hot folders: files that have settled become an order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.folders.file_filter import WatchSpec, watch_specs
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.ledger.entries import stored_path
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.watch_loop import FolderWatch
from paddock.runner.workers.order import Order

from .triggered_pipeline import TriggeredPipeline
from .triggers import TriggerDesk


@dataclass
class _Began:
    watch: FolderWatch | None = None
    event: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class FolderTrigger:
    """An entry of `on.watch`: its orders carry the files as they have settled."""

    kind: ClassVar[str] = "watch"

    spec: WatchSpec
    max_attempts: int
    _began: _Began = field(default_factory=_Began, repr=False, compare=False)

    @property
    def key(self) -> str:
        """Return its key: a pipeline watches a folder once."""
        return f"watch {stored_path(self.spec.root, Path(self.spec.file).parent)}"

    async def run(self, desk: TriggerDesk) -> None:
        """Watch until cancelled, and end within seconds also where the folder does not answer."""
        pipeline, spec = desk.pipeline(), self.spec

        async def known_orders() -> list[Order]:
            await desk.queue.flush()  # of a watch before this one
            found = {order.id: order for order in desk.open_orders()}
            found |= {o.id: o for o in await desk.queue.unhandled(pipeline.key, desk.key)}
            return sorted(found.values(), key=lambda order: order.created_at)

        async def submit(files: Sequence[FileVersion], gone: Sequence[str]) -> Order:
            names = [*(seen.relpath for seen in files), *gone]
            reason = names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
            # Each demand is a new one, also of a version that was handled before: the watch knows
            # its orders that are not handled.
            receipt = await desk.order(
                uuid.uuid4().hex, files=files, gone=gone, reason=reason, retry_failed=spec.is_hot
            )
            return receipt.order

        self._began.watch = watch = FolderWatch(
            spec,
            WatchLedger(spec.name, spec.root, pipeline.file, desk.open_ledger),
            known_orders=known_orders,
            submit=submit,
            note=desk.warn,
            max_attempts=self.max_attempts,
        )
        self._began.event.set()
        await watch.run()

    async def done(self, order: Order) -> None:
        """Write what an order's run has handled; wait for the watch to begin.

        Raises:
            LedgerError: nothing is written.
        """
        await self._began.event.wait()
        assert self._began.watch is not None
        await self._began.watch.done(order)

    def status(self, now: datetime) -> Mapping[str, Any]:
        if self._began.watch is None:
            return {"path": str(self.spec.root), "state": "away", "why": "not looked at yet"}
        return self._began.watch.status()


class HotFolderTrigger(FolderTrigger):
    """An entry of `on.watch` with `claim: move`: a document that is dropped again is done again."""

    kind = "hot folder"


def folder_triggers(triggered: TriggeredPipeline, max_attempts: int) -> list[FolderTrigger]:
    """Return the trigger of each entry of `on.watch`."""
    specs = () if triggered.bound is None else watch_specs(triggered.bound)
    return [
        (HotFolderTrigger if spec.is_hot else FolderTrigger)(spec, max_attempts) for spec in specs
    ]
