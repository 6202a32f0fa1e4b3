"""Read pictures from files for a model that sees; what kind they are, the engine looks at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from paddock.steps.places import place, refusal, shown
from paddock.steps.roots import Roots
from paddock.steps.step import StepError

MOST_BYTES = 32 * 1024 * 1024  # as the engine's
MOST_IMAGES = 32
"""Each takes hundreds of tokens; more would fill a context before a word is said."""


async def read_images(roots: Roots, paths: Sequence[str]) -> tuple[bytes, ...]:
    """Read pictures, in order.

    Raises:
        StepError: one cannot be read, is too large, or lies outside the pipeline's folders.
    """
    if len(paths) > MOST_IMAGES:
        raise StepError(f"{len(paths)} images are shown; at most {MOST_IMAGES} are read at once.")
    places = [place(roots, path) for path in paths]
    return tuple([await asyncio.to_thread(_read, path) for path in places])


def _read(path: Path) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MOST_BYTES:
            mib = 1024 * 1024
            raise StepError(
                f"image '{shown(path)}' has {size_bytes // mib} MiB; at most "
                f"{MOST_BYTES // mib} are read.",
                remedy="Make it smaller.",
            )
        return path.read_bytes()
    except OSError as error:
        raise refusal(f"image '{shown(path)}' cannot be read", error) from error
