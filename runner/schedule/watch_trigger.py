"""Triggers of watched folders and hot folders: files that have settled become an order."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import in_left_thread, running
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.model import step_nodes
from paddock.pipelines.triggers import WatchKeys
from paddock.runner.config import pipeline_secrets
from paddock.runner.core.other_runs.group_names import rendered_value
from paddock.runner.folders.file_filter import watch_specs
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.ledger.entries import LedgerError, stored_path
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.watch_loop import FolderWatch
from paddock.runner.workers.order import Order
from paddock.steps.files.scan import FilesScanParams
from paddock.steps.param_types import DocumentSource, InputFolder
from paddock.steps.registry import facts_of
from paddock.steps.sources.mirror import Mirror, SourceAway, SourceParams, SourceRefused
from paddock.steps.sources.place_states import PlaceStates

from .triggered_pipeline import TriggeredPipeline
from .triggers import NothingToWaitFor, TriggerDesk

POLL_S = 60.0
"""How often a source is asked at the least: a server need not say that it has new documents."""
_AGAIN = Backoff(3.0, 300.0)


class SourceListener(Struct, frozen=True):
    """Copies new documents into a watched folder as they come: the watch gives orders for them."""

    params: SourceParams
    root: Path

    async def run(
        self, base: Path, open_ledger: Callable[[bool], Ledger], warn: Callable[[str], None]
    ) -> None:
        """Listen until cancelled; a server that is away or refuses is asked again, ever later."""
        pauses, name = Pauses(_AGAIN), self.params.name

        def own_state() -> Path:
            with open_ledger(False) as ledger:  # what was copied is known beside it
                return ledger.folder

        while True:
            try:
                credential = await self.params.credential(base)
                opened = self.params.opened(credential)
                source = await in_left_thread(opened.__enter__)
                try:
                    states = PlaceStates.of(await in_left_thread(own_state))
                    known, mirror = "", Mirror(self.root, self.params, credential, states)
                    while True:
                        if (cursor := await in_left_thread(source.cursor)) != known:
                            notes = await in_left_thread(mirror.fetch)
                            for note in notes:
                                warn(note)
                            known = "" if notes else cursor  # what is left is asked for again
                        pauses.succeeded()
                        await in_left_thread(source.wait, POLL_S)
                finally:
                    with suppress(SourceAway, SourceRefused, OSError):
                        source.cut()
                        opened.__exit__(None, None, None)
            except (SourceAway, SourceRefused, OSError, LedgerError) as error:
                warn(f"{name}: {error}. Its documents of before stand; it is asked again.")
                await pauses.wait()


class WatchTrigger:
    """An entry of `on.watch`; with `claim: move` a document dropped again is done again."""

    kind = "watch"
    Keys = WatchKeys

    def __init__(self, keys: WatchKeys, triggered: TriggeredPipeline) -> None:
        assert triggered.bound is not None  # else only callers start it
        index = [watch.keys for watch in triggered.bound.watches].index(keys)
        spec = self.spec = watch_specs(triggered.bound)[index]
        file = Path(spec.file)
        self.key = f"watch {stored_path(spec.root, file.parent)}"
        if spec.is_hot:
            self.kind = "hot folder"
        self._listener: SourceListener | None = None
        """What fills the folder."""
        try:
            self._listener = _listener_of(triggered, spec.root)
        except (PipelineError, ValueError) as error:
            raise NothingToWaitFor(self.key, error) from error
        self._desk: TriggerDesk
        self._watch = FolderWatch(
            spec,
            WatchLedger(spec.name, spec.root, file, lambda only: self._desk.open_ledger(only)),
            known_orders=self._known_orders,
            submit=self._submit,
            note=lambda message: self._desk.warn(message),
            max_attempts=triggered.max_attempts,
        )

    async def run(self, desk: TriggerDesk) -> None:
        """Watch until cancelled, and end within seconds also where the folder does not answer."""
        self._desk = desk
        base, listener = Path(self.spec.file).parent, self._listener
        listening = listener.run(base, desk.open_ledger, desk.warn) if listener else None
        async with running(listening) if listening else nullcontext():
            await self._watch.run()

    async def done(self, order: Order) -> None:
        """Write what an order's run has handled, as soon as the trigger runs and the ledger can."""
        await self._watch.done(order)

    def status(self, now: datetime) -> Mapping[str, Any]:
        return self._watch.status()

    async def _known_orders(self) -> list[Order]:
        desk = self._desk
        await desk.queue.flush()  # what a trigger before this one knows
        ended = await desk.queue.unhandled_orders(desk.pipeline().key, desk.key)
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


def _listener_of(triggered: TriggeredPipeline, root: Path) -> SourceListener | None:
    """Return what listens to the source that a step copies into a folder; None: there is none.

    Raises:
        PipelineError: its account is not known before a run.
    """
    pipeline, bound = triggered.pipeline, triggered.bound
    if bound is None:
        return None
    for step in step_nodes(pipeline):
        facts, given, at = facts_of(step.uses), step.params.data, (*step.at, "with")
        name = next(
            (name for name in facts.types.names(DocumentSource) if given.get(name) is not None),
            None,
        )
        if name is None:
            continue
        secrets = pipeline_secrets.read_secrets(pipeline, os.environ).values
        scope = {"inputs": triggered.inputs({}), "secrets": secrets}
        folder = rendered_value(
            pipeline, given[facts.param(InputFolder)], scope, (*at, facts.param(InputFolder))
        )
        if bound.roots.resolve(str(folder)) == root:
            source = rendered_value(pipeline, given[name], scope, (*at, name))
            params = FilesScanParams.model_validate({"root": ".", name: source}).source
            return None if params is None else SourceListener(params, root)
    return None
