"""Proof: `paddock up` has workers do its runs; whatever is killed, all is done, and known to be.

    python -m tests.cluster.unattended [--documents N]

A watched folder, a hot folder and webhooks; real PostgreSQL, Prefect on it, workers with state
folders of their own. In the middle of the work: `kill -9` of a worker with all its processes, of
`paddock up` alone, of `paddock up` with all its processes, and SIGTERM to it.
"""

import argparse
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import psycopg

from paddock.runner.workers.flow_order import order_of
from tests.benchmarks.processes import free_port
from tests.cluster.three_workers import (
    AUTH,
    PIPELINE,
    Cluster,
    Counting,
    Process,
    cluster,
    kill_all,
    until,
)

BOOKED_S = 10.0
ON = """\
on:
  watch: [{path: ./inbox, settle: 200ms, batch: 500ms%s}]
  webhook: [{path: /%s}]
"""
LETTERS, HOT = "letters", "post"


@dataclass
class Desk:
    """`paddock up` for the shared folder, on a machine of its own."""

    made: Cluster
    models: Counting
    port: int = 0
    process: Process | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    """Text of a document → path below the shared folder of what comes of it."""
    in_flight: set[str] = field(default_factory=set)
    """What was being answered at a kill, and may be asked for twice."""
    wrong: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Write the pipelines: one that watches its inbox, one with a hot folder."""
        (self.made.shared / "pipeline.yaml").unlink()
        watched = PIPELINE.replace("URL", self.models.url)
        hot = watched.replace("{root: ./inbox}", "{root: ./inbox/processing}")
        for name, more, steps in ((LETTERS, "", watched), (HOT, ", claim: move", hot)):
            folder = self.made.shared / name
            (folder / "inbox").mkdir(parents=True)
            text = steps.replace("name: letters\n", f"name: {name}\n{ON % (more, name)}")
            (folder / "pipeline.yaml").write_text(text)

    def start(self) -> None:
        """Start `paddock up`, and wait until it is ready."""
        if not self.port:
            self.port = free_port()
        self.process = self.made.paddock(
            "up", str(self.made.shared), "--listen", f"127.0.0.1:{self.port}", state="up"
        )
        self.until(self._is_ready, "ready")

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.get("/readyz").get("ready") is True
        return False

    def get(self, path: str = "/status") -> dict[str, Any]:
        """Ask it how it is."""
        return dict(httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20).json())

    def running(self) -> list[str]:
        """Return the names of the runs at work, as it tells them."""
        return [one["run"] for one in self.get()["running"]]

    def is_idle(self) -> bool:
        """Return whether nothing is at work any more; notes what is being answered meanwhile."""
        self.in_flight |= self.models.in_flight()
        return not self.running()

    def call(self, name: str) -> None:
        """Call a webhook."""
        url = f"http://127.0.0.1:{self.port}/{name}"
        httpx.post(url, json={}, timeout=20).raise_for_status()

    def drop(self, pipeline: str, n: int) -> None:
        """Put documents into an inbox."""
        first = len(self.dropped)
        for number in range(first, first + n):
            name, text = f"{number:04}.txt", f"Letter {number:04}."
            (self.made.shared / pipeline / "inbox" / name).write_text(text)
            self.dropped[text] = f"{pipeline}/out/{name}"

    def at_work(self, n_more: int = 3) -> None:
        """Wait until so many more answers have been asked for."""
        target = len(self.models.asked) + n_more
        self.until(lambda: len(self.models.asked) >= target, "at work")

    def until(self, holds: Any, what: str) -> None:
        """Wait for something."""
        until(holds, what, self.made.home / "up.log")

    def settled(self, what: str) -> None:
        """Wait until nothing is at work or waits, and look whether all is done and known."""
        self.until(self._is_quiet, what)
        lacking = [text for text, path in self.dropped.items() if not self._is_done(text, path)]
        n_letters = sum(path.startswith(LETTERS) for path in self.dropped.values())
        # A file counts as done before its row in the book is committed, which no run waits for.
        # A kill in between costs a look and a run with nothing to do.
        patience = time.monotonic() + BOOKED_S
        while (booked := self.booked()) != n_letters and time.monotonic() < patience:
            time.sleep(0.2)
        if lacking or booked != n_letters:
            self.wrong.append(f"{what}: lacking {lacking}, {booked} of {n_letters} in the book")

    def _is_done(self, text: str, path: str) -> bool:
        file = self.made.shared / path
        return file.exists() and file.read_text() == f"About: {text}"

    def _is_quiet(self) -> bool:
        told = self.get()
        watches = [watch for one in told["pipelines"] for watch in one["watches"]]
        counts = ("out", "settling", "settled", "held_back")
        if not all("out" in watch for watch in watches):  # it has only just been started
            return False
        n_open = sum(watch[what] for watch in watches for what in counts)
        n_files = sum(watch["done"] for watch in watches if not watch["is_hot"])
        n_letters = sum(path.startswith(LETTERS) for path in self.dropped.values())
        return not (told["running"] or told["queue"] or n_open) and n_files == n_letters

    def booked(self) -> int:
        """Count the letters that the watch's book, in the ledger, has as seen through."""
        return len(self.rows("select distinct path from {}.watched where path <> '' and size >= 0"))

    def busy(self) -> str:
        """Name a machine that has claimed something."""
        holders = {
            row[0]
            for row in self.rows("select h.pid from {0}.claims join {0}.holders h using (holder)")
        }
        for name, process in self.made.machines.items():
            children = psutil.Process(process.pid).children(recursive=True)
            if holders & {child.pid for child in children}:
                return name
        return next(iter(self.made.machines))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the ledger of every pipeline."""
        with psycopg.connect(self.made.environment["PADDOCK_LEDGER"]) as connection:
            schemas = connection.execute(
                "select schemaname from pg_tables where tablename = 'watched'"
            ).fetchall()
            found = []
            for (schema,) in schemas:
                found += connection.execute(query.format(f'"{schema}"').encode()).fetchall()
        return found


def prove(n: int, *, delay_s: float = 0.5, say: Any = print) -> list[str]:
    """Do the whole of it; gives what was wrong."""
    models = Counting(delay_s)
    with models.serving(), cluster(0, models.url) as made:
        desk = Desk(made, models)
        desk.write()
        try:
            desk.start()
            _joined(desk, say)
            _killed_machine(desk, n, say)
            made.join("machine3")
            _killed_up(desk, n, say)
            _ended_up(desk, n, say)
            _cancelled(desk, n, say)
            _hot(desk, say)
            _looked_at(desk, say)
        finally:
            if desk.process is not None and desk.process.poll() is None:
                kill_all(desk.process)
            say(made.log("up"))
        return desk.wrong


def _joined(desk: Desk, say: Any) -> None:
    """Something is to be done before there is a machine: it waits, and says for what."""
    desk.drop(LETTERS, 2)
    pool = desk.made.environment["PADDOCK_WORK_POOL"]
    nobody = f"no worker of '{pool}' is online; waiting for one"
    desk.until(lambda: [one.get("waits_for") for one in desk.get()["queue"]] == [nobody], "waits")
    for name in ("machine1", "machine2"):
        desk.made.join(name)
    desk.settled("machines came")
    say("machines came")


def _killed_machine(desk: Desk, n: int, say: Any) -> None:
    """A machine is killed with all its processes, while more comes and a webhook is called."""
    desk.drop(LETTERS, n)
    desk.at_work()
    desk.drop(LETTERS, n)
    desk.call(LETTERS)
    desk.in_flight |= desk.models.in_flight()
    name = desk.busy()
    n_killed = desk.made.kill(name)
    desk.in_flight |= desk.models.in_flight()
    say(f"killed {name} with {n_killed} processes; at work: {desk.running()}")
    if not all(desk.running()):
        desk.wrong.append("a run at work has no name in /status")
    desk.settled("a machine was killed")


def _killed_up(desk: Desk, n: int, say: Any) -> None:
    """`up` is killed, first alone, then with all its processes."""
    for is_whole in (False, True):
        desk.drop(LETTERS, n)
        desk.at_work()
        assert desk.process is not None
        if is_whole:
            say(f"killed up with {kill_all(desk.process)} processes")
        else:
            desk.process.send_signal(signal.SIGKILL)
            say(f"killed up alone: {desk.process.wait(30)}")
            desk.drop(LETTERS, n)
        desk.start()
        desk.settled("`up` was killed")


def _ended_up(desk: Desk, n: int, say: Any) -> None:
    """`up` is ended in order; what the machines do goes on."""
    desk.drop(LETTERS, n)
    desk.at_work()
    assert desk.process is not None
    desk.process.terminate()
    say(f"ended up: {desk.process.wait(90)}")
    desk.start()
    desk.settled("`up` was ended")


def _cancelled(desk: Desk, n: int, say: Any) -> None:
    """Someone cancels a run in Prefect: the machines stop, and the watch tries again."""
    desk.drop(LETTERS, n)
    desk.at_work()
    (job,) = desk.get()["running"]
    api = desk.made.environment["PREFECT_API_URL"]
    state = {"state": {"type": "CANCELLING"}, "force": False}
    url = f"{api}/flow_runs/{job['flow_run']}/set_state"
    httpx.post(url, json=state, timeout=30, auth=AUTH).raise_for_status()
    # The machines hear of it one after the other, some seconds later: until then they go on.
    desk.until(desk.is_idle, "cancelled")
    said = httpx.get(f"{api}/flow_runs/{job['flow_run']}", timeout=30, auth=AUTH).json()["state"]
    say(f"cancelled: {said['name']}: {said['message']}")
    desk.settled("a run was cancelled")


def _hot(desk: Desk, say: Any) -> None:
    """A hot folder with a document that no one can read."""
    inbox = desk.made.shared / HOT / "inbox"
    (inbox / "broken.pdf").write_bytes(b"%PDF-1.7 not one")
    desk.drop(HOT, 3)
    desk.until(lambda: len(list((inbox / "done").glob("*.txt"))) == 3, "hot folder")
    desk.settled("hot folder")
    if not (inbox / "failed" / "broken.pdf").exists():
        desk.wrong.append(f"broken.pdf: {sorted(map(str, inbox.rglob('broken*')))}")


def _looked_at(desk: Desk, say: Any) -> None:
    """Look at what was asked twice, at deployments and at flow runs."""
    twice = {text for text, times in Counter(desk.models.asked).items() if times > 1}
    say(f"asked {len(desk.models.asked)}, twice {len(twice)}")
    if twice - desk.in_flight:
        desk.wrong.append(f"asked twice: {sorted(twice - desk.in_flight)}")
    api = desk.made.environment["PREFECT_API_URL"]
    found = httpx.post(f"{api}/deployments/filter", json={}, timeout=30, auth=AUTH).json()
    names = sorted((one["tags"][0], one["name"].partition(" ")[0]) for one in found)
    if names != sorted(
        (tag, name) for tag in ("paddock", "paddock-share") for name in (LETTERS, HOT)
    ):
        desk.wrong.append(f"deployments: {names}")
    runs = httpx.post(f"{api}/flow_runs/filter", json={"limit": 200}, timeout=30, auth=AUTH).json()
    for run in sorted(runs, key=lambda one: str(one["created"])):
        state, facts = run["state"] or {}, order_of(run["parameters"])
        kept = {key: facts[key] for key in ("trigger", "share", "attempt") if facts.get(key)}
        how = f"{state.get('name')}: {state.get('message')}"
        say(f"{run['created'][11:19]} {run['name']}: {how} {kept}")


def main() -> int:
    """Prove it, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=16)
    given, began = parser.parse_args(), time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - began:6.1f} {words}", flush=True)

    wrong = prove(given.documents, say=say)
    for one in wrong:
        print("wrong:", one)
    print("NOT proved" if wrong else "proved")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
