"""The identity by which machines know one folder's ledger: `.paddock/id`."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

from paddock.engine.system import files

from .entries import LedgerError


def folder_identity(folder: Path) -> str:
    """Return the identity of a ledger's folder, 32 hexadecimal digits; make it if there is none.

    Raises:
        LedgerError: the folder cannot be written, or the file holds something else.
    """
    file = folder / "id"
    try:
        while (found := known_folder_identity(folder)) is None:
            files.create_once(file, f"{uuid4()}\n")
    except OSError as error:
        raise LedgerError(
            f"{file}: the folder's identity cannot be written ({error.strerror or error})."
        ) from error
    return found


def has_folder_identity(folder: Path) -> bool:
    """Return whether a folder has one, because its ledger is, or was, in PostgreSQL."""
    return (folder / "id").exists()


def known_folder_identity(folder: Path) -> str | None:
    """Return the identity of a folder, None if it has none.

    Raises:
        LedgerError: the file holds something else.
    """
    file = folder / "id"
    try:
        return UUID(file.read_text("utf-8").strip()).hex
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LedgerError(
            f"{file}: this is not the identity of a folder. Restore the file, which names the "
            f"ledger in PostgreSQL, or remove it to start with a new ledger."
        ) from error
