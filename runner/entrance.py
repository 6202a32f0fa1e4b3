"""The command's first breath: Ctrl-C while all else is imported ends it without a word.

Imports nothing that takes time; what was not begun needs no end in order.
"""

from __future__ import annotations

import os
import signal

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    # Whoever starts us in the background of a script has Ctrl-C ignored; so it stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from . import cli

    cli.main(begun)


def begun() -> None:
    """Let a command that has been imported hear of Ctrl-C as usual."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(*_: object) -> None:
    """End the process at once."""
    os._exit(_INTERRUPTED)
