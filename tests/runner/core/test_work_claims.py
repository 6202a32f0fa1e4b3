"""Several machines, here processes, work on one run: all is done, nothing twice, same results."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import WorkerLost
from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec, Reply
from paddock.runner.api import run_until_end
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.events import Observer
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.settings import UnattendedSettings
from tests.fakes.pool import FakePool, echo
from tests.forked import Forked, ForkServer
from tests.runner.core.test_subpipelines import CLEAN, OUTER
from tests.runner.world import SUMMARIES, World, run_arguments, settings

N_DOCUMENTS = 24
WAIT_S = 120.0
PATIENT = SUMMARIES.replace("for_each: doc", "max_parallel: 2\n    for_each: doc")


class Pool(FakePool):
    """Writes every request to the folder's `calls`."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        super().__init__(answer=self._answer, delay_s=options["delay_s"])
        self._folder, self._options = folder, options
        self._n_alone = options.get("alone", 0)  # calls that end without waiting for anything
        self._calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _answer(self, request: ChatRequest) -> str:
        text = request.messages[-1].content
        os.write(self._calls, (" ".join(text.split()[:4]) + "\n").encode())
        if self._options.get("dies", "nothing") in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._options.get("fails", "nothing") in text:
            raise WorkerLost("m", "it was lost")
        return echo(request)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        found = await super().facts(model)
        return replace(found, digest=self._options.get("digest") or found.digest)

    async def _reply(self, request: ChatRequest) -> Reply:
        self._n_alone -= 1
        if self._n_alone < 0:
            (self._folder / f"asks {os.getpid()} {id(request)}").touch()
            while (  # noqa: ASYNC110 - of other processes
                self.n_running_most < self._options.get("together", 0)
                or not (self._folder / self._options.get("until", "go")).exists()
            ):
                await asyncio.sleep(0.02)
        return await super()._reply(request)


class Notes(Observer):
    def note(self, text: str) -> None:
        print("note:", text, flush=True)


def participate(folder: Path, url: str, options: dict[str, Any]) -> int:
    """Work on the run of a folder, in a process of its own."""
    dead_after = UnattendedSettings(dead_after_s=options.get("dead_after_s", 30.0))
    own = replace(settings(folder), ledger_url=url, unattended=dead_after)
    print("ready", flush=True)
    while not (folder / options.get("go", "go")).exists():
        time.sleep(0.02)
    pool = Pool(folder, options)
    around = {"pool": pool, "observer": Notes(), "settings": own, "local": True}
    report = run_until_end(
        folder / "pipeline.yaml", options.get("inputs"), *run_arguments(**around)
    )
    outcome = report.as_json() | {"n_running_most": pool.n_running_most}
    print(json.dumps(outcome), flush=True)
    return report.exit_status()


class Machines:
    """Processes that work on one world."""

    def __init__(self, world: World, url: str, server: ForkServer) -> None:
        self.world = world
        self.url = url
        self.running: list[Forked] = []
        self._server = server

    def start(self, delay_s: float = 0.1, **options: Any) -> Forked:
        given = {"delay_s": delay_s, **options}
        process = self._server.start(participate, self.world.folder, self.url, given)
        self.running.append(process)
        return process

    def go(self, *processes: Forked) -> None:
        """Begin in all processes that have started up, at the same moment."""
        self.ready(*processes)
        (self.world.folder / "go").touch()

    def go_together(self, *processes: Forked) -> None:
        """Begin in all; no call that waits for the file `together` ends before each has one."""
        self.go(*processes)
        self.until(lambda: {process.pid for process in processes} <= set(self.asking()))
        (self.world.folder / "together").touch()

    def work_together(self, n: int, **options: Any) -> list[dict[str, Any]]:
        """Have so many do the run at once; return what each reports."""
        processes = [self.start(until="together", **options) for _ in range(n)]
        self.go_together(*processes)
        return [self.report(process) for process in processes]

    def ready(self, *processes: Forked) -> None:
        """Wait until processes have started up."""
        for process in processes:
            self.until(lambda process=process: process.said().startswith("ready\n"))  # type: ignore[misc]

    def report(self, process: Forked) -> dict[str, Any]:
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode in (0, 1, 2, 3, 4, 130), err
        assert out, err
        self.running.remove(process)
        return dict(json.loads(out.splitlines()[-1]))

    def calls(self) -> list[str]:
        file = self.world.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def asking(self) -> list[int]:
        """Return the process of each call that came to where it waits."""
        return [int(file.name.split()[1]) for file in self.world.folder.glob("asks *")]

    def ledger(self) -> Ledger:
        return Ledger(self.world.folder / ".paddock", url=self.url)

    def n_running(self) -> int:
        """Return how many runs have begun and not ended."""
        with self.ledger() as ledger:
            return sum(run.status == "running" for run in RunStore(ledger).runs())

    def n_begun(self) -> int:
        """Return how many items are noted as in flight."""
        with self.ledger() as ledger:
            return int(ledger.rows("select count(*) from attempts")[0][0])

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline
            for process in self.running:
                assert process.poll() is None, process.communicate()
            time.sleep(0.02)


