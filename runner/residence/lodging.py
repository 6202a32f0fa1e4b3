"""Use the local service: hold a lease of it, and ask it for Prefect. Knows how to start none."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .control import PREFIX
from .place import NoResidence
from .record import Residence

SILENCE_S = 30.0  # it gives a sign of life every 5 s
CONNECT_S = 5.0


class Lodging:
    """A lease of a service that runs."""

    def __init__(self, residence: Residence) -> None:
        self.residence = residence
        self.broken = asyncio.Event()
        """Set when the service is gone."""
        self.id = uuid.uuid4().hex

    async def prefect_url(self) -> str:
        """Ask for Prefect; gives the address that it has or will have.

        Raises:
            NoResidence: the service does not answer.
        """
        return str((await asked(self.residence, "/prefect", {})).get("url", ""))

    async def prefect(self, within_s: float) -> dict[str, Any]:
        """Wait for Prefect at most so long; gives `state`, `url` and `why`.

        Raises:
            NoResidence: the service does not answer.
        """
        wish = {"within_s": within_s}
        return await asked(self.residence, "/prefect", wish, within_s=within_s + CONNECT_S)


@asynccontextmanager
async def lodge(residence: Residence, *, pipeline: str) -> AsyncIterator[Lodging]:
    """Hold a lease for as long as this lasts.

    Raises:
        NoResidence: the service does not answer.
    """
    lodging = Lodging(residence)
    body = {"id": lodging.id, "pid": os.getpid(), "pipeline": pipeline}
    reader, writer = await _sent(residence, "POST", "/lease", body, CONNECT_S)
    reading = asyncio.create_task(_until_broken(reader, lodging.broken))
    try:
        yield lodging
    finally:
        reading.cancel()
        writer.close()


async def asked(
    residence: Residence, path: str, body: dict[str, Any], *, within_s: float = CONNECT_S
) -> dict[str, Any]:
    """Send a wish and get the answer.

    Raises:
        NoResidence: none comes in time.
    """
    reader, writer = await _sent(residence, "POST", path, body, within_s)
    try:
        async with asyncio.timeout(within_s):
            said = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
    except (OSError, ValueError, TimeoutError) as error:
        raise NoResidence(_silent(residence, error)) from None
    finally:
        writer.close()
    return said if isinstance(said, dict) else {}


async def _sent(
    residence: Residence, method: str, path: str, body: dict[str, Any], within_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request of our own: httpx takes a tenth of a second to import."""
    sent = json.dumps(body).encode()
    head = f"{method} {PREFIX}{path} HTTP/1.1\r\nHost: paddock\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(str(residence.socket))
            writer.write(head.encode() + sent)
            await writer.drain()
    except (OSError, TimeoutError) as error:
        raise NoResidence(_silent(residence, error)) from None
    return reader, writer


async def _until_broken(reader: asyncio.StreamReader, broken: asyncio.Event) -> None:
    """Take signs of life until there are no more."""
    try:
        while True:
            async with asyncio.timeout(SILENCE_S):
                if not await reader.read(1024):
                    return
    except (OSError, TimeoutError):
        return
    finally:
        broken.set()


def _silent(residence: Residence, error: BaseException) -> str:
    why = str(error) or type(error).__name__
    return f"The local service (process {residence.pid}) does not answer: {why.rstrip('.')}."
