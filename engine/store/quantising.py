"""Write a model's weights in another format, as a blob of its own. No llama_cpp.

A process of its own does it (see `quantiser`), under a name that nobody looks for; the blob gets
its name when it is whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paddock.engine.errors import EngineError, RecipeRefused, StoreFull
from paddock.engine.gguf import Header
from paddock.engine.tuning import apart
from paddock.engine.tuning.tuner import copy_bytes

from .blobs import Blobs
from .locks import free_bytes
from .progress import Progress, Report

FORMATS = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ4_NL", "IQ4_XS", "F16", "BF16", "F32",
)  # fmt: skip
SOURCES = ("F16", "BF16", "F32")

_COMMAND = (sys.executable, "-m", "paddock.engine.store.quantiser")
_SHORT = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_SPARE_BYTES = 16 * 1024 * 1024
_LOOKED_AT_S = 0.2


def format_named(name: str) -> str:
    """Give a format's name as it is written in files: `q4_K_M` → `Q4_K_M`.

    Raises:
        RecipeRefused: there is none of this name.
    """
    wanted = _SHORT.get(name.upper(), name.upper())
    if wanted not in FORMATS:
        known = ", ".join(FORMATS)
        raise RecipeRefused(f"unsupported quantization type {name!r} - supported types are {known}")
    return wanted


def quantised(
    blobs: Blobs, source: Path, header: Header, format_name: str, report: Report, status: str
) -> str:
    """Write `source` in a format of `FORMATS`; gives the new blob's digest.

    `report` is called every now and then; when it raises, the work ends and leaves nothing.

    Raises:
        StoreFull: there is no room; before anything is written, where that can be foreseen.
        EngineError: llama.cpp cannot do it.
    """
    total = copy_bytes(header, format_name.removesuffix("_S").removesuffix("_M").removesuffix("_L"))
    _check_room(blobs, total)
    aside = blobs.aside()
    try:
        order = {
            "source": str(source),
            "target": str(aside),
            "format": format_name,
            "n_threads": 0,
        }
        why = _carried_out(order, aside, lambda done: _tell(report, status, total, done))
        if why:
            _check_room(blobs, 0)
            raise EngineError(f"{source.name} cannot be written in {format_name}: {why}")
        digest = blobs.adopt(aside)
    finally:
        aside.unlink(missing_ok=True)
    _tell(report, status, total, total)
    return digest


def _tell(report: Report, status: str, total: int, done: int) -> None:
    report(Progress(status, total=total, completed=min(done, total)))


def _check_room(blobs: Blobs, needed: int) -> None:
    free = free_bytes(blobs.folder)
    if needed + _SPARE_BYTES > free:
        raise StoreFull(str(blobs.folder), free)


def _carried_out(order: dict[str, object], aside: Path, look: Callable[[int], None]) -> str:
    """Let the process work; gives why it could not, or nothing."""
    with apart.started(_COMMAND, order) as one:
        while one.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(_LOOKED_AT_S)
            with suppress(FileNotFoundError):
                look(aside.stat().st_size)
        line = one.lines.readline()
        if not line:
            return one.why_it_ended()
        why = str(json.loads(line)["why"])
        return f"{why}{one.last_line()}" if why else ""
