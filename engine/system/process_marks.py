"""Marks of processes, by which one is known after the process that started it was killed."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil


def process_mark(pid: int) -> str:
    """Return a mark that no later process with the same number has."""
    return f"{socket.gethostname()}:{pid}:{_start_time(pid)}"


def _start_time(pid: int) -> str:
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot[:8]}.{ticks[19]}"  # the 22nd field, counted from behind the name
    except (OSError, IndexError):
        pass
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return "0"


def is_process_alive(mark: str) -> bool:
    host, _, rest = mark.rpartition(":")[0].partition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        process = psutil.Process(int(rest))
        return process_mark(int(rest)) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
