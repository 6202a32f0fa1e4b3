"""Files that a person edited, or that Paddock did not write: whether a step may replace one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.steps.base import StepError, Tools
from paddock.steps.paths import printable


def overwrites(written: Mapping[str, Any]) -> bool:
    """Return whether a `files.write`, by its written parameters, replaces any file."""
    return written.get("on_edited") == "overwrite"


async def may_replace(path: Path, there: str, on_edited: str, tools: Tools) -> bool:
    """Return whether to replace a file: ours, or by `on_edited` or `--take`.

    `there` is the digest of what is there.
    """
    if on_edited == "overwrite" or tools.outputs.takes_over:
        return True
    return there in await tools.outputs.known_sha256(path)


def leave_as_it_is(path: Path, on_edited: str, tools: Tools) -> None:
    """Note that a file is kept.

    Raises:
        StepError: `on_edited` is `fail`.
    """
    if on_edited == "fail":
        raise StepError(
            f"'{printable(path)}' was edited, or is not ours, and `on_edited` is `fail`.",
            remedy="Move it away, set `on_edited` to `keep` or `overwrite`, or run with `--take`.",
        )
    tools.log.note(f"'{printable(path)}' was edited, or is not ours: it is kept as it is.")