@pytest.fixture
def machines(tmp_path: Path, url: str, fork_server: ForkServer) -> Any:
    world = World(tmp_path / "shared folder", PATIENT, n_documents=N_DOCUMENTS)
    made = Machines(world, url, fork_server)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def undisturbed(tmp_path: Path) -> World:
    """Return what one machine makes of the same documents."""
    world = World(tmp_path / "alone", PATIENT, n_documents=N_DOCUMENTS)
    world.run()
    return world


def outputs(world: World) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((world.folder / "out").iterdir())}


def test_three_machines_do_all_once_and_tell_the_same(machines: Machines, tmp_path: Path) -> None:
    reports = machines.work_together(3)
    assert Counter(machines.calls()).most_common(1)[0][1] == 1
    assert len(machines.calls()) == N_DOCUMENTS + 1
    assert [report["status"] for report in reports] == ["completed"] * 3
    assert sum(report["calls"] for report in reports) == N_DOCUMENTS + 1
    assert min(report["calls"] for report in reports) > 0
    assert [report["counts"] for report in reports] == [reports[0]["counts"]] * 3
    assert [report["returns"] for report in reports] == [reports[0]["returns"]] * 3
    assert outputs(machines.world) == outputs(undisturbed(tmp_path))
    with machines.ledger() as ledger:
        runs = RunStore(ledger).runs()
        assert len(runs) == 3 and len({run.parent for run in runs if run.parent}) == 1
    again = machines.report(machines.start())
    assert again["calls"] == 0 and len(machines.calls()) == N_DOCUMENTS + 1


def test_the_items_of_a_pipeline_that_a_step_runs_are_shared_as_well(machines: Machines) -> None:
    machines.world.write("parts/clean.yaml", CLEAN)
    machines.world.write("pipeline.yaml", OUTER)
    reports = machines.work_together(2)
    assert len(machines.calls()) == len(set(machines.calls())) == N_DOCUMENTS + 1
    assert [report["status"] for report in reports] == ["completed"] * 2
    assert min(report["calls"] for report in reports) > 0
    assert reports[0]["returns"] == reports[1]["returns"]
    assert reports[0]["returns"]["n"] == N_DOCUMENTS


def test_machines_ask_once_what_a_person_decides_and_continue_it_once(machines: Machines) -> None:
    text = PATIENT.replace('{{ inputs.tone }})"}}', '{{ inputs.tone }})"}, review: {}}')
    machines.world.write("pipeline.yaml", text)
    reports = machines.work_together(2)
    assert [report["counts"]["waiting"] for report in reports] == [N_DOCUMENTS] * 2
    with machines.ledger() as ledger:
        reviews = LedgerReviews(ledger)
        waiting = reviews.waiting()
        assert len(waiting) == N_DOCUMENTS
        for review in waiting[1:]:
            reviews.decide(review.id, review.question, "accept", by="ann")
    (machines.world.folder / "go").unlink()
    both = [machines.start(until="digest") for _ in range(2)]
    machines.go(*both)
    machines.until(lambda: machines.n_running() == 2)
    (machines.world.folder / "digest").touch()
    reports = [machines.report(process) for process in both]
    for report in reports:
        assert (report["counts"]["new"], report["counts"]["waiting"]) == (N_DOCUMENTS - 1, 1)
    n_digests = 2  # of no summary, and of all but one
    assert len(machines.calls()) == N_DOCUMENTS + n_digests
    assert len(outputs(machines.world)) == N_DOCUMENTS - 1 + 1


