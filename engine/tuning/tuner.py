"""Make a tuned copy of a model, atomically. Imports no llama_cpp.

A subprocess (`tuning_process`) writes and judges the copy under a temporary name; one rename
finishes it. An interrupted run leaves nothing, and the next run removes what a killed one left.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError, ModelUnusable
from paddock.engine.gguf import TYPE_BLOCKS, TYPE_NAMES, GgufHeader, GgufTensor, read_header
from paddock.engine.profile.format_speeds import NEAR_LOSSLESS, may_be_f16
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.files import LockTaken, lock_now
from paddock.engine.system.hardware import read_disk
from paddock.engine.system.processes import JsonSubprocess, json_subprocess
from paddock.engine.workers.crashes import (
    Fallback,
    FallbackStore,
    death_reason,
    fallback_words,
    has_crashed,
    next_fallback,
    rebuild_command,
    with_failed_fallback,
    without_context,
)
from paddock.engine.workers.worker_protocol import WorkerOptions

from .tuned_copies import CopySpeeds, TunedCopy, TunedCopyStore

TUNING_FORMATS = (
    "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS", "F16", "BF16", "F32",
)  # fmt: skip
# Compared positions: in the text that comes with Paddock, and in the user's documents if the model
# reads them in time.
N_COMPARED, N_COMPARED_OWN = 768, 4096
_WRITING_PHASE = "writing the copy"
_COMMAND = (sys.executable, "-m", "paddock.engine.tuning.tuning_process")
_SPARE_BYTES = 64 * 1024 * 1024
# llama.cpp makes mixtures of formats; these are upper bounds of their bytes for each weight.
_MOST_BYTES_EACH = {
    "Q2_K": 0.5,
    "Q3_K": 0.65,
    "Q4_K": 0.8,
    "Q5_K": 0.9,
    "IQ4_XS": 0.8,
    "IQ4_NL": 0.7,
}

ReportPhase = Callable[[str], None]


class TuningRefused(EngineError):
    """A copy would not help; none was made."""

    def __init__(
        self, name: str, format_name: str | None, gain: float, *, is_measured: bool
    ) -> None:
        self.gain = gain
        what = f"a copy of '{name}' in {format_name}" if format_name else f"a copy of '{name}'"
        how = "was" if is_measured else "would be"
        super().__init__(
            f"{what} {how} {gain:.1f} times as fast at reading documents on this machine, "
            f"which is not worth it; nothing was made. `--force` makes it anyway."
        )


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """The copy to make."""

    facts: ModelFacts
    """Facts of the original."""
    format: str | None
    """Format of all matrices; None: those in slow formats get a near-lossless one."""
    n_threads: int
    texts: Sequence[str]
    """Real text, on which both are compared."""
    is_forced: bool = False
    n_documents: int = 0
    """Number of the user's documents in `texts`; 0: they come with Paddock."""

    @property
    def target(self) -> str:
        return self.format or NEAR_LOSSLESS


def tune(request: TuningRequest, settings: PoolSettings, report: ReportPhase) -> TunedCopy:
    """Make, judge and record a copy; pools that start later use it.

    Raises:
        TuningRefused: it does not help.
        ModelUnusable: llama.cpp crashes with the model, with every fallback.
        EngineError: no disk space, another process is making one, or llama.cpp cannot.
    """
    if request.facts.parts:
        raise EngineError(
            f"'{request.facts.name}' is split into {len(request.facts.parts) + 1} files, but a "
            f"tuned copy is made of one. Join them with llama.cpp's `llama-gguf-split --merge`."
        )
    store = TunedCopyStore(settings.cache_dir)
    with _tuning_lock(store.folder, request.facts):
        folder = _blob_folder(settings)
        stem = f".{request.facts.digest[:12]}-tuned"
        for left in folder.glob(f"{stem}.*part"):  # of runs that were killed
            left.unlink(missing_ok=True)
        _check_room(folder, request)
        temporary = folder / f"{stem}.{os.getpid()}.part"
        try:
            result = _run_with_fallbacks(
                request, temporary, report, FallbackStore(settings.cache_dir)
            )
            tuned = _store_copy(request, temporary, folder, result)
        finally:
            temporary.unlink(missing_ok=True)
        store.keep(tuned)
    return tuned


@contextmanager
def _tuning_lock(folder: Path, facts: ModelFacts) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_now(folder / f"{facts.digest}.lock"))
        except LockTaken:
            text = f"another `paddock tune` is making a copy of '{facts.name}'; wait for it"
            raise EngineError(text) from None
        except OSError as error:
            raise EngineError(f"{folder} cannot be written: {error.strerror}") from error
        yield


