"""Start a worker with what is known of its model's speed, and keep what it finds out.

A worker whose own code crashes before it is ready or in its first steps is started again with the
next fallback of llama.cpp (`workers.fallback`). What helped is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from paddock.engine.profile.store import Profiles
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.deaths import also, has_crashed, without_context
from paddock.engine.workers.fallback import (
    Fallback,
    FallbackBook,
    next_fallback,
    note,
    with_fallback,
    without,
)
from paddock.engine.workers.load import Load
from paddock.engine.workers.process import COMMAND, WorkerProcess
from paddock.engine.workers.ticket import LoadBroken

log = logging.getLogger(__name__)


class ProfiledStart:
    """Starts real workers; a model without a profile is measured by its worker."""

    def __init__(self, settings: PoolSettings, command: tuple[str, ...] = COMMAND) -> None:
        self._settings = settings
        self._command = command
        self._profiles = Profiles(settings)
        self._books: dict[str, FallbackBook] = {}
        self._tried: dict[str, Fallback] = {}
        """By digest: what the next worker goes without, which has not proven itself yet."""
        self._blameless: set[str] = set()
        """Digests of models that no fallback helps: what kills their workers is in a request."""

    async def __call__(self, load: Load, timeout_s: float) -> WorkerProcess:
        """Start a worker within so many seconds; after a crash again, with the next fallback.

        Raises:
            LoadBroken: the model cannot be loaded, or not in time.
        """
        gpu = load.device if load.is_gpu else ""
        if gpu not in self._books:
            self._books[gpu] = FallbackBook(self._settings.cache_dir, gpu)
        book = self._books[gpu]
        known = self._tried.get(load.digest) or book.find(load.digest)
        first_reason = known.reason if known else ""
        fallback = known.fallback if known else 0
        is_news = False
        while True:
            try:
                worker = await self._started(load, fallback, first_reason, timeout_s)
                break
            except LoadBroken as error:
                higher = next_fallback(load, fallback)
                if not has_crashed(error.why):
                    raise
                if higher is None:
                    raise LoadBroken(also(error.why, without(fallback))) from None
                log.info("%s: %s; started again %s", load.path, error.why, without(higher))
                first_reason = first_reason or without_context(error.why)
                fallback, is_news = higher, True
        needed = Fallback(Path(load.path).name, fallback, first_reason)
        if is_news:
            book.keep(load.digest, needed)
            self._tried.pop(load.digest, None)
        self._follow(worker, load, book, needed)
        return worker

    async def _started(
        self, load: Load, fallback: int, reason: str, timeout_s: float
    ) -> WorkerProcess:
        gpu = load.device if load.is_gpu else ""
        words = note(fallback, reason) if fallback else ""
        given = replace(with_fallback(load, fallback), fallback_note=words)
        fields = self._profiles.load_fields(load.digest, load.n_threads, gpu, fallback)
        worker = await WorkerProcess.started(replace(given, **fields), timeout_s, self._command)
        self._profiles.keep(fields, worker.ready)
        # What was measured is not a part of what loading takes the next time.
        worker.load_s = max(0.0, worker.load_s - worker.ready.get("profiling_s", 0.0))
        return worker

    def _follow(
        self, worker: WorkerProcess, load: Load, book: FallbackBook, needed: Fallback
    ) -> None:
        """See whether a worker survives its first steps."""
        is_blameless = load.digest in self._blameless
        worker.has_fallback = not is_blameless and next_fallback(load, needed.fallback) is not None
        worker.gone.add_done_callback(partial(self._ended, worker, load, needed))
        if load.digest in self._tried:
            worker.on_proven = partial(self._proven, load, book, needed)

    def _proven(self, load: Load, book: FallbackBook, needed: Fallback) -> None:
        book.keep(load.digest, needed)
        self._tried.pop(load.digest, None)

    def _ended(
        self, worker: WorkerProcess, load: Load, needed: Fallback, gone: asyncio.Future[str]
    ) -> None:
        """After a crash in the first steps choose what the next worker goes without."""
        if gone.cancelled() or worker.is_proven or not has_crashed(gone.result()):
            return
        higher = next_fallback(load, needed.fallback)
        if worker.has_fallback and higher is not None:
            reason = needed.reason or without_context(gone.result())
            self._tried[load.digest] = Fallback(needed.model, higher, reason)
            log.info("%s: %s; started again %s", load.path, gone.result(), without(higher))
        elif self._tried.pop(load.digest, None) is not None:
            self._blameless.add(load.digest)
