"""What this machine may lack, libraries of optional extras and programs, and what to do then."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from paddock.engine.system import processes

from .facts import Missing, Written

BUCKET_LIBRARIES = {"s3": "s3fs", "sftp": "paramiko", "https": "aiohttp", "http": "aiohttp"}
NEEDS_LANCEDB = (
    "vector stores need LanceDB, which is not installed.",
    "Install it: pip install 'paddock-llm[retrieval]'.",
)
"""Sentence and remedy."""
_NEEDS_MCP = (
    "MCP servers need the package 'mcp', which is not installed.",
    "Install it: `pip install 'paddock-llm[mcp]'`.",
)


def missing_store_library(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    """Yield the library of vector stores where a step names a store and it is not installed."""
    if written.get("store") is not None and importlib.util.find_spec("lancedb") is None:
        yield ("store",), *NEEDS_LANCEDB


def missing_bucket_library(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    """Yield the library that a step's bucket needs and this machine lacks."""
    bucket = written.get("bucket")
    kind = str(bucket.get("url")).partition(":")[0] if isinstance(bucket, Mapping) else ""
    if (name := BUCKET_LIBRARIES.get(kind)) and importlib.util.find_spec(name) is None:
        what = f"`{kind}://` needs the package '{name}', which is not installed."
        yield ("bucket",), what, "Install it: pip install 'paddock-llm[buckets]'."


def is_missing_program(program: object, environ: object, folder: Path) -> bool:
    """Return whether a program that is looked for in PATH is not there.

    A path is left to the run: an earlier step may make what it names.
    """
    if not isinstance(program, str) or not program or "{" in program or os.sep in program:
        return False
    added = dict(environ) if isinstance(environ, Mapping) else {}
    if "{" in str(added.get("PATH", "")):
        return False
    whole = processes.clean_environ(added, os.environ)
    return processes.find_program(program, folder, whole) is None


def missing_mcp_library() -> tuple[str, str] | None:
    """Return sentence and remedy if the library is not installed; imports nothing."""
    return _NEEDS_MCP if importlib.util.find_spec("mcp") is None else None
