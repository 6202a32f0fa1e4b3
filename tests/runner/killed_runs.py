"""Runs of `paddock run` in processes of their own that are killed at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.runner.world import World


def kill_runs(
    world: World, n_kills: int, dice: random.Random, change: Callable[[], None], *more: str
) -> None:
    """Kill so many runs, each after a `change`; those that end before are further runs."""
    n_killed, took_s = 0, 3.0
    while n_killed < n_kills:
        change()
        began = time.monotonic()
        silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run = subprocess.Popen(_command(world, more), env=_environ(world), **silent)
        try:
            run.wait(took_s * dice.uniform(0.4, 1))
            took_s = time.monotonic() - began
        except subprocess.TimeoutExpired:
            n_killed += 1
            run.send_signal(signal.SIGKILL)
            run.wait()


def run_to_end(world: World, *more: str) -> None:
    options: Any = {"env": _environ(world), "capture_output": True, "text": True}
    ended = subprocess.run(_command(world, more), check=False, **options)
    assert ended.returncode == 0, ended.stderr


def _command(world: World, more: tuple[str, ...]) -> list[str]:
    own = [sys.executable, "-m", "paddock.runner", "run", str(world.file), "--local"]
    return [*own, "--allow", "network,secrets", *more]


def _environ(world: World) -> dict[str, str]:
    return {**os.environ, "PADDOCK_HOME": str(world.folder / "home"), "CI": "1"}
