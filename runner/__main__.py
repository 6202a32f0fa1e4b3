"""Entry point of the `paddock` command: handle Ctrl-C during imports, then run the command line.

Imports nothing that takes time. Until a command begins there is nothing to end in order, so Ctrl-C
ends the process at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

_INTERRUPTED_STATUS = 130


def main() -> None:
    # A script that starts this in the background ignores Ctrl-C; keep that.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, exit_at_once)
    # During imports garbage collection took 7 % of `validate`. A command keeps 200,000
    # objects; each collection of 50,000 costs 10 ms.
    gc.set_threshold(400_000, 10, 10)
    # Its command line, which needs Rich and Pygments: 4 MB, and a tenth of the imports of `up`.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    from paddock.runner.cli import application

    application.main(command_began)


def command_began() -> None:
    if signal.getsignal(signal.SIGINT) is exit_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_at_once(*_: object) -> None:
    os._exit(_INTERRUPTED_STATUS)


if __name__ == "__main__":
    main()
