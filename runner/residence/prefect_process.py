"""The process of a Prefect server: Prefect's own application, which ends with whoever started it.

Started as `python -m paddock.runner.residence.prefect_process HOST PORT`, with its settings in the
environment. Its standard input stays open as long as its parent lives.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Serve until the parent is gone or says to end."""
    host, port = sys.argv[1], int(sys.argv[2])
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(
        create_app(final=True),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        server_header=False,
    )


def _end_with_parent() -> None:
    """Wait until the other end of standard input is closed, by whatever end the parent came to."""
    while os.read(0, 1):  # not `sys.stdin`, whose lock this thread would hold at the exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # Its services may hang in a query; nobody waits for them any more.
    threading.Event().wait(5)
    os._exit(1)


if __name__ == "__main__":
    main()
