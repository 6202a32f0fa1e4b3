"""A broken build of llama.cpp: a preloaded library that raises a signal at a decode."""

import signal
import subprocess
from pathlib import Path
from typing import Literal

With = Literal["extra", "flash", "threads", "always"]


def crashing(
    folder: Path, with_: With, number: signal.Signals = signal.SIGSEGV, after: int = 0
) -> dict[str, str]:
    """Return the environment in which llama.cpp crashes while it uses something (`crash.c`)."""
    return {
        "LD_PRELOAD": preloadable(folder, "crash"),
        "CRASH_WITH": with_,
        "CRASH_SIGNAL": str(int(number)),
        "CRASH_AFTER": str(after),
    }


def preloadable(folder: Path, name: str) -> str:
    """Return the path of a library that is compiled from the C beside this file."""
    library = folder / f"{name}.so"
    if not library.exists():
        source = Path(__file__).resolve().with_name(f"{name}.c")
        command = ("cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl")
        subprocess.run(command, check=True)
    return str(library)
