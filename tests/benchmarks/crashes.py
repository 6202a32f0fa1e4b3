"""A job whose process is killed again and again: how much longer its items take, and what is lost.

    python -m tests.benchmarks.crashes [--items N] [--kills N] [--deadly N]

Each item sleeps. A kill comes at a random moment after the first item of a process has begun, on
average so often that the kills are spread over the job; then the same command is started again.
Only the time in which items are in flight counts: the start of an interpreter is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CLI = "from paddock.runner.cli.application import main; main()"
PARALLEL = 6
PIPELINE = f"""\
name: crashes
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: {PARALLEL}
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - id: work
        uses: run
        with: {{command: [sh, work.sh, "{{{{ steps.text.text }}}}"]}}
      - uses: files.write
        with: {{path: "out/{{{{ doc.relpath }}}}", text: "{{{{ steps.text.text }}}}"}}
"""
WORK = """\
echo "$1" >> {folder}/begun
sleep {sleep_s}
case "$1" in *deadly*) kill -9 $(cat {folder}/pid); sleep 5;; esac
"""


@dataclass
class Job:
    """A folder with a pipeline, and what became of its processes."""

    folder: Path
    working_s: float = 0.0
    starting_s: float = 0.0
    n_kills: int = 0
    n_deaths: int = 0
    """Caused by deadly items."""
    last: subprocess.CompletedProcess[str] | None = None

    def write(self, n_items: int, n_deadly: int, sleep_s: float) -> None:
        (self.folder / "inbox").mkdir()
        (self.folder / "pipeline.yaml").write_text(PIPELINE)
        (self.folder / "work.sh").write_text(WORK.format(folder=self.folder, sleep_s=sleep_s))
        for number in range(n_items):
            kind = "deadly" if number % 97 == 40 and number // 97 < n_deadly else "harmless"
            (self.folder / f"inbox/{number:03}.txt").write_text(f"{number:03} {kind}")

    def live(self, kill_after_s: float | None) -> bool:
        """Start the command; kill it so long after its first item began. Return whether it died."""
        n_before, began = self._n_begun(), time.monotonic()
        environment = os.environ | {"PADDOCK_HOME": str(self.folder / "home"), "CI": "1"}
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", CLI, "run", "--local", "--json", "--allow", "run", "."],
                cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        (self.folder / "pid").write_text(str(process.pid))
        while process.poll() is None and self._n_begun() == n_before:
            time.sleep(0.005)
        working = time.monotonic()
        self.starting_s += working - began
        try:
            out, _ = process.communicate(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait()
            self.n_kills += 1
            self.working_s += time.monotonic() - working
            return True
        self.working_s += time.monotonic() - working
        self.last = subprocess.CompletedProcess((), process.returncode, out)
        if process.returncode == -signal.SIGKILL:
            self.n_deaths += 1
        return process.returncode == -signal.SIGKILL

    def _n_begun(self) -> int:
        try:
            return (self.folder / "begun").stat().st_size
        except OSError:
            return 0

    def report(self, name: str) -> str:
        assert self.last is not None
        report = json.loads(self.last.stdout)
        begun = Counter((self.folder / "begun").read_text().splitlines())
        bad = sorted(one["key"] for one in report["items"] if one["state"] == "quarantined")
        n_done = len(list((self.folder / "out").glob("*.txt")))
        return (
            f"{name}: {self.working_s:.1f} s of work, {self.starting_s:.1f} s of starts, "
            f"{self.n_kills} kills, {self.n_deaths} deaths by documents, {n_done} done, "
            f"{sum(begun.values()) - len(begun)} begun again, status {self.last.returncode}, "
            f"quarantined {bad or 'nothing'}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--kills", type=int, default=48)
    parser.add_argument("--deadly", type=int, default=0)
    parser.add_argument("--sleep", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as undisturbed, tempfile.TemporaryDirectory() as disturbed:
        first = Job(Path(undisturbed))
        first.write(given.items, 0, given.sleep)
        first.live(None)
        print(first.report("undisturbed"), flush=True)
        job = Job(Path(disturbed))
        job.write(given.items, given.deadly, given.sleep)
        every_s = 1.4 * first.working_s / max(1, given.kills)
        while job.live(chance.expovariate(1 / every_s) if job.n_kills < given.kills else None):
            pass
        print(job.report("killed"), flush=True)
        print(f"factor {job.working_s / first.working_s:.2f}", flush=True)


if __name__ == "__main__":
    main()
