"""An error that no one expected: a sentence for people, and its traceback in a file."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from pathlib import Path

from paddock.engine.system import private_files
from paddock.runner.progress import printing


def wants_traceback() -> bool:
    debug = os.environ.get("PADDOCK_DEBUG", "").strip().lower()
    return debug not in ("", "0", "false", "no", "off")


def unexpected_error_text(error: BaseException) -> str:
    """Write the traceback to a file and return a sentence that names it."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    file = _write_crash_file("".join(traceback.format_exception(error)))
    where = f"The traceback is in {file}" if file else "PADDOCK_DEBUG=1 shows the traceback"
    message = printing.printable_message(what)
    return f"Internal error in Paddock ({message}). {where}; please report it."


def _state_folder() -> Path:
    return Path(os.environ.get("PADDOCK_HOME") or Path("~/.paddock").expanduser())


def is_in_state_folder(name: object) -> bool:
    """Return whether an error's file name is of the folder where Paddock keeps its state."""
    return isinstance(name, str) and Path(name).is_relative_to(_state_folder())


def _write_crash_file(text: str) -> Path | None:
    home = _state_folder()
    name = time.strftime("crash-%Y%m%d-%H%M%S") + f"-{os.getpid()}.txt"
    for folder in (home / "crashes", None):
        try:
            folder = private_files.private_folder(
                folder or Path(tempfile.mkdtemp(prefix="paddock-"))
            )
            with private_files.open_private(folder / name, errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return folder / name
    return None
