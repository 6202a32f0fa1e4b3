"""Doctor: whether this build of llama.cpp computes here, and which models run with a fallback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from paddock.engine.hardware import Cpu
from paddock.engine.residency.devices import this_device
from paddock.engine.workers.deaths import how_it_ended
from paddock.engine.workers.fallback import MOST, FallbackBook, gain, rebuild, without
from paddock.runner.settings import Settings

from .findings import Finding

_TRY_S = 60.0  # takes 1 s; llama.cpp with CUDA takes some seconds to start on a cold machine
_COMMAND = (sys.executable, "-P", "-m", "paddock.engine.profile.kernels")


def tried(settings: Settings, cpu: Cpu) -> Iterator[Finding]:
    """Decode with trial models, with fallbacks where that crashes; look at what is remembered."""
    n_threads = settings.pool.n_threads or max(1, min(cpu.n_cores, cpu.n_usable))
    ended = [_try(0, n_threads)]
    while ended[-1].startswith("killed") and len(ended) <= MOST:
        ended.append(_try(len(ended), n_threads))
    if not ended[0]:
        yield Finding("kernels", "ok", "llama.cpp computes trial models in every format")
    elif ended[-1]:
        also = f", also {without(len(ended) - 1)}" if len(ended) > 1 else ""
        text = f"the process with trial models was {ended[0]}{also}: no model can be used"
        yield Finding("kernels", "fault", text, f"Build llama.cpp again:\n{rebuild()}")
    else:
        text = f"the process with trial models was {ended[0]}; it works {without(len(ended) - 1)}"
        yield Finding("kernels", "warning", f"{text}, and so do models", _remedy())
    yield from _remembered(settings, is_sound=not ended[0])


def _remedy() -> str:
    return f"{gain()}:\n{rebuild()}"


def _try(fallback: int, n_threads: int) -> str:
    """Return how the trial ended where it failed; empty: llama.cpp computes."""
    command = [*_COMMAND, str(fallback), str(n_threads)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_S, check=False)
    except subprocess.TimeoutExpired:
        return f"given up after {_TRY_S:g} s"
    if ended.returncode < 0:
        return how_it_ended(ended.returncode)
    lines = ended.stderr.strip().splitlines()
    return (
        f"ended by an error ({lines[-1] if lines else 'it says nothing'})"
        if ended.returncode
        else ""
    )


def _remembered(settings: Settings, *, is_sound: bool) -> Iterator[Finding]:
    """Report the models whose workers have crashed with this build on this processor."""
    device = this_device()
    book = FallbackBook(settings.pool.cache_dir, device.name if device.is_gpu else "")
    sound = f"Trial models compute. To try the whole of llama.cpp again, remove {book.file}"
    remedy = sound if is_sound else _remedy()
    for one in book.all().values():
        text = f"{one.model} runs {without(one.fallback)}: its worker was {one.reason}"
        yield Finding("kernels", "warning", text, remedy)
