"""Starts workers, with a fallback of llama.cpp where their own code crashes.

A worker whose own code crashes before it is ready or in its first steps is started again with the
next fallback (`workers.fallbacks`); what helped is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from paddock.engine.profile.profile import PoolProfiles
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.fallbacks import (
    Fallback,
    FallbackStore,
    describe_crash_fallback,
    fallback_words,
    next_fallback,
    with_fallback,
)
from paddock.engine.workers.worker_process import WORKER_COMMAND, WorkerProcess
from paddock.engine.workers.worker_protocol import LoadBroken, WorkerOptions

StartWorker = Callable[[WorkerOptions, float], Awaitable[WorkerProcess]]
"""Starts a worker within so many seconds; raises `LoadBroken`, `EngineError` or `OSError`."""
log = logging.getLogger(__name__)


class WorkerStarter:
    """Starts real workers, and keeps the profiles that they measure."""

    def __init__(self, settings: PoolSettings, command: tuple[str, ...] = WORKER_COMMAND) -> None:
        self._settings = settings
        self._command = command
        self._profiles = PoolProfiles(settings)
        self._fallback_stores: dict[str, FallbackStore] = {}
        self._tried: dict[tuple[str, str], Fallback] = {}
        """By digest and device: the fallback of the next worker, not proven yet."""
        self._blameless: set[tuple[str, str]] = set()
        """Digests and devices of models that no fallback helps: a request kills their workers."""

    async def __call__(self, load: WorkerOptions, timeout_s: float) -> WorkerProcess:
        """Start a worker within so many seconds; after a crash again, with the next fallback.

        Raises:
            LoadBroken: the model cannot be loaded, or not in time.
        """
        gpu = load.device if load.is_gpu else ""
        if gpu not in self._fallback_stores:
            self._fallback_stores[gpu] = FallbackStore(self._settings.cache_dir, gpu)
        book = self._fallback_stores[gpu]
        known = self._tried.get(load.trial_key) or book.find(load.digest)
        first_reason = known.reason if known else ""
        fallback = known.fallback if known else 0
        is_news = False
        while True:
            try:
                worker = await self._started(load, fallback, first_reason, timeout_s)
                break
            except LoadBroken as error:
                higher, end = next_fallback(load, fallback), error.end
                if not end.is_crash:
                    raise
                if load.is_copy:
                    raise
                if higher is None:
                    failed = end.with_failed_fallback(fallback_words(fallback))
                    raise LoadBroken(failed) from None
                log.info("%s: %s; started again %s", load.path, end, fallback_words(higher))
                first_reason = first_reason or end.how
                fallback = higher
                is_news = True
        needed = Fallback(Path(load.path).name, fallback, first_reason)
        if is_news:
            self._proven(load, book, needed)
        is_blameless = load.trial_key in self._blameless or load.is_copy
        worker.has_fallback = not is_blameless and next_fallback(load, needed.fallback) is not None
        worker.gone.add_done_callback(partial(self._ended, worker, load, needed))
        if load.trial_key in self._tried:
            worker.on_proven = partial(self._proven, load, book, needed)
        return worker

    async def _started(
        self, load: WorkerOptions, fallback: int, reason: str, timeout_s: float
    ) -> WorkerProcess:
        gpu = load.device if load.is_gpu else ""
        words = describe_crash_fallback(fallback, reason) if fallback else ""
        given = replace(with_fallback(load, fallback), fallback_note=words)
        fields = self._profiles.load_fields(
            load.digest,
            load.n_threads,
            gpu,
            fallback,
            n_gpu_layers=load.n_gpu_layers,
            n_cpu_experts=load.n_cpu_experts,
        )
        worker = await WorkerProcess.started(replace(given, **fields), timeout_s, self._command)
        self._profiles.keep(worker.ready)
        # The next load does not measure again.
        worker.load_s = max(0.0, worker.load_s - worker.ready.get("profiling_s", 0.0))
        return worker

    def _proven(self, load: WorkerOptions, book: FallbackStore, needed: Fallback) -> None:
        book.keep(load.digest, needed)
        self._tried.pop(load.trial_key, None)

    def _ended(
        self,
        worker: WorkerProcess,
        load: WorkerOptions,
        needed: Fallback,
        gone: asyncio.Future[WorkerEnd],
    ) -> None:
        """After a crash in the first steps, choose the fallback of the next worker."""
        if gone.cancelled() or worker.is_proven or not gone.result().is_crash:
            return
        higher = next_fallback(load, needed.fallback)
        if worker.has_fallback and higher is not None:
            reason = needed.reason or gone.result().how
            self._tried[load.trial_key] = Fallback(needed.model, higher, reason)
            log.info("%s: %s; started again %s", load.path, gone.result(), fallback_words(higher))
        elif self._tried.pop(load.trial_key, None) is not None:
            self._blameless.add(load.trial_key)
