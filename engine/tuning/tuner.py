"""Make a tuned copy beside the original, whole or not at all. Imports no llama_cpp.

A subprocess (`tuning_process`) writes and judges the copy under a temporary name; it gets its
place by one rename. An interrupted run leaves nothing, and what a killed one left is removed by
the next. `json_subprocess` runs such work: an order in as one line of JSON, lines of JSON out. It
is used for what may end in llama.cpp's `abort()`, or can be ended only with its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from paddock.engine.errors import EngineError, ModelUnusable
from paddock.engine.gguf import TYPE_BLOCKS, TYPE_NAMES, GgufHeader, GgufTensor, read_header
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.hardware import read_disk
from paddock.engine.workers.crashes import (
    Fallback,
    FallbackStore,
    death_reason,
    fallback_words,
    has_crashed,
    how_it_ended,
    next_fallback,
    rebuild_command,
    with_failed_fallback,
    without_context,
)
from paddock.engine.workers.worker_options import WorkerOptions

from .tuned_copies import CopySpeeds, TunedCopy, TunedCopyStore


@dataclass(frozen=True, slots=True)
class JsonSubprocess:
    """A process that has its order, and what it says."""

    process: subprocess.Popen[str]
    _log: IO[str]

    @property
    def lines(self) -> IO[str]:
        """What it tells, a line of JSON each."""
        assert self.process.stdout is not None
        return self.process.stdout

    def why_it_ended(self) -> str:
        """Say in words how it ended that told nothing; waits for its end."""
        how = how_it_ended(self.process.wait())
        was = "was " if how.startswith("killed") else ""
        return f"the process {was}{how}{self.last_line()}"

    def last_line(self) -> str:
        """Return the last line that it complained about, in brackets; empty where there is none."""
        return "".join(f" ({line})" for line in self.log_lines()[-1:])

    def log_lines(self) -> list[str]:
        """Return what it has written to standard error."""
        self._log.seek(0)
        return [line.strip() for line in self._log if line.strip()]


@contextmanager
def json_subprocess(command: Sequence[str], order: Mapping[str, Any]) -> Iterator[JsonSubprocess]:
    """Start a command with this order; it is gone when this ends."""
    # To a file: nobody reads a pipe while the process works, and a full one would stop it.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            start_new_session=True,  # a Ctrl-C in the terminal is for the one who asked
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it tells by its status why it does not read
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
            yield JsonSubprocess(process, log)
        finally:
            process.kill()
            process.communicate()


# As `native.quantise` has them, which only the process that works can import.
TUNING_FORMATS = (
    "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS", "F16", "BF16", "F32",
)  # fmt: skip
NEAR_LOSSLESS = "Q8_0"
# Places that are compared: of the text that comes with Paddock, and of the user's documents, as
# far as the model reads them in time.
N_COMPARED, N_COMPARED_OWN = 768, 4096
_WRITING_PHASE = "writing the copy"
_COMMAND = (sys.executable, "-m", "paddock.engine.tuning.tuning_process")
_SPARE_BYTES = 64 * 1024 * 1024
# What llama.cpp makes of a file is a mixture; these have at most so many bytes for each weight.
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
    """A copy would not help; nothing was made."""

    def __init__(
        self, name: str, format_name: str | None, gain: float, *, is_measured: bool
    ) -> None:
        self.gain = gain
        what = f"a copy of '{name}' in {format_name}" if format_name else f"a copy of '{name}'"
        how = "was" if is_measured else "would be"
        super().__init__(
            f"{what} {how} {gain:.1f} times as fast at reading "
            f"documents on this machine, which is not worth it; nothing was made. `--force` "
            f"makes it all the same."
        )


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """Which copy is to be made."""

    facts: ModelFacts
    """Of the original."""
    format: str | None
    """For all matrices; None: only those in slow formats are changed, into a near-lossless one."""
    n_threads: int
    texts: Sequence[str]
    """Real text, on which both are compared."""
    is_forced: bool = False
    n_documents: int = 0
    """How many documents of the user's `texts` are; 0: they come with Paddock."""

    @property
    def target(self) -> str:
        """Name the format that is written."""
        return self.format or NEAR_LOSSLESS


