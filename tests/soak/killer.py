"""Ends processes by force, as the kernel and colleagues do; tells them by their command lines."""

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import psutil

from tests.soak.judge import Kill


class Killer:
    def __init__(
        self, state_dir: str, seed: int, recorded: Callable[[], dict[tuple[str, str], float]]
    ) -> None:
        """`recorded`: returns what the ledger has now, as `Kill` does."""
        self._state_dir = state_dir
        self._recorded = recorded
        self._random = random.Random(seed)
        self.kills: list[Kill] = []
        self.n_killed: Counter[str] = Counter()

    def strike(self, wanted: Mapping[str, int]) -> str | None:
        there = roles(self._state_dir)
        names = [name for name in wanted if there.get(name)]
        if not names:
            return None
        (role,) = self._random.choices(names, [wanted[name] for name in names])
        self.kill(self._random.choice(there[role]), role)
        return role

    def kill(self, process: psutil.Process, role: str) -> None:
        with contextlib.suppress(psutil.Error):
            pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
            process.kill()
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.001)  # psutil's own wait would take its status from who started it
            at, recorded = time.time(), self._recorded()
            self.kills += [Kill(at, pid, recorded) for pid in pids]
            self.n_killed[role] += 1

    @property
    def words(self) -> str:
        return ", ".join(f"{n} {role}" for role, n in sorted(self.n_killed.items())) or "none"


def processes(state_dir: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PADDOCK_HOME") == state_dir:
                yield process


def roles(state_dir: str) -> dict[str, list[psutil.Process]]:
    found: dict[str, list[psutil.Process]] = {}
    for process in processes(state_dir):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            found.setdefault(_role(process), []).append(process)
    return found


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    line = " ".join(words)
    if "up" in words[1:4]:
        return "up"
    if "engine.workers" in line:
        return "model's worker"
    if "prefect" in line:
        return "Prefect's server"
    # Forked from the one that has everything imported, at the head of a session of its own.
    if "run" in words[1:4] or ("forkserver" in line and os.getsid(process.pid) == process.pid):
        return "run"
    return "other"
