"""What `paddock up` finds and sets around itself: the environment of its runs, its address."""

from __future__ import annotations

import os
import socket

from paddock.engine.api.server import PortTaken, listen
from paddock.runner.address import Address
from paddock.runner.settings import Settings


class UpError(Exception):
    """It cannot start, or not go on: why, and what to do."""


def taken(address: Address) -> socket.socket:
    """Take the address.

    Raises:
        UpError: another program has it.
        CannotListen: it cannot be had at all.
    """
    try:
        return listen(address.host, address.port)
    except PortTaken:
        raise UpError(
            f"{address.host}:{address.port} is taken, maybe by another `paddock up`.\n"
            f"  Choose another address: paddock up --listen {address.host}:{address.port + 1}"
        ) from None


def tell_environment(url: str, settings: Settings) -> None:
    """Set what Prefect reads when it is imported: here, and in the processes of runs."""
    os.environ["PREFECT_API_URL"] = url
    os.environ.setdefault("PREFECT_HOME", str(settings.state_dir / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.pop("CI", None)  # a run of ours uses our pool, wherever we are
