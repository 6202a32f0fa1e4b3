"""The process that makes and judges a tuned copy. Started as a module by `tuner`.

Apart, because llama.cpp's quantiser can be ended only with its process, and some of its errors
end in `abort()`. An order comes in as one line of JSON; lines of JSON go out. When the pipe
closes, whoever asked is gone, and so is this process.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from paddock.engine.gguf import TYPE_NAMES, Header, read_header
from paddock.engine.native import library
from paddock.engine.native.faults import LoadFailed
from paddock.engine.native.quantise import QuantiseFailed, quantise
from paddock.engine.native.threads import ENOUGH_SHARE
from paddock.engine.profile import formats, trial
from paddock.engine.profile.bench import Clock, Shape
from paddock.engine.profile.choice import seconds
from paddock.engine.profile.measure import format_points
from paddock.engine.profile.profile import (
    DecodePoint,
    FormatPoint,
    PrefillPoint,
    Profile,
    Weights,
)
from paddock.engine.workers.fallback import with_fallback
from paddock.engine.workers.load import Load

from . import rewriting
from .comparison import agreement, predictions, speeds
from .tuned import Speeds

# Formats are tried in turn so many times.
_N_ROUNDS = 3
_LEAST_SHARE = 0.1
_NOTHING_LOW = (
    "it has no matrices of fewer than 8 bits, and others are changed only into a format that is "
    "asked for by name (`--format`)"
)
# How long the first reading of the user's documents should take at most.
_COMPARED_S = 30.0

# Of larger models the exact copy would take more than 2 GB of disk and minutes to compute.
MOST_EXACT = 10**9

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made."""

    source: str
    target: str
    """Written beside its place; the one who asks gives it its name."""
    format: str | None
    """For all matrices; None: those in slow formats get a near-lossless one."""
    n_threads: int
    """Of the quantiser; what is measured has as many or, as a fallback, one."""
    fallback: int
    """What llama.cpp goes without (`workers.fallback`)."""
    n_compared: int
    """Tokens of real text that both models read, as far as that is done in time."""
    n_least: int
    """Tokens that are compared however long it takes."""
    n_documents: int
    """How many documents of the user's the texts are; 0: they come with Paddock."""
    is_forced: bool
    """Whether it is made also where it does not help."""
    texts: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """How models are computed; its sizes are those of each measurement."""
        load = with_fallback(Load(self.source, "chat", 0, 0, 1, 0, self.n_threads), self.fallback)
        return Shape(
            0,
            0,
            load.n_threads,
            load.flash_attention,
            uses_extra_buffers=load.uses_extra_buffers,
        )


