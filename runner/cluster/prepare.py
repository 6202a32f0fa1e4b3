"""Make and check what several machines need, all of it, whatever is found wrong first."""

from __future__ import annotations

import asyncio
from pathlib import Path

from paddock.runner.settings import Settings

from . import database, folder, tracker
from .findings import Finding


async def prepare(place: Path, settings: Settings, api_url: str) -> list[Finding]:
    """Look at folder, database and Prefect; what can be made is made."""
    found = await asyncio.to_thread(folder.look, place)
    ledger = asyncio.to_thread(database.look, settings.ledger_url, place / folder.STATE_FOLDER)
    prefect = tracker.look(api_url, settings.unattended.work_pool)
    for part in await asyncio.gather(ledger, prefect):
        found += part
    return found
