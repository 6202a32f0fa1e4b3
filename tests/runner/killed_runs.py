"""Runs of `paddock run` in processes of their own that are killed at random moments."""

import os
import random
import subprocess
import time
from collections.abc import Callable

from tests.forked import Forked, ForkServer
from tests.runner.world import World


def kill_runs(
    forks: ForkServer, world: World, n_kills: int, dice: random.Random,
    change: Callable[[], None], *more: str,
) -> None:  # fmt: skip
    """Kill so many runs, each after a `change`; those that end before are further runs."""
    n_killed, took_s = 0, 3.0
    while n_killed < n_kills:
        change()
        began = time.monotonic()
        run = _start(forks, world, more)
        try:
            run.wait(took_s * dice.uniform(0.1, 1))
            took_s = time.monotonic() - began
        except subprocess.TimeoutExpired:
            n_killed += 1
            run.kill()
            run.wait()


def run_to_end(forks: ForkServer, world: World, *more: str) -> None:
    run = _start(forks, world, more)
    _, err = run.communicate()
    assert run.returncode == 0, err


def _start(forks: ForkServer, world: World, more: tuple[str, ...]) -> Forked:
    words = ("run", str(world.file), "--local", "--allow", "network,secrets", *more)
    return forks.paddock(
        *words, environ={**os.environ, "PADDOCK_HOME": str(world.folder / "home"), "CI": "1"}
    )