def main() -> None:
    """Carry out one order."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whoever prints now prints to standard error
    library.quiet_logs()
    order = Order(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()

    def tell(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=told, flush=True)

    try:
        make(order, tell)
    except (LoadFailed, QuantiseFailed, OSError) as error:
        tell({"event": "broken", "why": str(error)})


def _end_with(stream: TextIO) -> None:
    stream.read()
    os._exit(1)


def make(order: Order, tell: Tell) -> None:
    """Judge, write, judge again, compare; tells `done` or `refused`."""
    source, target = Path(order.source), Path(order.target)
    header = read_header(source)
    if order.format is None and not rewriting.low_bit(header):
        tell({"event": "broken", "why": _NOTHING_LOW})
        return
    prompts = order.texts if order.n_documents else ()
    tell({"event": "note", "text": "measuring the model as it is"})
    before = speeds(source, order.shape, prompts)
    points = () if library.supports_gpu() else measured_formats(order, header)
    promised = expected(order, header, before, points)
    if promised is not None and promised < formats.USEFUL and not order.is_forced:
        tell({"event": "refused", "gain": promised, "is_measured": False})
        return
    names = chosen(order, header, points)
    tell({"event": "note", "text": f"writing the copy{_what(order, header, names)}"})
    _write(order, names)
    tell({"event": "note", "text": "measuring the copy"})
    after = speeds(target, order.shape, prompts)
    gain = seconds(_profile(before), formats.DOCUMENTS) / seconds(
        _profile(after), formats.DOCUMENTS
    )
    # Beside other programs, the trials say more than two measurements at different times.
    is_sure = promised is None or min(before.share, after.share) >= ENOUGH_SHARE
    if gain < formats.USEFUL and is_sure and not order.is_forced:
        tell({"event": "refused", "gain": gain, "is_measured": True})
        return
    tell({"event": "note", "text": "comparing what both say about real text"})
    done = {"event": "done", "gain": gain, "before": asdict(before), "after": asdict(after)}
    changes = _changes(order, header, names)
    tell({**done, **changes, **_compared(order, before), **_of_file(target)})


def measured_formats(order: Order, header: Header) -> tuple[FormatPoint, ...]:
    """Measure the model's formats and that of the copy on trial models; the quickest counts.

    In processor seconds of one thread, divided by the threads: what other programs do meanwhile
    would decide else (with a load of 6 on 2 cores, wall times of one format differ by a factor of
    2, these by a twentieth).
    """
    shape, n_threads = replace(order.shape, n_threads=1), order.shape.n_threads
    names = [*formats.wanted(formats.census(header)), order.format or formats.NEAR_LOSSLESS]
    best: dict[tuple[str, int], FormatPoint] = {}
    with tempfile.TemporaryDirectory(prefix="paddock-trial-") as folder:
        paths = {name: Path(folder) / f"{name}.gguf" for name in filter(trial.can_write, names)}
        for name, path in paths.items():
            trial.write(path, name)
        for _ in range(_N_ROUNDS):
            for name, path in paths.items():
                clock = Clock(60.0, 1, counts_cpu=True)
                for took in format_points(path, name, shape, clock):
                    one = replace(took, seconds=took.seconds / n_threads)
                    key = (name, one.n_rows)
                    best[key] = min(best.get(key, one), one, key=lambda point: point.seconds)
    return tuple(best.values())


def expected(
    order: Order, header: Header, before: Speeds, points: tuple[FormatPoint, ...]
) -> float | None:
    """Return how much the job of reading documents would gain; None: nothing was measured.

    As if the model had been alone on the processor, as the trials count it.
    """
    alone = 1 / max(before.share, _LEAST_SHARE)
    scaled = replace(
        before,
        prompts=before.prompts * alone,
        answer=before.answer * alone,
        answers=before.answers * alone,
    )
    profile = _profile(scaled, formats.census(header), points)
    return formats.promise(profile, formats.DOCUMENTS, order.format)


def chosen(order: Order, header: Header, points: tuple[FormatPoint, ...]) -> frozenset[str]:
    """Return the names of the tensors that are written in the near-lossless format.

    Where nothing was measured, or a copy is made all the same, all that can be.
    """
    every = rewriting.low_bit(header)
    if order.format is not None or not points:
        return every
    slow = formats.slow_tensors(header, formats.slow_formats(points)) & every
    return slow or (every if order.is_forced else slow)


def _what(order: Order, header: Header, names: frozenset[str]) -> str:
    changes = _changes(order, header, names)
    if not changes.get("n_kept"):
        return f" in {order.format or formats.NEAR_LOSSLESS}"
    return (
        f": {changes['n_changed']} matrices of {changes['changed_from']} in "
        f"{formats.NEAR_LOSSLESS}, {changes['n_kept']} as they are"
    )


def _changes(order: Order, header: Header, names: frozenset[str]) -> dict[str, Any]:
    """Return which matrices are changed and how many stay, where they are chosen one by one."""
    if order.format is not None:
        return {}
    kinds = {TYPE_NAMES.get(one.kind, "others") for one in header.tensors if one.name in names}
    return {
        "changed_from": ", ".join(sorted(kinds)),
        "n_changed": len(names),
        "n_kept": len(rewriting.low_bit(header) - names),
    }


def _profile(
    measured: Speeds, weights: tuple[Weights, ...] = (), points: tuple[FormatPoint, ...] = ()
) -> Profile:
    """Make a rough profile of a few speeds."""
    decode = (
        DecodePoint(1, measured.n_prompt_tokens, True, measured.answer),
        DecodePoint(8, measured.n_prompt_tokens, True, measured.answers),
    )
    prefill = (PrefillPoint(measured.n_prompt_tokens, measured.prompts),)
    return Profile("", "", "", time.time(), 1, 0.0, 0, 0.0, prefill, decode, None, points, weights)


def _write(order: Order, names: frozenset[str]) -> None:
    """Write the copy: low-bit tensors all but exactly by us, all other changes by llama.cpp."""
    source, target = Path(order.source), Path(order.target)
    if order.format not in (None, formats.NEAR_LOSSLESS):
        quantise(source, target, order.format, order.n_threads)
        return
    if order.format is None or not rewriting.rest(read_header(source)):
        rewriting.widen(source, target, names, order.n_threads)
        return
    with _beside(target) as half_way:
        rewriting.widen(source, half_way, names, order.n_threads)
        quantise(half_way, target, order.format, order.n_threads)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a name for a file that is needed for a while."""
    path = target.with_name(f"{target.name}.beside.part")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _compared(order: Order, before: Speeds) -> dict[str, Any]:
    """Tell how often both go on alike; of a small model also, how often each does as it should.

    The processor's kernels round what they multiply to 8 bits, the original's too. A copy in F16
    is computed in single precision and says what the weights really mean.
    """
    n_in_time = max(order.n_least, int(before.prompts * _COMPARED_S))
    order = replace(order, n_compared=min(order.n_compared, n_in_time))
    said = [_said(order, order.source), _said(order, order.target)]
    told: dict[str, Any] = {"agreement": agreement(*said), "n_compared": len(said[0])}
    if sum(one.n_weights for one in read_header(Path(order.source)).tensors) > MOST_EXACT:
        return told
    with _beside(Path(order.target)) as exact:
        quantise(Path(order.source), exact, "F16", order.n_threads)
        truth = _said(order, str(exact))
    return {
        **told,
        "exact_before": agreement(truth, said[0]),
        "exact_after": agreement(truth, said[1]),
    }


def _said(order: Order, path: str) -> NDArray[np.int32]:
    return predictions(Path(path), order.texts, order.n_compared, order.shape)


def _of_file(path: Path) -> dict[str, Any]:
    """Bring a file safely to the disk; gives its digest and its size."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"digest": digest, "size_bytes": path.stat().st_size}


if __name__ == "__main__":
    # Not through the interpreter's end: the other thread may be inside a read of the pipe.
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    os._exit(0)
