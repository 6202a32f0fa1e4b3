"""Background tuning: measure models, and make their tuned copies, while a pool is idle.

`BackgroundTuner` watches a pool of a service that stays. A loaded model is measured in its worker,
again after a while where other programs disturbed that; a copy is made in a subprocess. The first
request that comes ends either. Everything but the waiting for that subprocess runs in the pool's
event loop.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from paddock.engine.errors import EngineError
from paddock.engine.memory.device_memory import this_device
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ModelSpec
from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff
from paddock.engine.system.tasks import StopRequested, end, run_unless_stopped
from paddock.engine.tuning.tuned_copies import TunedCopy
from paddock.engine.tuning.tuner import TuningNotNow, TuningStop, remove_left_parts, tune
from paddock.engine.workers.worker_protocol import WorkerGone

from .local import LocalPool

log = logging.getLogger("paddock.tuning")

LOOK_S = 2.0
IDLE_S = 10.0
END_S = 10.0  # its process is killed at once; on a busy machine its thread takes a moment
# A measurement takes 12 s, a copy of a small model half a minute; the last of them come after three
# hours.
AGAIN = Backoff(first_s=60.0, longest_s=3600.0)
MOST_ATTEMPTS = 8


class _Attempts(Struct):
    """How often something was begun for a model, and when its next turn comes."""

    n: int = 0
    next_at: float = 0.0

    def begin(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self.n == MOST_ATTEMPTS or now < self.next_at:
            return False
        self.n += 1
        self.next_at = now + AGAIN.pause_s(self.n)
        return True


class BackgroundTuner:
    """Use it as `async with BackgroundTuner(pool)`, inside the pool's own context."""

    def __init__(self, pool: LocalPool) -> None:
        self._pool = pool
        settings = pool.settings
        self._n_threads = settings.n_threads or this_device().n_threads
        # Copies are for processors: on a device they would take memory that models need.
        is_on_device = this_device().is_gpu and settings.n_gpu_layers != 0
        is_wanted = settings.profile_s > 0 and not settings.is_exact
        self._makes_copies = is_wanted and not is_on_device
        self._finder = ModelFinder(settings.models_dir, settings.cache_dir)
        self._measurements: dict[str, _Attempts] = {}
        self._copies: dict[str, _Attempts] = {}
        self._stop = TuningStop()
        self._has_request = asyncio.Event()
        self._copying: asyncio.Future[TunedCopy] | None = None

    async def __aenter__(self) -> BackgroundTuner:
        self._pool.on_request = self._end_work
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end_work()
        await end(self._task)
        if self._copying is not None:  # its thread removes what it has begun
            await asyncio.wait([self._copying], timeout=END_S)

    def _end_work(self) -> None:
        self._stop.set()
        self._has_request.set()

    async def _run(self) -> None:
        if self._makes_copies:
            await asyncio.to_thread(remove_left_parts, self._pool.settings)
            for name in await asyncio.to_thread(self._finder.forget_copies_of_gone_models):
                log.info("the tuned copy of %s, of an earlier version or gone, is removed", name)
        idle_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            stats = self._pool.stats()
            is_still = all(model.state == "ready" and not model.n_users for model in stats.resident)
            idle_s = idle_s + LOOK_S if is_still and not stats.n_waiting else 0.0
            self._stop = TuningStop()  # set by requests that come from now on
            self._has_request.clear()
            try:
                if idle_s >= IDLE_S and (await self._measure() or await self._copy()):
                    idle_s = 0.0
            except Exception:  # a fault of ours with one model: the others' turn comes
                log.exception("work while idle failed")

    async def _measure(self) -> bool:
        for digest in self._pool.unmeasured():
            if self._measurements.setdefault(digest, _Attempts()).begin():
                with suppress(EngineError, WorkerGone, StopRequested):  # its next turn comes
                    await run_unless_stopped(self._pool.measure(digest), self._has_request)
                return True
        return False

    async def _copy(self) -> bool:
        for resident in self._pool.stats().resident if self._makes_copies else ():
            is_known = resident.tuned_from or self._finder.tuned.record(resident.digest)
            if is_known or not self._copies.setdefault(resident.digest, _Attempts()).begin():
                continue
            facts = await asyncio.to_thread(self._finder.find_original, resident.name)
            copying = asyncio.to_thread(
                tune, facts, self._pool.settings, self._n_threads, self._stop
            )
            self._copying = asyncio.ensure_future(copying)
            self._copying.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                record = await asyncio.shield(self._copying)
            except TuningNotNow as error:
                log.info("%s", error)
                return True
            except (EngineError, OSError) as error:
                log.warning("%s has no tuned copy: %s", facts.name, error)
                self._copies[resident.digest].n = MOST_ATTEMPTS
                return True
            log.info("tuned copy of %s: %s", facts.name, record.summary)
            is_loaded = facts.digest in {model.digest for model in self._pool.stats().resident}
            if record.why_none or not is_loaded:
                return True
            with suppress(EngineError):  # the pool goes back to the original
                await self._pool.unload(facts.name)
                spec = ModelSpec(facts.name, facts.role, keep_alive_s=resident.keep_alive_s)
                await self._pool.load(spec)
            return True
        return False
