"""The name that a folder of pipelines has on every machine that it is mounted on: `.paddock/id`."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

from paddock.engine.system import private

from .entries import LedgerError


def identity(folder: Path) -> str:
    """Give the identity of a ledger's folder, 32 hexadecimal digits; the first who asks makes it.

    Raises:
        LedgerError: the folder cannot be written, or the file holds something else.
    """
    file = folder / "id"
    try:
        found = known_identity(folder)
        return found if found is not None else _made(file)
    except OSError as error:
        raise LedgerError(
            f"{file}: the folder's identity cannot be written ({error.strerror or error})."
        ) from error


def has_identity(folder: Path) -> bool:
    """Tell whether a folder has one, because its ledger is, or was, in PostgreSQL."""
    return (folder / "id").exists()


def known_identity(folder: Path) -> str | None:
    """Give the identity of a folder that has one."""
    file = folder / "id"
    try:
        text = file.read_text("utf-8").strip()
        return UUID(text).hex
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LedgerError(
            f"{file}: this is no identity. Put back what it was, which names the ledger in "
            f"PostgreSQL, or remove it to begin a ledger anew."
        ) from error


def _made(file: Path) -> str:
    """Make the identity whole or not at all, once, whoever else does so at this moment."""
    aside = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        with private.opened(aside) as out:
            out.write(f"{uuid4()}\n")
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(aside, file)  # unlike a rename it never replaces another's
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not file.exists():
                aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return UUID(file.read_text("utf-8").strip()).hex
