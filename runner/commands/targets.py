"""Files that a command is asked to write: looked at before anything runs."""

from __future__ import annotations

from pathlib import Path

from .exits import CommandError


def writable(target: Path, example: str) -> Path:
    """Give the file that is meant.

    Raises:
        CommandError: it is a folder, or lies where no folder can be.
    """
    if target.is_dir():
        raise CommandError(f"'{target}' is a folder.\n  Name a file, such as {target / example}.")
    above = next((one for one in target.parents if one.exists()), target.parent)
    if not above.is_dir():
        raise CommandError(f"'{target}' cannot be written: '{above}' is no folder.")
    return target
