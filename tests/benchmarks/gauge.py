"""A worker whose time inside llama.cpp is measured apart from the Python around it.

Run in the place of a pool's worker (`gauged`): the very same code, with clocks around the calls
that compute. When it ends, it writes what it found into the file that `PADDOCK_GAUGE` names.
"""

import asyncio
import contextlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

WORKER = "paddock.engine.workers.worker_main"
NAMED = "PADDOCK_GAUGE"
# On a device `llama_decode` only starts the work, and what reads the logits waits for it.
COMPUTING = ("llama_decode", "llama_synchronize", "llama_get_logits", "llama_get_logits_ith")


@dataclass(frozen=True, slots=True)
class Steps:
    """What was found of the steps that had so many tokens, one of each sequence."""

    n_steps: int
    step_ms: float
    """Median, from one decode to the next."""
    python_ms: float
    """Of it, outside of llama.cpp; median."""

    @property
    def python_share(self) -> float:
        """Share of a step that is not llama.cpp's."""
        return self.python_ms / self.step_ms if self.step_ms else float("nan")


@contextlib.contextmanager
def gauged(found: Path) -> Iterator[None]:
    """Make the pools of this block start gauged workers.

    The worker's own command line is kept; only the module's name is another.
    """
    start = asyncio.create_subprocess_exec
    here = str(Path(__file__).resolve())

    async def start_gauged(*command: str, **options: Any) -> asyncio.subprocess.Process:
        mine = [here if part == WORKER else part for part in command if part != "-m"]
        options["env"] = {**(options.get("env") or os.environ), NAMED: str(found)}
        return await start(*mine, **options)

    with mock.patch("asyncio.create_subprocess_exec", start_gauged):
        yield


def read(found: Path, n_tokens: int) -> Steps:
    """Read what a gauged worker has written, of the steps of exactly so many tokens."""
    return steps(json.loads(found.read_text("utf-8")), n_tokens)


def steps(turns: list[list[float]], n_tokens: int) -> Steps:
    """Sum up turns, each `[began, seconds inside, tokens]`; only such as follow one another.

    >>> steps([[0.0, 0.08, 4], [0.1, 0.09, 4], [0.2, 0.09, 4]], 4)
    Steps(n_steps=2, step_ms=100.0, python_ms=15.0)
    """
    found = [
        (1000 * (after[0] - turn[0]), 1000 * (after[0] - turn[0] - turn[1]))
        for turn, after in itertools.pairwise(turns)
        if turn[2] == after[2] == n_tokens
    ]
    if not found:
        return Steps(0, float("nan"), float("nan"))
    return Steps(
        len(found),
        round(statistics.median(step for step, _ in found), 3),
        round(statistics.median(outside for _, outside in found), 3),
    )


class _Gauge:
    """Notes each decode: when it began, how long llama.cpp computed until the next, its tokens."""

    def __init__(self) -> None:
        self.turns: list[list[float]] = []

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            if name == "llama_decode":
                self.turns.append([began, 0.0, args[1].n_tokens])
            result = call(*args)
            if self.turns:
                self.turns[-1][1] += time.perf_counter() - began
            return result

        return timed


def main() -> None:
    # The library's own path stands first, as `python FILE` has it; the worker's does not.
    sys.path = [path for path in sys.path if Path(path) != Path(__file__).resolve().parent]
    from paddock.engine.llama.library import lib
    from paddock.engine.workers import worker_main

    gauge = _Gauge()
    for name in COMPUTING:
        if hasattr(lib, name):
            setattr(lib, name, gauge.around(name, getattr(lib, name)))
    worker_main.main()
    Path(os.environ[NAMED]).write_text(json.dumps(gauge.turns), "utf-8")


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(70)
    os._exit(0)  # as the worker ends: its reading thread may be inside a read of the pipe
