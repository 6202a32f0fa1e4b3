"""Console output: text without control characters, JSON objects, tables.

stdout is for results, stderr for progress, warnings and errors. A closed pipe or stream, or a
terminal that lacks a character, never fails a command.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from typing import Any, TextIO

# Unsafe to print: control characters, lone surrogates, marks that change the writing direction.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_LINE = re.compile(f"[{_UNSAFE}\t\n]")
_EXCERPT = re.compile(r" {0,8}\d* \|( |$)")  # the layout of `Fault.render`
STDOUT = "standard output"
"""What an error names in place of a file."""


def printable_line(text: str) -> str:
    r"""Return `text` as one line, with unsafe characters escaped.

    >>> printable_line("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return _UNSAFE_LINE.sub(_escaped, text)


def printable_message(text: str) -> str:
    r"""Return a message as one safe line, without the source excerpt of a fault.

    >>> printable_message("a.yaml:2:3: no model.\n       2 |   x\n         |   ^\n  Name one.")
    'a.yaml:2:3: no model. Name one.'
    """
    lines = (line.strip() for line in text.split("\n") if not _EXCERPT.match(line))
    return printable_line(" ".join(filter(None, lines)))


def with_cause(what: str, cause: str | None) -> str:
    """Return a printable line and, behind a colon, why it is so."""
    return printable_line(what) + (f": {printable_message(cause)}" if cause else "")


def printable_text(text: str) -> str:
    """Return `text` with unsafe characters escaped, but lines and tabs kept."""
    return _UNSAFE_TEXT.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii")


def print_out(text: str) -> None:
    _write(sys.stdout, printable_text(text) + "\n")


def print_err(text: str) -> None:
    """Write progress, a warning or an error to stderr; a closed stderr fails no command."""
    with contextlib.suppress(OSError):
        _write(sys.stderr, printable_text(text) + "\n")


def write_out(text: str) -> bool:
    return _write(sys.stdout, printable_text(text))


def write_data(text: str) -> bool:
    """Write data to stdout: as it is into a pipe, without control characters on a terminal."""
    is_read_by_person = sys.stdout is not None and sys.stdout.isatty()
    return _write(sys.stdout, printable_text(text) if is_read_by_person else text)


def print_json(value: Any) -> None:
    is_read_by_person = sys.stdout is not None and sys.stdout.isatty()
    encoding = getattr(sys.stdout, "encoding", None) or ""
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    # Lone surrogates (undecodable file names) stay escapes: `backslashreplace` writes them so.
    indent = 2 if is_read_by_person else None  # indenting 10,000 items takes a second
    _write(sys.stdout, json.dumps(value, ensure_ascii=not is_utf8, indent=indent) + "\n")


def print_result(value: Any, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        print_out(text)


def _write(stream: TextIO | None, text: str) -> bool:
    if stream is None:
        return False
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _redirect_to_devnull(stream)
        return False
    except OSError as error:  # a full disk
        _redirect_to_devnull(stream)
        raise OSError(error.errno, error.strerror, STDOUT) from error
    return True


def discard_stdout() -> None:
    if sys.stdout is not None:
        _redirect_to_devnull(sys.stdout)


def _redirect_to_devnull(stream: TextIO) -> None:
    """Redirect the stream, so that Python's flush at exit does not fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def table(rows: list[tuple[str, ...]]) -> str:
    rows = [tuple(printable_line(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
