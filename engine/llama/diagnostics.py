"""llama.cpp's failures and its log: exceptions, recorded errors, the buffers that it allocated.

llama.cpp returns a null pointer where it fails and names the reason in its log alone, so each call
that can fail is recorded. The log is also the only account of buffers for each device: the
difference of a device's free memory would count what other programs allocate and free meanwhile.
Warnings go to standard error.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.system.hardware import context_bytes


class LoadFailed(Exception):
    """llama.cpp would not load the model or make its context; the reason is on stderr."""


class CacheFull(Exception):
    """No free cells for this batch; nothing was decoded, so it can be tried again."""


class DecodeFailed(Exception):
    """llama.cpp could not compute; the context is not to be trusted any more."""


_WARNING, _ERROR = 3, 4  # GGML_LOG_LEVEL_; CONT (5) continues a line whose level is not told
_N_SHOWN_ERRORS = 3
# As in "llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB".
_BUFFER_LINE = re.compile(r"(\S+)\s+(model|KV|RS|LoRA|compute|output) buffer size =\s+([\d.]+) MiB")
_HOST_BUFFER = re.compile(r"CPU|AMX|HBM|\w+_Host$")
_BUFFER_SUFFIX = re.compile(r"_(Split|Mapped)$")  # of a device's memory


@dataclass(slots=True)
class AllocatedBuffers:
    """Bytes of memory that llama.cpp has allocated, by the names of devices; host memory is ''."""

    by_device: Counter[str] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    """Of these, the cells of KV caches."""

    def __add__(self, other: AllocatedBuffers) -> AllocatedBuffers:
        """Return both together."""
        return AllocatedBuffers(self.by_device + other.by_device, self.cells + other.cells)

    def as_head(
        self, cells: Mapping[str, int], n_cells: int, n_cells_at_most: int
    ) -> dict[str, Any]:
        """Return plain data for a frame.

        Args:
            cells: the bytes of the `n_cells` of the cache that grows, by device.
            n_cells: how many it has now.
            n_cells_at_most: how many it may have.
        """
        names = [name for name in self.by_device if name]
        device_bytes = sum(self.by_device[name] + context_bytes(name) for name in names)
        host_cells = cells.get("", 0)
        return {
            "device_bytes": device_bytes,
            "n_cells": n_cells,
            "n_cells_at_most": n_cells_at_most,
            "cell_bytes": [host_cells, sum(cells.values()) - host_cells],
        }


@dataclass(slots=True)
class LogRecording:
    """What llama.cpp said during one call."""

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def explain(self, words: str) -> str:
        """Return `words` with the last errors behind them.

        >>> LogRecording(errors=["a", "failed to allocate"]).explain("no context")
        'no context: a | failed to allocate'
        """
        return (
            ": ".join([words, " | ".join(self.errors[-_N_SHOWN_ERRORS:])]) if self.errors else words
        )

    def buffers(self) -> AllocatedBuffers:
        """Return the buffers that were allocated.

        >>> lines = ["x:  CUDA0 KV buffer size =  1.50 MiB", "x: CPU output buffer size = 2 MiB"]
        >>> LogRecording(lines).buffers().by_device
        Counter({'': 2097152, 'CUDA0': 1572864})
        """
        found = AllocatedBuffers()
        computes: dict[str, int] = {}
        for line in self.lines:
            if match := _BUFFER_LINE.search(line):
                n_bytes = int(float(match[3]) * 1024**2)
                if match[2] == "compute":  # the graph may be laid out more than once
                    computes[match[1]] = n_bytes
                else:
                    found.by_device[_buffer_device(match[1])] += n_bytes
                if match[2] == "KV":
                    found.cells[_buffer_device(match[1])] += n_bytes
        for buffer, n_bytes in computes.items():
            found.by_device[_buffer_device(buffer)] += n_bytes
        return found


def _buffer_device(buffer: str) -> str:
    """Return the device that a kind of buffer lies on; empty for host memory.

    >>> _buffer_device("CUDA_Host"), _buffer_device("CPU_REPACK"), _buffer_device("MTL0_Mapped"), _buffer_device("CUDA1")
    ('', '', 'MTL0', 'CUDA1')
    """
    return "" if _HOST_BUFFER.match(buffer) else _BUFFER_SUFFIX.sub("", buffer)


class LlamaLog:
    """Takes llama.cpp's messages; called by any of its threads."""

    def __init__(self) -> None:
        self._recordings: list[LogRecording] = []

    def __call__(self, level: int, text: bytes, _data: object) -> None:
        """Take a message."""
        words = text.decode("utf-8", errors="replace")
        if level in (_WARNING, _ERROR):
            sys.stderr.write(words)
            sys.stderr.flush()
        for recording in self._recordings:
            recording.lines.append(words)
            if level == _ERROR:
                recording.errors.append(words.strip())

    @contextmanager
    def recording(self) -> Iterator[LogRecording]:
        """Record what is said meanwhile."""
        recording = LogRecording()
        self._recordings.append(recording)
        try:
            yield recording
        finally:
            self._recordings.remove(recording)
