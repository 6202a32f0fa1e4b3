"""Run `paddock` in a process of its own, as a script does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PADDOCK = str(Path(sys.executable).with_name("paddock"))


@dataclass(frozen=True)
class Ended:
    """What a command said, and its status."""

    status: int
    out: str
    err: str


def paddock(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | bytes | None = None,
) -> Ended:
    """Run it to its end; without `given` its input is empty."""
    raw = given.encode() if isinstance(given, str) else given
    answer = subprocess.run(
        [PADDOCK, *arguments],
        input=raw or b"",
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        timeout=120,
        check=False,
    )
    return Ended(answer.returncode, answer.stdout.decode(), answer.stderr.decode())