def _blob_folder(settings: PoolSettings) -> Path:
    """Return the model store's folder of blobs, or one in the cache if the store is read-only."""
    for folder in (settings.models_dir / "blobs", settings.cache_dir / "blobs"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise EngineError(
        f"neither {settings.models_dir} nor {settings.cache_dir} can be written. "
        f"Set PADDOCK_HOME to a folder that can."
    )


def _check_room(folder: Path, request: TuningRequest) -> None:
    """Raise EngineError if the disk has too little space."""
    header = read_header(Path(request.facts.path))
    is_f16 = request.format is None and may_be_f16(header)
    # Three times: the formats to choose from are there together for a while.
    needed = 3 * copy_bytes(header, "F16" if is_f16 else request.target) + _SPARE_BYTES
    free = read_disk(folder).free_bytes
    if needed > free:
        mb = 10**6
        raise EngineError(
            f"the copy of '{request.facts.name}' needs up to {needed // mb} MB, but {folder} "
            f"has {free // mb} MB left. Free disk space, or set PADDOCK_MODELS to another disk."
        )


def copy_bytes(header: GgufHeader, format_name: str) -> int:
    """Return an upper bound of a model's size in another format."""
    each = _MOST_BYTES_EACH.get(format_name)
    if each is None:
        kind = next(kind for kind, name in TYPE_NAMES.items() if name == format_name)
        per_block, block_bytes = TYPE_BLOCKS[kind]
        each = block_bytes / per_block
    return int(sum(one.n_weights * _bytes_each(one, each) for one in header.tensors))


def _bytes_each(tensor: GgufTensor, each: float) -> float:
    """Return bytes for each weight: vectors stay, the vocabulary's matrices get 6 bits or more."""
    if len(tensor.axes) == 1:
        return 4.0
    return each if tensor.name.startswith("blk.") else max(each, 210 / 256)


class _ProcessCrashed(Exception):
    """llama.cpp crashed while computing; the message is how and in which phase."""


def _run_with_fallbacks(
    request: TuningRequest, temporary: Path, report: ReportPhase, store: FallbackStore
) -> dict[str, Any]:
    """Run the subprocess, after a crash with the next fallback; return its last message.

    Raises:
        TuningRefused, EngineError: as `tune`.
    """
    load = WorkerOptions(request.facts.path, "chat", 0, 0, 1, 0, request.n_threads)
    known = store.find(request.facts.digest)
    fallback, reason = (known.fallback, known.reason) if known else (0, "")
    while True:
        try:
            result = _run_once(request, temporary, report, fallback)
            break
        except _ProcessCrashed as crash:
            higher = next_fallback(load, fallback)
            if higher is None:
                words = with_failed_fallback(str(crash), fallback_words(fallback))
                raise ModelUnusable(request.facts.name, words, rebuild_command()) from None
            report(f"the process was {crash}; starting it again {fallback_words(higher)}")
            reason = reason or without_context(str(crash))
            fallback = higher
    if fallback > (known.fallback if known else 0):
        store.keep(request.facts.digest, Fallback(Path(request.facts.path).name, fallback, reason))
    if result["event"] == "refused":
        gain, is_measured = result["gain"], result["is_measured"]
        raise TuningRefused(request.facts.name, request.format, gain, is_measured=is_measured)
    return result


def _run_once(
    request: TuningRequest, temporary: Path, report: ReportPhase, fallback: int
) -> dict[str, Any]:
    order = {
        "source": request.facts.path,
        "target": str(temporary),
        "format": request.format,
        "n_threads": request.n_threads,
        "fallback": fallback,
        "n_compared": N_COMPARED_OWN if request.n_documents else N_COMPARED,
        "n_least": N_COMPARED,
        "n_documents": request.n_documents,
        "is_forced": request.is_forced,
        "texts": list(request.texts),
    }
    with json_subprocess(_COMMAND, order) as process:
        return _read_result(process, request, report)


def _read_result(
    process: JsonSubprocess, request: TuningRequest, report: ReportPhase
) -> dict[str, Any]:
    phase = "loading"
    for line in process.lines:
        result: dict[str, Any] = json.loads(line)
        if result["event"] == "note":
            phase = result["text"]
            report(phase)
        elif result["event"] in ("done", "refused"):
            return result
        else:
            raise EngineError(f"'{request.facts.name}' cannot be tuned: {result['why']}")
    reason = death_reason(process.process.wait(), phase, process.log_lines())
    if has_crashed(reason) and not phase.startswith(
        _WRITING_PHASE
    ):  # the quantiser has no fallbacks
        raise _ProcessCrashed(reason)
    raise EngineError(f"'{request.facts.name}' cannot be tuned: {process.why_it_ended()}")


def _store_copy(
    request: TuningRequest, temporary: Path, folder: Path, result: dict[str, Any]
) -> TunedCopy:
    """Rename the temporary file to its place among the blobs; return its record."""
    place = folder / f"sha256-{result['digest']}"
    is_there = place.exists()
    if not is_there:
        temporary.replace(place)
        files.sync_folder(folder)
    names = {one.name for one in fields(TunedCopy)}
    measured = {name: value for name, value in result.items() if name in names}
    measured |= {name: CopySpeeds(**result[name]) for name in ("before", "after")}
    return TunedCopy(
        name=request.facts.name,
        original=request.facts.digest,
        path=str(place),
        n_documents=request.n_documents,
        more_bytes=result["size_bytes"] - request.facts.size_bytes,
        made_at=time.time(),
        is_ours=not is_there,
        **measured,
    )