def tune(wish: TuningRequest, settings: PoolSettings, note: ReportPhase) -> TunedCopy:
    """Make, judge and record a copy; it serves from the next start of a pool on.

    Raises:
        TuningRefused: it does not help.
        ModelUnusable: llama.cpp crashes with it, whatever it goes without.
        EngineError: no room, another one is at it, or llama.cpp cannot do it.
    """
    if wish.facts.parts:
        raise EngineError(
            f"'{wish.facts.name}' is split into {len(wish.facts.parts) + 1} files, and a tuned "
            f"copy is made of one. Join them with llama.cpp's `llama-gguf-split --merge`."
        )
    book = TunedCopyStore(settings.cache_dir)
    with _tuning_lock(book.folder, wish.facts):
        folder = _blob_folder(settings)
        _check_room(folder, wish)
        stem = f".{wish.facts.digest[:12]}-tuned"
        _remove_leftovers(folder, stem)
        aside = folder / f"{stem}.{os.getpid()}.part"
        try:
            told = _run_with_fallbacks(wish, aside, note, FallbackStore(settings.cache_dir))
            tuned = _store_copy(wish, aside, folder, told)
        finally:
            aside.unlink(missing_ok=True)
        book.keep(tuned)
    return tuned


@contextmanager
def _tuning_lock(folder: Path, facts: ModelFacts) -> Iterator[None]:
    """Be the only one that makes a copy of this model."""
    try:
        files.private_folder(folder)
        lock = FileLock(folder / f"{facts.digest}.lock", timeout=0, mode=files.PRIVATE_FILE)
        lock.acquire()
    except Timeout:
        text = f"another `paddock tune` is making a copy of '{facts.name}'; wait for it"
        raise EngineError(text) from None
    except OSError as error:
        raise EngineError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _blob_folder(settings: PoolSettings) -> Path:
    """Return the store's folder of blobs, or one in the cache where the store is read-only."""
    for folder in (settings.models_dir / "blobs", settings.cache_dir / "blobs"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise EngineError(
        f"neither {settings.models_dir} nor {settings.cache_dir} can be written. "
        f"Set PADDOCK_HOME to a folder that can."
    )


def _check_room(folder: Path, wish: TuningRequest) -> None:
    """Refuse before anything is written."""
    # Twice: while it is made, a second file of about its size may be needed for a while.
    needed = 2 * copy_bytes(read_header(Path(wish.facts.path)), wish.target) + _SPARE_BYTES
    free = read_disk(folder).free_bytes
    if needed > free:
        mb = 10**6
        raise EngineError(
            f"to make the copy of '{wish.facts.name}' takes up to {needed // mb} MB, and {folder} "
            f"has {free // mb} MB left. Make room, or set PADDOCK_MODELS to another disk."
        )


def copy_bytes(header: GgufHeader, format_name: str) -> int:
    """Tell about how large a model is in another format, at most."""
    each = _MOST_BYTES_EACH.get(format_name)
    if each is None:
        kind = next(kind for kind, name in TYPE_NAMES.items() if name == format_name)
        per_block, block_bytes = TYPE_BLOCKS[kind]
        each = block_bytes / per_block
    return int(sum(one.n_weights * _bytes_each(one, each) for one in header.tensors))


def _bytes_each(tensor: GgufTensor, each: float) -> float:
    """Vectors stay as they are; the vocabulary's matrices get 6 bits and more."""
    if len(tensor.axes) == 1:
        return 4.0
    return each if tensor.name.startswith("blk.") else max(each, 210 / 256)


def _remove_leftovers(folder: Path, stem: str) -> None:
    """Remove what was left half by one that was killed; the lock says that nobody is at it."""
    for left in folder.glob(f"{stem}.*part"):
        left.unlink(missing_ok=True)


class _ProcessCrashed(Exception):
    """llama.cpp crashed while it computed; the message is how and in which phase."""


def _run_with_fallbacks(
    wish: TuningRequest, aside: Path, note: ReportPhase, book: FallbackStore
) -> dict[str, Any]:
    """Run the process, after a crash with the next fallback; return its last message.

    Raises:
        TuningRefused, EngineError: as `tune`.
    """
    load = WorkerOptions(wish.facts.path, "chat", 0, 0, 1, 0, wish.n_threads)
    known = book.find(wish.facts.digest)
    fallback, reason = (known.fallback, known.reason) if known else (0, "")
    while True:
        try:
            told = _run_once(wish, aside, note, fallback)
            break
        except _ProcessCrashed as crash:
            higher = next_fallback(load, fallback)
            if higher is None:
                words = with_failed_fallback(str(crash), fallback_words(fallback))
                raise ModelUnusable(wish.facts.name, words, rebuild_command()) from None
            note(f"the process was {crash}; it is started again {fallback_words(higher)}")
            reason = reason or without_context(str(crash))
            fallback = higher
    if fallback > (known.fallback if known else 0):
        book.keep(wish.facts.digest, Fallback(Path(wish.facts.path).name, fallback, reason))
    if told["event"] == "refused":
        gain, is_measured = told["gain"], told["is_measured"]
        raise TuningRefused(wish.facts.name, wish.format, gain, is_measured=is_measured)
    return told


def _run_once(wish: TuningRequest, aside: Path, note: ReportPhase, fallback: int) -> dict[str, Any]:
    order = {
        "source": wish.facts.path,
        "target": str(aside),
        "format": wish.format,
        "n_threads": wish.n_threads,
        "fallback": fallback,
        "n_compared": N_COMPARED_OWN if wish.n_documents else N_COMPARED,
        "n_least": N_COMPARED,
        "n_documents": wish.n_documents,
        "is_forced": wish.is_forced,
        "texts": list(wish.texts),
    }
    with json_subprocess(_COMMAND, order) as process:
        return _read_result(process, wish, note)


def _read_result(process: JsonSubprocess, wish: TuningRequest, note: ReportPhase) -> dict[str, Any]:
    phase = "loading"
    for line in process.lines:
        told: dict[str, Any] = json.loads(line)
        if told["event"] == "note":
            phase = told["text"]
            note(phase)
        elif told["event"] in ("done", "refused"):
            return told
        else:
            raise EngineError(f"'{wish.facts.name}' cannot be tuned: {told['why']}")
    reason = death_reason(process.process.wait(), phase, process.log_lines())
    if has_crashed(reason) and not phase.startswith(
        _WRITING_PHASE
    ):  # the quantiser has no fallbacks
        raise _ProcessCrashed(reason)
    raise EngineError(f"'{wish.facts.name}' cannot be tuned: {process.why_it_ended()}")


def _store_copy(wish: TuningRequest, aside: Path, folder: Path, told: dict[str, Any]) -> TunedCopy:
    """Return the copy its name among the blobs."""
    place = folder / f"sha256-{told['digest']}"
    is_there = place.exists()
    if not is_there:
        aside.replace(place)
        _sync_folder(folder)
    return TunedCopy(
        name=wish.facts.name,
        original=wish.facts.digest,
        digest=told["digest"],
        path=str(place),
        format=wish.target,
        n_documents=wish.n_documents,
        changed_from=told.get("changed_from", ""),
        n_changed=told.get("n_changed", 0),
        n_kept=told.get("n_kept", 0),
        size_bytes=told["size_bytes"],
        more_bytes=told["size_bytes"] - wish.facts.size_bytes,
        agreement=told["agreement"],
        n_compared=told["n_compared"],
        exact_before=told.get("exact_before"),
        exact_after=told.get("exact_after"),
        before=CopySpeeds(**told["before"]),
        after=CopySpeeds(**told["after"]),
        made_at=time.time(),
        is_ours=not is_there,
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
