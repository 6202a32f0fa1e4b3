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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from paddock.engine.gguf import read_header
from paddock.engine.native import library
from paddock.engine.native.faults import LoadFailed
from paddock.engine.native.quantise import QuantiseFailed, quantise
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

# Less is not worth a second copy: the noise of two measurements is half of it.
USEFUL = 1.1

# The depth at which `comparison.speeds` lets sequences grow.
_DEPTH = 256

# Of larger models the exact copy would take more than 2 GB of disk and minutes to compute.
MOST_EXACT = 10**9

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made."""

    source: str
    target: str
    """Written beside its place; the one who asks gives it its name."""
    format: str
    n_threads: int
    """Of the quantiser; what is measured has as many or, as a fallback, one."""
    fallback: int
    """What llama.cpp goes without (`workers.fallback`)."""
    n_compared: int
    """Tokens of real text that both models read."""
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
    tell({"event": "note", "text": "measuring the model as it is"})
    before = speeds(source, order.shape)
    weights = formats.census(read_header(source))
    gain = None if library.supports_gpu() else _expected(order, weights, before)
    if gain is not None and gain < USEFUL and not order.is_forced:
        tell({"event": "refused", "gain": gain, "is_measured": False})
        return
    tell({"event": "note", "text": f"writing the copy in {order.format}"})
    _write(order)
    tell({"event": "note", "text": "measuring the copy"})
    after = speeds(target, order.shape)
    gain = seconds(_profile(before), formats.DOCUMENTS) / seconds(
        _profile(after), formats.DOCUMENTS
    )
    if gain < USEFUL and not order.is_forced:
        tell({"event": "refused", "gain": gain, "is_measured": True})
        return
    tell({"event": "note", "text": "comparing what both say about real text"})
    tell({"event": "done", **_compared(order), **_of_file(target), "gain": gain,
          "before": asdict(before), "after": asdict(after)})  # fmt: skip


def _expected(order: Order, weights: tuple[Weights, ...], before: Speeds) -> float | None:
    """Tell how much the job of reading documents would gain, from trial models."""
    names = dict.fromkeys([*formats.wanted(weights), order.format])
    points: list[FormatPoint] = []
    with tempfile.TemporaryDirectory(prefix="paddock-trial-") as folder:
        for name in filter(trial.can_write, names):
            path = Path(folder) / f"{name}.gguf"
            trial.write(path, name)
            points += format_points(path, name, order.shape, Clock(60.0, order.n_threads))
    profile = _profile(before, weights, tuple(points))
    return formats.promise(profile, formats.DOCUMENTS, order.format)


def _profile(
    measured: Speeds, weights: tuple[Weights, ...] = (), points: tuple[FormatPoint, ...] = ()
) -> Profile:
    """Make a rough profile of a few speeds."""
    decode = (
        DecodePoint(1, _DEPTH, True, measured.answer),
        DecodePoint(8, _DEPTH, True, measured.answers),
    )
    prefill = (PrefillPoint(_DEPTH, measured.prompts),)
    return Profile("", "", "", time.time(), 1, 0.0, 0, 0.0, prefill, decode, None, points, weights)


def _write(order: Order) -> None:
    """Write the copy: what can be told all but exactly by us, the rest by llama.cpp."""
    source, target = Path(order.source), Path(order.target)
    if order.format != formats.NEAR_LOSSLESS:
        quantise(source, target, order.format, order.n_threads)
        return
    rest = rewriting.rest(read_header(source))
    if not rest:
        rewriting.widen(source, target, order.n_threads)
        return
    with _beside(target) as half_way:
        rewriting.widen(source, half_way, order.n_threads)
        quantise(half_way, target, order.format, order.n_threads)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a name for a file that is needed for a while."""
    path = target.with_name(f"{target.name}.beside.part")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _compared(order: Order) -> dict[str, Any]:
    """Tell how often both go on alike; of a small model also, how often each does as it should.

    The processor's kernels round what they multiply to 8 bits, the original's too. A copy in F16
    is computed in single precision and says what the weights really mean.
    """
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