def test_what_a_killed_machine_had_in_flight_is_taken_over_together(machines: Machines) -> None:
    machines.world.edit("max_parallel: 2", "max_parallel: 18")
    doomed = machines.start(delay_s=60.0, dead_after_s=2.0)
    machines.go(doomed)
    machines.until(lambda: machines.n_begun() == 18)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate(timeout=WAIT_S)
    machines.running.remove(doomed)
    time.sleep(2.5)  # a machine that may still live gets its share: 12 would be the most
    # First come the 6 that no machine had begun; no other call ends before 18 are under way.
    options: dict[str, Any] = {"delay_s": 0.0, "dead_after_s": 2.0}
    report = machines.report(machines.start(**options, alone=N_DOCUMENTS - 18, together=18))
    assert report["status"] == "completed"
    assert report["n_running_most"] == 18
    assert max(Counter(machines.calls()).values()) == 1


def test_a_document_that_kills_every_machine_is_quarantined_and_the_others_are_done(
    machines: Machines,
) -> None:
    options: dict[str, Any] = {"delay_s": 0.02, "dead_after_s": 1.5, "dies": "Document 7,"}
    (machines.world.folder / "go").touch()
    for _ in range(4):  # two are in flight
        doomed = machines.start(**options)
        doomed.communicate(timeout=WAIT_S)
        assert doomed.returncode == -signal.SIGKILL
        machines.running.remove(doomed)
    report = machines.report(machines.start(**options))
    assert report["status"] == "quarantined"
    bad = [item for item in report["items"] if item["state"] == "quarantined"]
    assert [item["key"] for item in bad] == ["7.txt"]
    assert bad[0]["error"].startswith("the run's process died 4 times while it worked on this")
    assert len(outputs(machines.world)) == N_DOCUMENTS  # and the digest
    assert Counter(machines.calls())["Sum up: Document 7,"] == 4


def test_a_machine_that_is_stopped_lets_its_items_go_at_once(machines: Machines) -> None:
    leaving = machines.start(delay_s=WAIT_S)
    other = machines.start(delay_s=0.02, dead_after_s=600.0, go="go other")
    machines.ready(other)
    machines.go(leaving)
    machines.until(lambda: machines.n_begun() == 2)
    (machines.world.folder / "go other").touch()
    machines.until(lambda: machines.calls() != [])
    leaving.send_signal(signal.SIGINT)
    assert machines.report(leaving)["status"] == "interrupted"
    report = machines.report(other)
    assert report["status"] == "completed", report
    assert report["counts"]["new"] + report["counts"]["fresh"] == N_DOCUMENTS + 1


def test_a_machine_that_slept_writes_nothing_of_what_another_has_taken_over(
    machines: Machines, tmp_path: Path
) -> None:
    machines.world.edit("{id: sum, uses: chat,", "{id: sum, uses: chat, cache: off,")
    sleeper = machines.start(dead_after_s=2.0, until="awake")
    machines.go(sleeper)
    machines.until(lambda: len(machines.asking()) == 2)  # neither item is about to be written
    sleeper.send_signal(signal.SIGSTOP)
    report = machines.report(machines.start(delay_s=0.0, dead_after_s=2.0))
    assert report["status"] == "completed"
    written = {path: path.stat().st_mtime_ns for path in (machines.world.folder / "out").iterdir()}
    (machines.world.folder / "awake").touch()
    sleeper.send_signal(signal.SIGCONT)
    assert machines.report(sleeper)["status"] == "completed"
    # Of what it held it begins nothing more: only what was in flight was done twice.
    assert len(machines.calls()) <= N_DOCUMENTS + 1 + 2
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert outputs(machines.world) == outputs(undisturbed(tmp_path))


def test_a_machine_with_another_model_under_the_same_name_undoes_nothing_and_says_so(
    machines: Machines,
) -> None:
    first = machines.start(delay_s=0.5, until="together")
    other = machines.start(delay_s=0.5, until="together", digest="f" * 64)
    machines.go_together(first, other)
    ended, refused = sorted(
        (machines.report(process) for process in (first, other)),
        key=lambda report: report["status"],
    )
    assert (ended["status"], refused["status"]) == ("completed", "failed")
    assert refused["message"].startswith("'")
    assert refused["message"].endswith(
        f" was done in this run by another machine (run '{ended['run']}'), and this one would do "
        f"it again: model changed (step 'sum'). Each would undo what the other did. Give both the "
        f"same model files and the same Paddock; what is done stays done."
    )
    # What the other did before they met is done again, once.
    assert len(machines.calls()) == N_DOCUMENTS + 1 + refused["calls"] < 2 * N_DOCUMENTS
