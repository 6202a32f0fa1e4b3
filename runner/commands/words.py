"""Read what a person gives a command: files, standard input, durations."""

from __future__ import annotations

import sys
from pathlib import Path

from .exits import CommandError

MOST_BYTES = 64 * 1024 * 1024


def read_text(file: str) -> str:
    """Read a document's text, whatever its kind and its encoding.

    Raises:
        CommandError: there is none of this name.
        StepError: it cannot be read, or has no text.
    """
    path = Path(file).expanduser()
    if not path.exists():
        raise CommandError(f"There is no file '{file}'.")
    from paddock.steps.readers.documents import read

    return read(path, max_bytes=MOST_BYTES).text


def read_input() -> str:
    """Read standard input to its end.

    Raises:
        CommandError: it is not text, or far too much.
    """
    from paddock.steps.readers.encodings import NotText, decode

    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        return ""
    raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise CommandError(f"The input has more than {MOST_BYTES // 1024**2} MiB.")
    try:
        return decode(raw).text
    except NotText as error:
        raise CommandError(f"The input is no text: {error}.") from None


def spoken_keep_alive(value: str) -> float:
    """Give seconds of a duration as people write it; below zero: for ever.

    Raises:
        CommandError: it is none.
    """
    from paddock.runner import values

    try:
        return values.keep_alive(value)
    except values.BadValue as error:
        raise CommandError(f"--keepalive: '{value}' {error.problem}.\n  {error.remedy}") from None
