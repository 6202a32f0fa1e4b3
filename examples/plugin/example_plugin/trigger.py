"""A trigger: what starts runs by itself. The contract is `paddock.runner.schedule.triggers`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from paddock.pipelines.keys import Keys
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline
from paddock.runner.schedule.triggers import TriggerDesk
from paddock.runner.workers.order import Order


class LineKeys(Keys):
    """What stands under `on.lines`; texts may read `inputs` and `secrets`."""

    file: str = Field(description="The file that others append lines to.")
    input: str = Field(description="The input that a line becomes.")


@dataclass(frozen=True)  # equal ones wait for the same: it goes on when its file is saved
class NewLines:
    """Start a run for each line that is appended to a file."""

    Keys, kind = LineKeys, "lines"
    keys: LineKeys
    triggered: TriggeredPipeline = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        return f"lines {self.keys.file}"

    async def run(self, desk: TriggerDesk) -> None:
        """Put orders until cancelled, from where it was before a restart."""
        file = self.triggered.file.parent / self.keys.file
        at = (await desk.remembered()).get("at", 0)
        while True:
            for line in await asyncio.to_thread(_lines_from, file, at):
                text = line.decode("utf-8", "replace").strip()
                # An order is on the disk when this returns; with the same key it is the same.
                inputs = {self.keys.input: text}
                await desk.order(f"{self.key} {at}", inputs=inputs, is_promised=True)
                at += len(line)
                await desk.remember({"at": at})
            await asyncio.sleep(1.0)

    async def done(self, order: Order) -> None:
        """Do nothing: `order.end` says how it ended."""

    def status(self, now: datetime) -> Mapping[str, Any]:
        return {"text": f"lines of '{self.keys.file}'"}


def _lines_from(file: Path, at: int) -> list[bytes]:
    """Return whole lines; the last one may be half-written."""
    if not file.exists():
        return []
    with file.open("rb") as lines:
        lines.seek(at)
        return [line for line in lines if line.endswith(b"\n")]
