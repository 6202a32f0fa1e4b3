"""`kill -9` of run, worker, service and Prefect's server, in any order: nothing lost or done twice.

With real workers, the real service and a real Prefect server, each killed at a random moment.
"""

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from paddock.runner.daemon.prefect_server import end_keeper
from tests.fakes import tiny
from tests.prefect_server import seed
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
CLI = "from paddock.runner.cli.application import main; main()"
PIPELINE = """\
models:
  writer: {ref: ./noise.gguf, ctx: 1k}
  vec: {ref: all-minilm, role: embed}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 4
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: vec, uses: embed, with: {model: vec, texts: ["{{ steps.text.text }}"]}}
      - id: say
        uses: chat
        with: {model: writer, prompt: "Shorter: {{ steps.text.text }}", params: {max_tokens: 8}}
      - uses: files.write
        with:
          path: "out/{{ doc.relpath }}"
          text: "{{ steps.text.text }}{{ steps.vec.count }} {{ steps.say.usage.calls }}"
"""
# What a model says may differ in its last digit with who else is in its batch: not written here.
KINDS = ("run", "worker", "service", "prefect")
ROUND_DOCUMENTS = 8

Row = tuple[str, str, float]
"""A call: its hash, the run that made it, when."""


@dataclass
class Killing:
    """A folder with a pipeline, a state folder of its own, and the processes that belong to it."""

    folder: Path
    n_documents: int = 0
    calls: dict[str, Row] = field(default_factory=dict)
    """Every call that was ever seen finished."""
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def add_documents(self, n: int) -> None:
        """Lay more documents into the inbox."""
        for number in range(self.n_documents, self.n_documents + n):
            file = self.folder / f"inbox/{number}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"Document {number} tells of the ferry and of the weather at sea.\n")
        self.n_documents += n

    def start(self) -> subprocess.Popen[bytes]:
        unwanted = ("CI", "PREFECT_API_URL")
        environ = {name: value for name, value in os.environ.items() if name not in unwanted}
        environ |= {"PADDOCK_HOME": str(self.home), "PADDOCK_SERVICE_IDLE": "60"}
        environ |= {"PADDOCK_PREFECT": "on"}
        with (self.folder / "stdout").open("w") as out, (self.folder / "stderr").open("a") as err:
            run = subprocess.Popen(
                [sys.executable, "-c", CLI, "run", "--json", str(self.folder / "pipeline.yaml")],
                cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        self.runs.append(run)
        return run

    def stderr_text(self) -> str:
        """Return what all runs wrote to stderr."""
        return (self.folder / "stderr").read_text()

    def look(self) -> int:
        """See which calls are finished, that none was made again; gives how many there are."""
        file = self.folder / ".paddock/ledger.sqlite"
        if not file.exists():
            return 0
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as ledger:
            try:
                rows: list[Row] = ledger.execute("select hash, run, at from calls").fetchall()
            except sqlite3.OperationalError:  # its tables are just being made
                return 0
        for row in rows:
            assert self.calls.setdefault(row[0], row) == row, "a finished call was made again"
        assert len(rows) == len(self.calls), "a finished call was lost"
        return len(rows)

    def service(self) -> psutil.Process | None:
        """Return the service's process."""
        for file in (self.home / "residence").glob("*.json"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                process = psutil.Process(json.loads(file.read_text())["pid"])
                if "paddock.runner.daemon.daemon_main" in process.cmdline():
                    return process
        return None

    def victims(self, kind: str) -> list[psutil.Process]:
        """Return the processes of a kind that there are now."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            if kind == "prefect":
                record = json.loads((self.home / "residence/prefect.server").read_text())
                return [psutil.Process(record["pid"])]
            service = self.service()
            if service is not None:
                return [service] if kind == "service" else service.children()
        return []

    def end(self) -> None:
        """Kill what is left of the runs, the service and of all below it."""
        for run in self.runs:
            run.kill()
            run.wait()
        service, host = self.service(), end_keeper(self.home)
        if service is not None:
            with contextlib.suppress(psutil.Error):
                for process in (*service.children(recursive=True), service):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
        if host is not None:
            with contextlib.suppress(psutil.Error):
                psutil.Process(host).wait(PATIENCE_S)


@pytest.fixture
def killing(tmp_path: Path) -> Iterator[Killing]:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    tiny.llama(tmp_path / "noise.gguf")
    killing = Killing(tmp_path)
    seed(killing.home / "prefect")
    yield killing
    killing.end()


@pytest.mark.parametrize("seed", [11])
def test_after_any_kills_and_only_restarts_all_is_done_and_nothing_twice(
    killing: Killing, seed: int
) -> None:
    dice = random.Random(seed)
    kinds = [*KINDS, "all"]
    dice.shuffle(kinds)
    killed = []
    process = None
    while missing := [kind for kind in kinds if kind not in killed]:  # a run may be over first
        kind = missing[0]
        killing.add_documents(ROUND_DOCUMENTS)
        if process is None or process.poll() is not None:
            process = killing.start()
        before = killing.look()
        while killing.look() == before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.8))
        if process.poll() is not None:
            continue
        run = psutil.Process(process.pid)
        if kind == "all":  # as when the current is cut
            victims = [run, *(victim for other in KINDS[1:] for victim in killing.victims(other))]
            dice.shuffle(victims)
        else:
            victims = [run] if kind == "run" else killing.victims(kind)
            while not victims and process.poll() is None:  # it is being started again
                time.sleep(0.02)
                victims = killing.victims(kind)
            victims = dice.sample(victims, min(1, len(victims)))
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(kind)
        if run in victims:
            process.wait(timeout=PATIENCE_S)
        killing.look()
    assert process is not None
    if process.poll() is None:
        # Whatever else was killed under it, a run that was not goes on by itself.
        assert process.wait(timeout=PATIENCE_S) == 0, killing.stderr_text()
    assert killing.start().wait(timeout=PATIENCE_S) == 0, killing.stderr_text()
    killing.look()
    outputs = {path.name: path.read_text() for path in (killing.folder / "out").iterdir()}
    assert outputs == {
        f"{number}.txt": f"Document {number} tells of the ferry and of the weather at sea.\n1 1"
        for number in range(killing.n_documents)
    }
    assert len(killing.calls) == 2 * killing.n_documents
    report = json.loads((killing.folder / "stdout").read_text())
    assert report["status"] == "completed"
    assert sum(report["counts"].values()) == killing.n_documents
