"""What one PostgreSQL carries: several participants on one folder, documents that cost nothing.

    python -m tests.benchmarks.cluster [--documents N] [--participants N]

Without a model all that is left is claims, entries, calls and files: so many documents a second the
database and the shared folder can take at most, and what a document costs the database's processor
and disk. Each document has one model call, answered at once by a pool inside the participant.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import psycopg

from tests.postgres import Postgres, postgres
from tests.runner.world import World

PIPELINE = """\
name: summaries
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
"""

RUN = """
import json, sys
from dataclasses import replace
from pathlib import Path
from paddock.runner import RunEnvironment, RunOptions, run
from tests.fakes.pool import FakePool
from tests.runner import world as worlds

folder, url = Path(sys.argv[1]), sys.argv[2]
settings = replace(worlds.settings(folder), ledger_url=url)
print("ready", flush=True)
sys.stdin.readline()
report = run(folder / "pipeline.yaml", None, RunOptions(local=True),
             RunEnvironment(pool=FakePool(), settings=settings))
print(json.dumps({"calls": report.calls, "seconds": report.seconds}), flush=True)
"""


def cpu_s(processes: Iterable[psutil.Process]) -> dict[int, float]:
    """Return the processor's time of each process that is there."""
    found = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        found[process.pid] = times.user + times.system + times.children_user + times.children_system
    return found


def of_server(server: Postgres) -> psutil.Process:
    """Return the database's first process, which counts the time of children that have ended."""
    pid = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    return psutil.Process(pid)


def size(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def measure(n_documents: int, n_participants: int) -> dict[str, float]:
    """Run it once, on a database and a folder of its own."""
    with postgres() as server, tempfile.TemporaryDirectory() as home:
        url = server.make("ledger")
        world = World(Path(home), PIPELINE)
        world.documents(n_documents)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RUN, home, url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(n_participants)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        empty = size(url)
        before = sum(cpu_s([of_server(server)]).values())
        began = time.monotonic()
        ended = [process.communicate("go\n")[0] for process in processes]
        seconds = time.monotonic() - began
        time.sleep(1)  # backends end a moment after their clients
        spent = sum(cpu_s([of_server(server)]).values()) - before
        calls = [json.loads(text.splitlines()[-1])["calls"] for text in ended]
        assert sum(calls) == n_documents, calls
        return {
            "documents a second": n_documents / seconds,
            "database's processor, ms a document": 1000 * spent / n_documents,
            "database's size, bytes a document": (size(url) - empty) / n_documents,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--participants", type=int, default=3)
    given = parser.parse_args()
    for n in range(1, given.participants + 1):
        print(f"participants: {n}")
        for name, value in measure(given.documents, n).items():
            print(f"  {name:<40}{value:>10.1f}")


if __name__ == "__main__":
    main()
