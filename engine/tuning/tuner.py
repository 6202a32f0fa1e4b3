"""Make a tuned copy of a model, atomically. Imports no llama_cpp.

A subprocess (`tuning_process`) writes and judges the copy under a temporary name; one rename
finishes it. An interrupted run leaves nothing, and the next run removes what a killed one left.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from paddock.engine.errors import EngineError
from paddock.engine.gguf import read_header
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system import distribution, files
from paddock.engine.system.disk_space import free_disk_bytes
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.frame_processes import ordered_process
from paddock.engine.system.hardware import read_cpu, read_memory
from paddock.engine.system.processes import python_command
from paddock.engine.system.records import asdict, record_from, replace
from paddock.engine.workers.fallbacks import FallbackStore

from .copy_order import CopyAnswer, CopyOrder
from .tuned_copies import (
    TunedCopy,
    TunedCopyStore,
    copy_format,
    copy_place,
    graph_file,
    may_have_ir,
)

# Documents of the package on which a copy is compared with its original.
_EXAMPLE_TEXTS = "folder-digest/inbox"
_COMMAND = python_command("-m", "paddock.engine.tuning.tuning_process")
_SPARE_BYTES = 64 * 1024 * 1024
_SIGKILL = 9  # by `TuningStop`, or by a system without memory


class TuningNotNow(EngineError):
    """A copy may be made later: it was interrupted, there is no room, or another is at work."""


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


def example_texts() -> tuple[str, ...]:
    examples = distribution.examples_folder()
    found = []
    for file in sorted((examples / _EXAMPLE_TEXTS).rglob("*")) if examples else ():
        if file.suffix in (".md", ".txt", ".html"):
            with suppress(UnicodeDecodeError):
                found.append(file.read_text("utf-8"))
    return tuple(found)


def tune(facts: ModelFacts, settings: PoolSettings, n_threads: int, stop: TuningStop) -> TunedCopy:
    """Make and record a copy, or record why there is none; return the record.

    Raises:
        TuningNotNow: nothing was recorded.
        EngineError: no folder can be written.
        ModelBroken: the model's file cannot be read.
    """
    store = TunedCopyStore(settings.cache_dir)
    header = read_header(Path(facts.path))
    format_name, names = copy_format(header, read_cpu().features)
    refusal = ""
    has_ir = may_have_ir(header)
    if facts.role == "rerank" or facts.parts or not (names or has_ir):
        refusal = "no copy of such a model is faster on this processor"
    record = TunedCopy(facts.name, facts.digest, facts.path, copy_place(), refusal)
    with _tuning_lock(store.folder, facts):
        if not refusal:
            # A copy takes at most two bytes a weight, or what it has; an IR, and the file it is
            # made of, the same again, and one for each precision.
            n_weights = sum(tensor.n_weights for tensor in header.tensors)
            n_bytes = (6 if has_ir else 2) * n_weights + facts.size_bytes
            if has_ir:
                _require_room(store.folder, facts, n_bytes)
            with (
                _temporary_target(_blob_folder(settings), facts, n_bytes) as temporary,
                _ir_folder(store.folder, facts) as folder,
            ):
                known = FallbackStore(settings.cache_dir).find(facts.digest)
                order = CopyOrder(
                    record,
                    temporary,
                    format_name,
                    sorted(names),
                    folder / "weights.bin" if has_ir else None,
                    n_threads,
                    known.fallback if known else 0,
                    example_texts(),
                )
                record = _run(order, facts, stop)
                if not record.why_none:
                    record = _finish(record, store)
        store.keep(record)
    return record


def _finish(copy: TunedCopy, store: TunedCopyStore) -> TunedCopy:
    """Rename a copy that is written and judged; return its record."""
    written = Path(copy.path)
    place = written.parent / f"sha256-{copy.digest}"
    if copy.is_ir:
        place = store.ir_weights(copy.original)
        graph_file(written).replace(graph_file(place))
    written.replace(place)
    files.sync_folder(place.parent)
    return replace(copy, path=str(place))


def remove_left_parts(settings: PoolSettings) -> None:
    """Remove what killed processes left of copies; other users' may be at work on theirs."""
    for root in (settings.models_dir, settings.cache_dir):
        _remove_parts(root / "blobs")
    for left in TunedCopyStore(settings.cache_dir).folder.glob("*.ir"):
        with suppress(LockTaken, OSError), lock_now(left.with_suffix(".lock")):
            shutil.rmtree(left)


def _remove_parts(folder: Path) -> None:
    """Remove parts of copies that no process is making: it would hold the file `….part`."""
    for left in folder.glob(".*-tuned.*.part"):
        if not files.is_part_held(left):
            with suppress(OSError):  # it is another user's
                left.unlink(missing_ok=True)


@contextmanager
def _temporary_target(folder: Path, facts: ModelFacts, n_bytes: int) -> Iterator[Path]:
    """Yield a path for so many bytes; what lies there, or beside it, goes before and after.

    Raises:
        TuningNotNow: disk or memory has no room for model and copy.
    """
    _remove_parts(folder)
    _require_room(folder, facts, n_bytes)
    lock_file = folder / f".{facts.digest[:12]}-tuned.{secrets.token_hex(4)}.part"
    try:
        with files.held_file(lock_file):
            yield lock_file.with_name(f"{lock_file.name}.copy.part")
    finally:
        _remove_parts(folder)


def _require_room(folder: Path, facts: ModelFacts, n_bytes: int) -> None:
    needed = n_bytes + _SPARE_BYTES
    if needed > min(free_disk_bytes(folder), read_memory().free_bytes):
        text = f"disk or memory has no room for a copy of '{facts.name}' ({needed // 10**6} MB)"
        raise TuningNotNow(text)


@contextmanager
def _ir_folder(folder: Path, facts: ModelFacts) -> Iterator[Path]:
    """Yield an empty folder, which goes; the tuning lock is held, so one that is there is left."""
    inner = folder / f"{facts.digest}.ir"
    shutil.rmtree(inner, ignore_errors=True)
    inner.mkdir()
    try:
        yield inner
    finally:
        shutil.rmtree(inner, ignore_errors=True)


@contextmanager
def _tuning_lock(folder: Path, facts: ModelFacts) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_now(folder / f"{facts.digest}.lock"))
        except LockTaken:
            text = f"another process is making a copy of '{facts.name}'"
            raise TuningNotNow(text) from None
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


def _run(order: CopyOrder, facts: ModelFacts, stop: TuningStop) -> TunedCopy:
    """Run the subprocess; return the record of the copy, or of why there is none.

    A crash is a reason: a format that ends the process on this processor is not served.
    """
    with ordered_process(_COMMAND, asdict(order)) as process:
        stop.watch(process.process)
        result = process.next_answer()
        if result is None and (stop.is_set or process.exit_status() == -_SIGKILL):
            raise TuningNotNow(f"the copy of '{facts.name}' was interrupted")
        if result is None:
            return replace(order.model, why_none=process.exit_reason())
        answer = record_from(CopyAnswer, result)
        if answer.copy is None:
            raise TuningNotNow(f"the copy of '{facts.name}' cannot be written: {answer.not_now}")
        return answer.copy
