"""Make a tuned copy of a model, atomically. Imports no llama_cpp.

A subprocess (`tuning_process`) writes and judges the copy under a temporary name; one rename
finishes it. An interrupted run leaves nothing, and the next run removes what a killed one left.
`paddock tune` and `backends.background_tuning` both come here.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError, ModelUnusable
from paddock.engine.gguf import TYPE_BLOCKS, TYPE_NAMES, GgufHeader, GgufTensor, read_header
from paddock.engine.profile.format_speeds import NEAR_LOSSLESS, USEFUL_GAIN, may_be_f16
from paddock.engine.profile.profile import this_device_build
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system import distribution, files
from paddock.engine.system.disk_space import free_disk_bytes
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.light_dataclasses import dataclass, field, fields, replace
from paddock.engine.system.processes import ordered_process, python_command
from paddock.engine.workers.death_reasons import WorkerEnd, end_of_process
from paddock.engine.workers.fallbacks import (
    Fallback,
    FallbackStore,
    fallback_words,
    next_fallback,
    rebuild_command,
)
from paddock.engine.workers.worker_protocol import WorkerOptions

from .tuned_copies import CopySpeeds, TunedCopy, TunedCopyStore, TuningVerdict

TUNING_FORMATS = (
    "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS", "F16", "BF16", "F32",
)  # fmt: skip
# Compared positions at least, and at most, in the user's documents if the model reads them in time.
# By chance, a share of 0.98 of 2,048 differs by 0.003.
N_COMPARED, N_COMPARED_OWN = 2048, 4096
# Documents of the package on which a copy is compared with its original.
_EXAMPLE_TEXTS = "folder-digest/inbox"
_COMMAND = python_command("-m", "paddock.engine.tuning.tuning_process")
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
    """A copy would not help, or is only to be tried; none was made."""

    def __init__(self, message: str, reason: str, gain: float = 0.0) -> None:
        self.reason, self.gain = reason, gain
        super().__init__(message)


class TuningBusy(EngineError):
    """Another process is making a copy of the same model."""


class TuningInterrupted(EngineError):
    """`TuningStop` ended it."""


class TuningStop:
    """Ends the subprocess at once, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.is_set = False

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            if self._process is not None:
                self._process.kill()

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._process = process
            if self.is_set:
                process.kill()


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
    least_gain: float = USEFUL_GAIN
    is_background: bool = False
    """Whether no person asked for it: with the least priority, a bounded number of times."""
    is_trial: bool = False
    """Whether only the gain is measured."""
    is_near: bool = False
    """Whether it may be farther from exact arithmetic than the original, within a bound."""
    stop: TuningStop = field(default_factory=TuningStop)

    @property
    def target(self) -> str:
        return self.format or NEAR_LOSSLESS


def example_texts() -> tuple[str, ...]:
    """Return the texts of the package's example documents that are UTF-8."""
    examples = distribution.examples_folder()
    found = []
    for file in sorted((examples / _EXAMPLE_TEXTS).rglob("*")) if examples else ():
        if file.suffix in (".md", ".txt", ".html"):
            with suppress(UnicodeDecodeError):
                found.append(file.read_text("utf-8"))
    return tuple(found)


def tuning_place(settings: PoolSettings, n_threads: int) -> str:
    """Return the device and the build of llama.cpp for which a verdict holds."""
    here = this_device_build(settings, n_threads)
    return f"{here.device} {here.build}"


def tune(request: TuningRequest, settings: PoolSettings, report: ReportPhase) -> TunedCopy:
    """Make, judge and record a copy, which pools that start later use; or record why there is none.

    Raises:
        TuningRefused: it does not help.
        TuningBusy: another process is making one.
        TuningInterrupted: `request.stop` was set.
        ModelUnusable: llama.cpp crashes with the model, with every fallback.
        EngineError: no disk space, or llama.cpp cannot.
    """
    facts = request.facts
    if facts.parts:
        raise EngineError(
            f"'{facts.name}' is split into {len(facts.parts) + 1} files, but a "
            f"tuned copy is made of one. Join them with llama.cpp's `llama-gguf-split --merge`."
        )
    store = TunedCopyStore(settings.cache_dir)
    with _tuning_lock(store.folder, facts):
        folder = _blob_folder(settings)
        with _temporary_target(folder, facts) as temporary:
            _check_room(folder, request)
            place = tuning_place(settings, request.n_threads)
            verdict = store.verdict(facts.digest, place) or TuningVerdict(facts.name, place)
            verdict = replace(verdict, original_path=facts.path)
            if request.is_background:
                verdict = replace(verdict, n_attempts=verdict.n_attempts + 1)
                store.keep_verdict(facts.digest, verdict)
            try:
                result = _run_with_fallbacks(
                    request, temporary, report, FallbackStore(settings.cache_dir)
                )
            except TuningRefused as refusal:
                if request.format is None:
                    is_advice = request.is_trial and refusal.gain >= request.least_gain
                    known = replace(
                        verdict, text=refusal.reason, is_advice=is_advice, is_near=request.is_near
                    )
                    store.keep_verdict(facts.digest, known)
                raise
            tuned = _store_copy(request, temporary, folder, result)
        store.keep(tuned)
    return tuned


