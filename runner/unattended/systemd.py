"""Tell systemd how the service is: ready, reloading, stopping, alive. Silent where it did not ask.

The protocol is one datagram to the socket that NOTIFY_SOCKET names: sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send a state such as `READY=1`; tells whether somebody was there to take it."""
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@" or not hasattr(socket, "AF_UNIX"):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.setblocking(False)
        wire.sendto(state.encode(), address)
        return True
    return False


def reloaded() -> None:
    """Say that what was to be read again has been."""
    usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    notify(f"RELOADING=1\nMONOTONIC_USEC={usec}")
    notify("READY=1")


def watchdog_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Give how often to send `WATCHDOG=1`: half of what systemd allows; None: it does not ask.

    >>> watchdog_s({"WATCHDOG_USEC": "30000000"})
    15.0
    """
    environ = os.environ if environ is None else environ
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
