"""Runs that died: those that the ledger calls running although their process is gone.

On another machine that shares the ledger a run has died if it has sent no heartbeat for `SILENT_S`.
"""

from __future__ import annotations

import socket
import time

from paddock.engine.system.hardware import psutil_module

from .entries import RunRow
from .ledger import Ledger

DIED = "died"

SILENT_S = 180.0  # machines that share a ledger send a heartbeat every 30 s
_CLOCK_TOLERANCE_S = 5.0  # a process starts before its run, but clocks differ


def run_status(row: RunRow, ledger: Ledger) -> str:
    """Return a run's status, `died` for a running one without a process."""
    if row.status != "running":
        return row.status
    if row.host not in (None, socket.gethostname()):
        since = time.time() - SILENT_S
        is_old = ledger.is_shared and row.started < since
        return DIED if is_old and not ledger.has_heartbeat(row.run, since) else row.status
    return "running" if row.pid is not None and is_process_alive(row.pid, row.started) else DIED


def is_process_alive(pid: int, started: float) -> bool:
    """Return whether the process runs, and is not a later one with the same pid."""
    psutil = psutil_module()
    try:
        process = psutil.Process(pid)
        is_old_enough = process.create_time() <= started + _CLOCK_TOLERANCE_S
        return bool(is_old_enough and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
