"""Ends processes by force, as the kernel and colleagues do; tells them by their command lines."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

import psutil

from tests.soak.judge import Kill

Chosen = Callable[[], list[psutil.Process]]


class Killer:
    """Kills at random what belongs to one tree of processes."""

    def __init__(self, root: Callable[[], int | None], seed: int) -> None:
        self._root = root
        """The process of `paddock up`; None while there is none."""
        self._random = random.Random(seed)
        self.kills: list[Kill] = []
        self.n_killed: Counter[str] = Counter()

    def strike(self, wanted: Mapping[str, int]) -> str | None:
        """Kill one of those roles, by weight, that are there now; give its role."""
        there = roles(self._root())
        names = [name for name in wanted if there.get(name)]
        if not names:
            return None
        (role,) = self._random.choices(names, [wanted[name] for name in names])
        self.kill(self._random.choice(there[role]), role)
        return role

    def kill(self, process: psutil.Process, role: str) -> None:
        """Kill it; what it began may die with it, and counts as killed."""
        with contextlib.suppress(psutil.Error):
            pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
            process.kill()
            self.kills += [Kill(time.time(), pid) for pid in pids]
            self.n_killed[role] += 1

    @property
    def words(self) -> str:
        """Say how many of each were killed."""
        return ", ".join(f"{n} {role}" for role, n in sorted(self.n_killed.items())) or "none"


def roles(root: int | None) -> dict[str, list[psutil.Process]]:
    """Tell who is who below `paddock up`, itself included."""
    found: dict[str, list[psutil.Process]] = {}
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(root) if root is not None else None
        for process in [top, *top.children(recursive=True)] if top else []:
            with contextlib.suppress(psutil.Error):
                found.setdefault(_role(process, root), []).append(process)
    return found


def _role(process: psutil.Process, root: int | None) -> str:
    if process.pid == root:
        return "up"
    words = " ".join(process.cmdline())
    if "engine.workers" in words or "engine/workers" in words:
        return "model's worker"
    if "prefect" in words:
        return "Prefect's server"
    if "resource_tracker" in words:
        return "tracker"
    return "run"
