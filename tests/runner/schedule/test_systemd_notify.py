"""What systemd is told."""

import os
import socket
from pathlib import Path

from paddock.runner.schedule.systemd_notify import notify_systemd, watchdog_interval_s


def test_it_is_told_over_its_socket_and_no_one_minds_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(path))
        assert notify_systemd("READY=1", {"NOTIFY_SOCKET": str(path)})
        assert wire.recv(100) == b"READY=1"
    assert not notify_systemd("READY=1", {})
    assert not notify_systemd("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_it_hears_twice_in_the_time_that_it_allows() -> None:
    assert (
        watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 15.0
    )
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_interval_s({}) is None