def remove_left_parts(settings: PoolSettings) -> None:
    """Remove what killed processes left of copies; other users' may be at work on theirs."""
    for root in (settings.models_dir, settings.cache_dir):
        _remove_parts(root / "blobs")


def _remove_parts(folder: Path) -> None:
    """Remove parts of copies that no process is making: it would hold the file `….part`."""
    for left in folder.glob(".*-tuned.*.part"):
        if not files.is_part_held(left):
            with suppress(OSError):  # it is another user's
                left.unlink(missing_ok=True)


@contextmanager
def _temporary_target(folder: Path, facts: ModelFacts) -> Iterator[Path]:
    """Yield a path; what lies there, or beside it under its name, goes before and after."""
    _remove_parts(folder)
    held = folder / f".{facts.digest[:12]}-tuned.{secrets.token_hex(4)}.part"
    try:
        with files.held_file(held):
            yield held.with_name(f"{held.name}.copy.part")
    finally:
        _remove_parts(folder)


@contextmanager
def _tuning_lock(folder: Path, facts: ModelFacts) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_now(folder / f"{facts.digest}.lock"))
        except LockTaken:
            text = f"another `paddock tune` is making a copy of '{facts.name}'; wait for it"
            raise TuningBusy(text) from None
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
    # For a while the formats to choose from are there together, and an exact copy to judge them by.
    needed = (5 if is_f16 else 3) * copy_bytes(
        header, "F16" if is_f16 else request.target
    ) + _SPARE_BYTES
    free = free_disk_bytes(folder)
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
    return int(sum(tensor.n_weights * _bytes_each(tensor, each) for tensor in header.tensors))


def _bytes_each(tensor: GgufTensor, each: float) -> float:
    """Return bytes for each weight: vectors stay, the vocabulary's matrices get 6 bits or more."""
    if len(tensor.axes) == 1:
        return 4.0
    return each if tensor.name.startswith("blk.") else max(each, 210 / 256)


class _ProcessCrashed(Exception):
    """llama.cpp crashed while computing."""

    def __init__(self, end: WorkerEnd) -> None:
        self.end = end
        super().__init__(str(end))


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
                end = crash.end.with_failed_fallback(fallback_words(fallback))
                raise ModelUnusable(request.facts.name, str(end), rebuild_command()) from None
            report(f"the process was {crash}; starting it again {fallback_words(higher)}")
            reason = reason or crash.end.how
            fallback = higher
    if fallback > (known.fallback if known else 0):
        store.keep(request.facts.digest, Fallback(Path(request.facts.path).name, fallback, reason))
    if result["event"] == "unfit":
        text = f"'{request.facts.name}' cannot be tuned: {result['why']}"
        raise TuningRefused(text, result["why"])
    if result["event"] == "refused":
        raise _refusal(request, result["gain"], is_measured=result["is_measured"])
    return result


def _refusal(request: TuningRequest, gain: float, *, is_measured: bool) -> TuningRefused:
    copy = f"a copy of '{request.facts.name}'"
    if request.format:
        copy += f" in {request.format}"
    message = (
        f"{copy} {'was' if is_measured else 'would be'} {gain:.1f} times as fast at reading "
        f"documents on this machine, which is not worth it; nothing was made. "
        f"`--force` makes it anyway."
    )
    reason = f"it would read documents {gain:.2f} times as fast on this machine"
    return TuningRefused(message, reason, gain)


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
        "least_gain": request.least_gain,
        "is_background": request.is_background,
        "is_trial": request.is_trial,
        "is_near": request.is_near,
    }
    with ordered_process(_COMMAND, order) as process:
        request.stop.watch(process.process)
        phase, is_computing = "loading", True
        while (result := process.next_answer()) is not None:
            if result["event"] == "note":
                phase, is_computing = result["text"], not result.get("is_writing")
                report(phase)
            elif result["event"] in ("done", "refused", "unfit"):
                return result
            else:
                raise EngineError(f"'{request.facts.name}' cannot be tuned: {result['why']}")
        if request.stop.is_set:
            raise TuningInterrupted(f"the trial of '{request.facts.name}' was interrupted")
        end = end_of_process(process.exit_status(), phase, process.log_lines())
        if end.is_crash and is_computing:  # the quantiser has no fallbacks
            raise _ProcessCrashed(end)
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
    names = {known.name for known in fields(TunedCopy)}
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
        original_path=request.facts.path,
        **measured,
    )
