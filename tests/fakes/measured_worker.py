"""A real worker whose first measurements are seen as disturbed, and the others as not.

Run as a script, with how many, and the path of a file that gets a dot for each that begins.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from paddock.engine.profile import measure, profile
from paddock.engine.system.processes import run_and_exit
from paddock.engine.workers import worker_main


class _Clock(measure.BenchClock):
    def __init__(self, *args: Any, **more: Any) -> None:
        begun = Path(sys.argv[2])
        n_begun = len(begun.read_text("utf-8")) if begun.exists() else 0
        begun.write_text("." * (n_begun + 1), "utf-8")
        super().__init__(*args, least_share=2.0 if n_begun < int(sys.argv[1]) else 0.0, **more)


if __name__ == "__main__":
    worker_main.BenchClock = _Clock  # type: ignore[attr-defined]
    profile.UNSTEADY = float("inf")
    run_and_exit(worker_main.main)
