"""A Dask cluster on this machine: a scheduler and workers that have a stand-in reader."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

from paddock.engine.system.processes import python_command
from tests.waiting import PATIENCE_S

_READER = """
import os, time
from pathlib import Path
from paddock.steps.readers.reader import Document, Unreadable

class Waiting:
    suffixes, media_type, version = (".wait",), "text/x-wait", VERSION

    def read(self, path):
        seconds, _, text = path.read_text().partition(" ")
        with open(os.environ["PYTHON_READ_LOG"], "a") as log:
            log.write(f"{path.name} {os.environ.get('PYTHON_READ_AT', 'here')}\\n")
        time.sleep(float(seconds))
        if text == "odd":
            raise Unreadable("is odd", "Make it even.")
        return Document((text,))
"""


def stand_in_reader(folder: Path, version: int = 1) -> Path:
    """Make a plug-in that reads `.wait`: seconds to wait, and a text; return its import path."""
    at = folder / f"reader-{version}"
    marks = at / "waiting-1.dist-info"
    marks.mkdir(parents=True)
    (at / "waiting_reader.py").write_text(_READER.replace("VERSION", str(version)))
    (marks / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 1\n")
    (marks / "entry_points.txt").write_text("[paddock.readers]\nwait = waiting_reader:Waiting\n")
    return at


class DaskCluster:
    """Leave it, and all of its processes are killed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._opened = folder, ExitStack()
        self._processes = dict[str, subprocess.Popen[bytes]]()
        self.log = folder / "read.log"
        self._start("scheduler", {}, "--port", "0")
        self.url = self._logged("scheduler", r"Scheduler at: +(\S+)")

    def workers(self, **readers: Path) -> dict[str, str]:
        """Start workers that read one document at once, by name; return their addresses."""
        for name, reader in readers.items():
            environ = {
                "PYTHONPATH": str(reader), "PYTHON_READ_AT": name, "PYTHON_READ_LOG": str(self.log)
            }  # fmt: skip
            words = self.url, "--nthreads", "1", "--no-nanny", "--name", name
            self._start(name, environ, *words, "--local-directory", str(self._folder / name))
        return {name: self._logged(name, r"Start worker at: +(\S+)") for name in readers}

    def _start(self, name: str, environ: Mapping[str, str], *words: str) -> None:
        kind = "scheduler" if name == "scheduler" else "worker"
        command = python_command("-m", f"distributed.cli.dask_{kind}", *words)
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = process = subprocess.Popen(
                (*command, "--host", "127.0.0.1", "--no-dashboard"),
                stdout=log,
                stderr=log,
                env={**os.environ, **environ},
            )
        self._opened.callback(self._end, process)

    def _logged(self, name: str, sought: str) -> str:
        log, until = self._folder / f"{name}.log", monotonic() + PATIENCE_S
        while monotonic() < until and self._processes[name].poll() is None:
            if found := re.search(sought, log.read_text()):
                return found[1]
            sleep(0.05)
        raise AssertionError(log.read_text())

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def reads(self) -> list[tuple[str, str]]:
        """Return the name of each document that a stand-in began to read, and where."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        return [(name, at) for name, _, at in (line.partition(" ") for line in lines)]

    def wait_until_each_reads(self, *names: str) -> None:
        until = monotonic() + PATIENCE_S
        while not {at for _, at in self.reads()}.issuperset(names):
            assert monotonic() < until, self.reads()
            sleep(0.02)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def __enter__(self) -> "DaskCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
