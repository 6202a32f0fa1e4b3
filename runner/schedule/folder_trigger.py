"""Triggers of watched folders and hot folders: files that have settled become an order."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from paddock.engine.system.records import field, record
from paddock.runner.folders.file_filter import WatchSpec, watch_specs
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.ledger.entries import stored_path
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.watch_loop import FolderWatch
from paddock.runner.workers.order import Order

from .triggered_pipeline import TriggeredPipeline
from .triggers import TriggerDesk


@record
class FolderTrigger:
    kind: ClassVar[str] = "watch"

    spec: WatchSpec
    max_attempts: int
    _watch: FolderWatch = field(init=False, repr=False, compare=False)
    _desk: TriggerDesk = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spec, file = self.spec, Path(self.spec.file)
        self._watch = FolderWatch(
            spec,
            WatchLedger(spec.name, spec.root, file, lambda only: self._desk.open_ledger(only)),
            known_orders=self._known_orders,
            submit=self._submit,
            note=lambda message: self._desk.warn(message),
            max_attempts=self.max_attempts,
        )

    @property
    def key(self) -> str:
        return f"watch {stored_path(self.spec.root, Path(self.spec.file).parent)}"

    async def run(self, desk: TriggerDesk) -> None:
        """Watch until cancelled, and end within seconds also where the folder does not answer."""
        self._desk = desk
        await self._watch.run()

    async def done(self, order: Order) -> None:
        """Write what an order's run has handled, as soon as the trigger runs and the ledger can."""
        await self._watch.done(order)

    def status(self, now: datetime) -> Mapping[str, Any]:
        return self._watch.status()

    async def _known_orders(self) -> list[Order]:
        desk = self._desk
        await desk.queue.flush()  # what a trigger before this one knows
        ended = await desk.queue.unhandled(desk.pipeline().key, desk.key)
        orders = {order.id: order for order in (*desk.open_orders(), *ended)}
        return sorted(orders.values(), key=lambda order: order.created_at)

    async def _submit(self, files: Sequence[FileVersion], gone: Sequence[str]) -> Order:
        names = [*(seen.relpath for seen in files), *gone]
        receipt = await self._desk.order(
            # Each demand is a new one, also of a version that was handled before: the watch knows
            # its orders whose end was not taken.
            uuid.uuid4().hex,
            reason=names[0] + (f" and {len(names) - 1} more" if names[1:] else ""),
            files=files,
            gone=gone,
            retry_failed=self.spec.is_hot,
        )
        return receipt.order


class HotFolderTrigger(FolderTrigger):
    """An entry of `on.watch` with `claim: move`: a document that is dropped again is done again."""

    kind = "hot folder"


def folder_triggers(triggered: TriggeredPipeline, max_attempts: int) -> list[FolderTrigger]:
    specs = () if triggered.bound is None else watch_specs(triggered.bound)
    return [
        (HotFolderTrigger if spec.is_hot else FolderTrigger)(spec, max_attempts) for spec in specs
    ]
