"""Entry point of the daemon's own process: `python -m paddock.runner.daemon.daemon_main JSON`.

A run starts it in a session of its own. It ends when it has been idle for long enough.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from paddock.engine.system import private_files
from paddock.engine.system.file_locks import LockTaken, lock_soon
from paddock.engine.system.processes import return_large_blocks
from paddock.engine.system.tasks import wait_for_event
from paddock.runner.progress.command_logs import PlainFormatter
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_files import daemon_log, make_daemon_folders, paths_of
from .daemon_server import hold_daemon

LOG_BYTES, N_LOGS = 1 << 20, 3
LOOK_S = 1.0
ENDING_S = 25.0  # workers take some seconds to end

log = logging.getLogger("paddock.runner.daemon.daemon_main")  # it is `__main__` itself


def main() -> None:
    settings = daemon_files.decode_start_options(sys.argv[1])
    paths = make_daemon_folders(paths_of(settings))
    os.chdir(paths.folder)
    file = daemon_log(settings.state_dir)
    handler = _PrivateLog(file, maxBytes=LOG_BYTES, backupCount=N_LOGS, encoding="utf-8")
    handler.setFormatter(
        PlainFormatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("paddock").setLevel(logging.INFO)
    try:
        return_large_blocks()
        asyncio.run(_serve(settings))
    except LockTaken:
        log.info("another process serves at %s already", paths.socket)
    except Exception:
        log.exception("the local service ends because of an error")
        raise


async def _serve(settings: Settings) -> None:
    paths, idle_s = paths_of(settings), settings.unattended.service_idle_s
    # Wait for a daemon that is ending; return at once when one is listening.
    with suppress(LockTaken):
        async with lock_soon(
            paths.lock,
            wait_s=ENDING_S,
            poll_s=LOOK_S / 20,
            is_over=lambda: daemon_files.daemon_at(paths) is not None,
        ):
            pass
    async with hold_daemon(settings, paths, kind="background", idle_s=idle_s) as state:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, state.ends.set)
        log.info("serves at %s (process %d)", paths.socket, os.getpid())
        while not (state.ends.is_set() or state.is_over):
            await wait_for_event(state.ends, LOOK_S)
        log.info("ends: %s", "a signal asked for it" if state.ends.is_set() else "idle")


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """Rotating log whose files only their owner can read."""

    def _open(self) -> Any:
        return private_files.open_private(Path(self.baseFilename), self.mode)


if __name__ == "__main__":
    main()
