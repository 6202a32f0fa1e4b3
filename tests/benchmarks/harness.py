"""What every benchmark needs: rounds that alternate, children that are measured, one table."""

import datetime
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from paddock.engine.system.hardware import read_cpu

NOTHING = "\N{EN DASH}"  # a cell that has nothing to say


@dataclass(frozen=True, slots=True)
class Child:
    """A process that has ended: how long it took, and its largest resident size."""

    seconds: float
    processor_s: float
    """Of all its threads; on a shared machine the wall clock tells of the others."""
    peak_bytes: int
    stdout: str


def measure(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Child:
    """Run a command to its end.

    Raises:
        RuntimeError: it ended with another status than 0; the message has its stderr.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=cwd, env=env, text=True, stdout=out, stderr=err)
        # wait4 and not communicate(): it tells the resources of this very child.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            said = f"{' '.join(command)} ended with {process.returncode}:\n{err.read()}"
            raise RuntimeError(said)
        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        return Child(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, out.read())


@dataclass(frozen=True, slots=True)
class Summary:
    median: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    return Summary(statistics.median(values), min(values), max(values))


def medians(contenders: Mapping[str, Callable[[int], float]], n_rounds: int) -> dict[str, float]:
    """Call each contender once a round, by turns, and give each one's median.

    A contender gets the number of the round; by turns, since a shared machine's speed drifts.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(n_rounds):
        for name, contend in contenders.items():
            found[name].append(contend(number))
    return {name: statistics.median(values) for name, values in found.items()}


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers stand to the right.

    >>> print(table(["who", "n"], [["ours", 1.5]]))
    | who | n |
    |---|--:|
    | ours | 1.5 |
    """
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [headings, *cells]
    marks = ["---" if index == 0 else "--:" for index in range(len(headings))]
    texts = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([texts[0], f"|{'|'.join(marks)}|", *texts[1:]])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def n_threads() -> int:
    """Return how many threads everybody computes with: the cores that this process may use."""
    cpu = read_cpu()
    return max(1, min(cpu.n_cores, cpu.n_usable))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5), percentile([3.0, 1.0, 2.0, 4.0], 0.95)
    (2.0, 4.0)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def circumstances(**flags: object) -> str:
    """Return two lines: where, when and with what something was measured."""
    memory_gib = psutil.virtual_memory().total / 2**30
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = ", ".join(f"{name} {_version(name)}" for name in ("paddock-llm", "llama-cpp-python"))
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in flags.items())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}; {versions}; {today}.\n{said}."
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
