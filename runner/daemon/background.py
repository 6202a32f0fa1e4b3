"""Entry point of the daemon's own process: `python -m paddock.runner.residence.background JSON`.

Started by a run in a session of its own; ends when nobody has used it for long enough.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from paddock.engine.system import files
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_files import DaemonPaths, daemon_log, make_daemon_folders, paths_of
from .daemon_server import DaemonTaken, hold_daemon

LOG_BYTES, N_LOGS = 1 << 20, 3
LOOK_S = 1.0
ENDING_S = 25.0  # workers and Prefect's server take some seconds to end

log = logging.getLogger("paddock.runner.daemon.background")  # it is `__main__` itself


def main() -> None:
    """Serve until it is asked to end, or nobody has needed it for long enough."""
    order = daemon_files.decode_start_options(sys.argv[1])
    settings = order.settings
    place = make_daemon_folders(paths_of(settings))
    os.chdir(place.folder)
    _log_to(daemon_log(settings.state_dir))
    try:
        asyncio.run(_serve(settings, wants_prefect=order.wants_prefect))
    except DaemonTaken:
        log.info("another process serves at %s already", place.socket)
    except Exception:
        log.exception("the local service ends by an error")
        raise


async def _serve(settings: Settings, *, wants_prefect: bool) -> None:
    place, idle_s = paths_of(settings), settings.unattended.service_idle_s
    await _until_free(place)
    async with hold_daemon(
        settings, place, kind="background", wants_prefect=wants_prefect, idle_s=idle_s
    ) as desk:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, desk.ends.set)
        log.info("serves at %s (process %d)", place.socket, os.getpid())
        while not desk.ends.is_set() and (desk.mirrors.n_ended or not desk.leases.is_over(idle_s)):
            try:
                async with asyncio.timeout(LOOK_S):
                    await desk.ends.wait()
            except TimeoutError:
                continue
        log.info("ends: %s", "asked to" if desk.ends.is_set() else "nobody needs it")


async def _until_free(place: DaemonPaths) -> None:
    """Let one that is ending end; one whose door is open stays."""
    deadline = time.monotonic() + ENDING_S
    lock = FileLock(place.lock, mode=files.PRIVATE_FILE, blocking=False)
    while time.monotonic() < deadline and daemon_files.daemon_at(place) is None:
        with suppress(Timeout), lock:
            return
        await asyncio.sleep(LOOK_S / 20)


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log that only its owner may read, each rotated file too."""

    def _open(self) -> Any:
        """Open the file that is written to now."""
        return files.open_private(Path(self.baseFilename), self.mode)


def _log_to(file: Path) -> None:
    handler = _PrivateLog(file, maxBytes=LOG_BYTES, backupCount=N_LOGS, encoding="utf-8")
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("paddock").setLevel(logging.INFO)


if __name__ == "__main__":
    main()
