"""Start a worker with what is known of its model's speed, and keep what it finds out."""

from __future__ import annotations

from dataclasses import replace

from paddock.engine.profile.store import Profiles
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.load import Load
from paddock.engine.workers.process import WorkerProcess


class ProfiledStart:
    """Starts real workers; a model without a profile is measured by its worker."""

    def __init__(self, settings: PoolSettings) -> None:
        self._profiles = Profiles(settings)

    async def __call__(self, load: Load, timeout_s: float) -> WorkerProcess:
        """Start a worker within so many seconds.

        Raises:
            LoadBroken: the model cannot be loaded, or not in time.
        """
        gpu = load.device if load.is_gpu else ""
        fields = self._profiles.load_fields(load.digest, load.n_threads, gpu)
        worker = await WorkerProcess.started(replace(load, **fields), timeout_s)
        self._profiles.keep(fields, worker.ready)
        # What was measured is not a part of what loading takes the next time.
        worker.load_s = max(0.0, worker.load_s - worker.ready.get("profiling_s", 0.0))
        return worker
