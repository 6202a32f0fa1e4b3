"""Prefect's server as a fork of the process that is about to be `paddock up`.

Both share what they import of Prefect, which takes 60 MB and a third of the server's start. It is
forked before there are threads or a loop, imports its own part while `paddock up` imports the rest,
and serves once it gets its settings. It serves once: when it has ended, `prefect_server` starts a
Python of its own.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Mapping
from pathlib import Path

from paddock.engine.system.processes import show_as

MOST_BYTES = 1 << 20
"""Of its environment."""
SHARED = ("prefect.flows", "prefect.client.orchestration", "prefect.events.clients")


class EarlyServer:
    """The forked process, as `asyncio.subprocess.Process` is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Fork it; `environ` is what Prefect's server reads as it is imported."""
        for module in SHARED:
            importlib.import_module(module)
        gc.freeze()  # a page that the collector of one process writes to is shared no more
        self._link, theirs = socket.socketpair()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            self._link.close()
            _serve(theirs, environ)
        theirs.close()

    def begin(self, environ: Mapping[str, str], listener: int, log: int) -> None:
        """Make it serve with this environment; it ends when this process does."""
        socket.send_fds(self._link, [json.dumps(dict(environ)).encode()], [listener, log])

    async def wait(self) -> int:
        """Wait for its end; return its exit status."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        if self.returncode is None:
            loop.add_reader(self._link, ended.set)  # nothing is sent here: its end of file
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._link)
            _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def close(self) -> None:
        """End it if it does not serve yet."""
        self._link.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(link: socket.socket, environ: Mapping[str, str]) -> None:
    try:
        os.setsid()
        show_as("paddock prefect-server")  # `pkill -f "paddock up"` is not for it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(environ)
        context = importlib.import_module("prefect.context")
        context.refresh_global_settings_context()
        prefect_process = importlib.import_module("paddock.runner.daemon.prefect_process")
        prefect_process.import_server()
        sent, found, _, _ = socket.recv_fds(link, MOST_BYTES, 2)
        if not found:  # its parent has ended, or needs none
            return
        listener, log = found
        os.environ.clear()
        os.environ.update(json.loads(sent))
        os.dup2(link.fileno(), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(Path(os.environ["PREFECT_HOME"]))
        os.umask(0o077)
        context.refresh_global_settings_context()
        prefect_process.main(socket.socket(fileno=listener))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
