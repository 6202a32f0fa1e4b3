"""Messages to systemd about `paddock up`: ready, reloaded, alive.

Its protocol is one datagram to NOTIFY_SOCKET (sd_notify(3)).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


def notify_systemd(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send a state such as `READY=1`; return whether there was a receiver."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@" or not hasattr(socket, "AF_UNIX"):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.setblocking(False)
        wire.sendto(state.encode(), address)
        return True
    return False


def notify_reloaded() -> None:
    usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={usec}")
    notify_systemd("READY=1")


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to send `WATCHDOG=1`: half of systemd's limit; None without a limit.

    >>> watchdog_interval_s({"WATCHDOG_USEC": "30000000"})
    15.0
    """
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
