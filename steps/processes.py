"""Commands of steps: run them, and explain how they failed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddock.engine.system.processes import CompletedCommand, OutputTooLarge, run
from paddock.engine.system.text import shorten

from .base import StepError
from .paths import printable

_WORDS_CHARS = 80


def command_words(command: Sequence[str]) -> str:
    """Return a command as in a shell, in backticks and at most a line long.

    >>> command_words(["git", "log", "--format=%s %b"])
    "`git log '--format=%s %b'`"
    """
    words = printable(" ".join(map(shlex.quote, command)).replace("\n", " "))
    return f"`{shorten(words, _WORDS_CHARS)}`"


async def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    stdin: bytes = b"",
    most_bytes: int,
    most_error_bytes: int,
) -> CompletedCommand:
    """Run a command to its end.

    Raises:
        StepError: it cannot be started, or wrote more than `most_bytes`.
    """
    try:
        return await run(
            command,
            cwd=cwd,
            environ=environ,
            stdin=stdin,
            most_bytes=most_bytes,
            most_error_bytes=most_error_bytes,
        )
    except OutputTooLarge:
        raise StepError(
            f"{command_words(command)} wrote more than {most_bytes:,} bytes, and was ended.",
            remedy="Let it write less, or into a file.",
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and error.filename is not None:
            raise StepError(f"the folder '{printable(cwd)}' is not there.") from error
        raise _cannot_start(command, cwd, error) from error


def _cannot_start(command: Sequence[str], cwd: Path, error: OSError | ValueError) -> StepError:
    why = getattr(error, "strerror", None) or error
    if isinstance(error, FileNotFoundError):
        first = command[0]
        if os.sep not in first or not (cwd / first).exists():
            remedy = "Install it, or name its path."
            if len(words := first.split()) > 1:
                remedy = f"Write its words one by one: `[{', '.join(map(printable, words))}]`."
            what = f"there is no program '{printable(first)}' here."
            return StepError(what, remedy=remedy, kind="missing")
        why = "the program that its first line names is not there"
    return StepError(f"{command_words(command)} cannot be started: {why}.")
