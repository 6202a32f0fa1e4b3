"""A llama.cpp that crashes, a model that is replaced in a run: told once, no document's fault."""

import hashlib
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings
from tests.fakes.crashing import crashing
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, reasons, states

EMBEDS = """\
models: {vec: {ref: REF, role: embed}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 1
    do:
      - {id: text, uses: files.read, with: {path: '{{ doc.path }}'}}
      - {uses: embed, with: {texts: ['{{ steps.text.text }}']}}
"""


def embeds(folder: Path, ref: str = "all-minilm") -> World:
    return World(folder, EMBEDS.replace("REF", ref), n_documents=3)


def with_real_models(world: World, observer: Observer | None = None) -> Report:
    pool = PoolSettings(cache_dir=world.folder / "cache", n_threads=1, profile_s=0)
    own = Settings(pool=pool, state_dir=world.folder / "state")
    environment = RunEnvironment(settings=own, observer=observer or Observer())
    return run(world.file, options=RunOptions(local=True), environment=environment)


def keys(world: World) -> set[str]:
    """Return the items that the ledger has an entry of."""
    with world.ledger() as ledger:
        scopes = ledger.scopes_of("pipeline.yaml")
        return {key for scope in scopes for key in ledger.entries(scope)}


def breaks(patch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        patch.setenv(name, value)


def test_a_model_that_cannot_work_ends_the_run_once_and_every_document_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, crashing(tmp_path, "always"))
    world = embeds(tmp_path)
    report = with_real_models(world)
    assert (report.status, report.exit_status("new")) == ("failed", 1)
    assert str(report.message).startswith(
        "model 'all-minilm' cannot be used on this machine: its worker was killed by SIGSEGV "
        "while warming up, also without extra buffer types and flash attention"
    )
    assert str(report.message).count("SIGSEGV") == 1
    assert (states(report), keys(world)) == ({}, set()), "nothing is new, failed or quarantined"
    monkeypatch.delenv("LD_PRELOAD")
    again = with_real_models(world)
    assert (again.status, states(again)) == ("completed", {f"{n}.txt": "new" for n in range(3)})


REPLACED = (
    "model 'smollm2:135m' was replaced while this run was at work with it. What it did with the "
    "old one is recorded; the same command goes on with the new one."
)


class Replaced(FakePool):
    """A pool whose model is another one from a certain answer on."""

    def __init__(self, at: int) -> None:
        super().__init__(answer=self._count)
        self._left = at

    def _count(self, request: ChatRequest) -> str:
        self._left -= 1
        return echo(request)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        name = b"old" if self._left > 0 else b"new"
        return replace(await super().facts(model), digest=hashlib.sha256(name).hexdigest())


def test_the_run_stops_and_the_next_one_does_all_with_the_new_model(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=4)
    world.edit("    do:\n", "    max_parallel: 1\n    do:\n")
    report = world.run(pool=Replaced(at=3))
    assert (report.status, report.exit_status(), report.message) == ("failed", 1, REPLACED)
    assert states(report) == {"0.txt": "new", "1.txt": "new"}
    again = world.run(pool=Replaced(at=0))
    assert again.status == "completed"
    assert (again.calls, again.cached_calls) == (5, 0)  # no answer of the old model is reused
    assert reasons(again)["0.txt"] == "model changed (step 'sum')"
    assert states(again)["2.txt"] == "new"
