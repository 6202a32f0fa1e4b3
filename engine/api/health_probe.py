"""Health of a pool: every worker is asked for one real token.

Concurrent callers share one probe, so they put no load on a model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from paddock.engine.workers.worker_process import ProbeResult

# A busy worker answers within a step or two.
PROBE_TIMEOUT_S = 10.0
_REPORT_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The results of one probe of all workers."""

    probes: tuple[ProbeResult, ...]
    at: float
    """By `time.monotonic`."""

    @property
    def is_well(self) -> bool:
        """Whether every worker answered; true where there is none."""
        return all(probe.is_well for probe in self.probes)

    @property
    def why(self) -> str:
        """What is wrong; empty where all is well."""
        ill = (f"{probe.name}: {probe.why}" for probe in self.probes if not probe.is_well)
        return "; ".join(ill)

    def value(self, *, in_full: bool) -> dict[str, Any]:
        """Return the JSON value; models' names only `in_full`."""
        short: dict[str, Any] = {"status": "ok" if self.is_well else "unwell"}
        if not in_full:
            return short if self.is_well else {**short, "error": "a worker does not answer"}
        workers = [
            {
                "model": probe.name,
                "ok": probe.is_well,
                "seconds": round(probe.seconds, 4),
                **({} if probe.is_well else {"error": probe.why}),
            }
            for probe in self.probes
        ]
        return {**short, "workers": workers, **({} if self.is_well else {"error": self.why})}


class HealthProbe:
    """Probes the pool; concurrent callers share one probe."""

    def __init__(self) -> None:
        self._report: HealthReport | None = None
        self._asking: asyncio.Task[HealthReport] | None = None

    async def ask(
        self, probe: Callable[[float], Awaitable[tuple[ProbeResult, ...]]]
    ) -> HealthReport:
        """Return a report that is no older than a second."""
        known = self._report
        if known is not None and time.monotonic() - known.at < _REPORT_FRESH_S:
            return known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._run(probe))
        # A caller that is cancelled must not cancel the probe of the others.
        return await asyncio.shield(self._asking)

    async def _run(
        self, probe: Callable[[float], Awaitable[tuple[ProbeResult, ...]]]
    ) -> HealthReport:
        self._report = HealthReport(await probe(PROBE_TIMEOUT_S), time.monotonic())
        return self._report
