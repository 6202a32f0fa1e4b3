"""Whether the service does its work: every worker is asked for one real token.

Whoever asks while others do shares their answer, so that strangers can put no load on a model by
asking for its health.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from paddock.engine.workers.probe import Probe

# A busy worker answers within a step or two; one that has not by now is of no use to a client.
WITHIN_S = 10.0
_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """What the workers answered."""

    probes: tuple[Probe, ...]
    at: float
    """By `time.monotonic`."""

    @property
    def is_well(self) -> bool:
        """Whether every worker that is there answered; with none there, nothing is wrong."""
        return all(probe.is_well for probe in self.probes)

    @property
    def why(self) -> str:
        """What is wrong; empty: nothing."""
        ill = (f"{probe.name}: {probe.why}" for probe in self.probes if not probe.is_well)
        return "; ".join(ill)

    def told(self, *, in_full: bool) -> dict[str, Any]:
        """Write it for a client; strangers are not told the models' names."""
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


class Health:
    """Asks the pool, once for all who want to know at about the same time."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._asking: asyncio.Task[Report] | None = None

    async def ask(self, probe: Callable[[float], Awaitable[tuple[Probe, ...]]]) -> Report:
        """Give a report that is no older than a second."""
        known = self._report
        if known is not None and time.monotonic() - known.at < _FRESH_S:
            return known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(probe))
        # Whoever leaves meanwhile must not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def _ask(self, probe: Callable[[float], Awaitable[tuple[Probe, ...]]]) -> Report:
        self._report = Report(await probe(WITHIN_S), time.monotonic())
        return self._report
