"""What is said where a store cannot be used: of another model, broken, or not to be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from paddock.steps.step import StepError

from .catalogue import Label


def refuse_other(path: Path, label: Label, wanted: Label) -> None:
    """Make sure that a store's vectors can be compared with those of another label.

    Raises:
        StepError: they cannot.
    """
    anew = "name another folder for the store, or delete that one to have it made anew."
    if label.model.digest != wanted.model.digest:
        is_renewed = label.model.ref == wanted.model.ref
        raise StepError(
            f"the store '{path}' holds vectors of model '{label.model.ref}', and those of "
            f"'{wanted.model.ref}' cannot be compared with them"
            + (" (its file is another one now)." if is_renewed else "."),
            remedy=f"N{anew[1:]}" if is_renewed else f"Use `model: {label.model.ref}`, {anew}",
            is_fatal=True,
        )
    if wanted.dimensions and label.dimensions != wanted.dimensions:
        raise StepError(
            f"the store '{path}' holds vectors of {label.dimensions:,} dimensions, not of "
            f"{wanted.dimensions:,}.",
            remedy=f"Use `dimensions: {label.dimensions}`, {anew}",
            is_fatal=True,
        )


@contextlib.contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """Say in words of ours what the library cannot do; `what`: read or written."""
    try:
        yield
    except StepError:
        raise
    except Exception as error:  # the library raises many kinds, RuntimeError for most
        raise _trouble(path, what, error) from error


def _trouble(path: Path, what: str, error: Exception) -> StepError:
    said = " ".join(str(error).split())
    if "No space left" in said or "Disk quota" in said:
        return StepError(
            f"the store '{path}' cannot be written: the disk is full.",
            remedy="Make room, then run the same command again.",
            is_fatal=True,
            kind="io",
        )
    if "Permission denied" in said or "Read-only file system" in said:
        return StepError(
            f"the store '{path}' cannot be written: permission denied.",
            remedy="Give yourself the right to write there, or name another folder.",
            kind="io",
        )
    return StepError(
        f"the store '{path}' cannot be {what} ({said[:200]}).",
        remedy="If it is broken, delete that folder and run what fills it again: the vectors are "
        "remembered, so that no model is asked for them.",
        kind="io",
    )
