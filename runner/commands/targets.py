"""Files that a command is asked to write: looked at before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

from .exits import CommandError


def writable(target: Path, example: str) -> Path:
    """Give the file that is meant.

    Raises:
        CommandError: it is a folder, Paddock's own or a YAML file, or lies where none can be or
            nothing can be written.
    """
    from paddock.runner.own_files import reserved
    from paddock.steps.places import refusal_to_write

    if target.is_dir():
        raise CommandError(f"'{target}' is a folder.\n  Name a file, such as {target / example}.")
    if (refusal := reserved(target)) is not None:
        raise CommandError(f"'{target}' {refusal.why}.\n  Name another file, such as '{example}'.")
    if not os.access(target, os.W_OK) and (why := refusal_to_write(target.parent)) is not None:
        raise CommandError(f"'{target}' cannot be written: {why}.\n  Name another place.")
    return target
