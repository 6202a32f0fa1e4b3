"""A model's file that is replaced in the middle of a run: nothing is kept under the wrong key."""

import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from paddock.runner.progress.item_states import ItemState
from paddock.runner.settings import Settings
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, reasons, states

REPLACED = (
    "model 'smollm2:135m' was replaced while this run was at work with it. What it did with the "
    "old one is recorded; the same command goes on with the new one."
)


class Replaced(FakePool):
    """A pool whose model is another one from a certain answer on."""

    def __init__(self, at: int, before: str = "old", after: str = "new") -> None:
        super().__init__(answer=self._count)
        self._left = at
        self._before, self._after = before, after

    def _count(self, request: ChatRequest) -> str:
        self._left -= 1
        return echo(request)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        name = self._before if self._left > 0 else self._after
        facts = await super().facts(model)
        return replace(facts, digest=hashlib.sha256(name.encode()).hexdigest())


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


def test_a_file_of_weights_is_replaced_while_it_serves(tmp_path: Path) -> None:
    """With the real pool: the worker has the old file mapped, and the name stands for a new one."""
    old = (Path(str(files("paddock.examples"))) / "models/all-minilm-l6-v2.gguf").read_bytes()
    file = tmp_path / "model.gguf"
    file.write_bytes(old)

    class Swap(Observer):
        def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
            if state == "done" and key == "0.txt":
                aside = tmp_path / "aside.gguf"
                aside.write_bytes(old + b"\0" * 32)
                aside.replace(file)

    world = World(
        tmp_path,
        "models: {vec: {ref: model.gguf, role: embed}}\n"
        "steps:\n"
        "  - {id: docs, uses: files.scan, with: {root: ./inbox}}\n"
        "  - id: each\n"
        "    for_each: doc in steps.docs.files\n"
        "    max_parallel: 1\n"
        "    do:\n"
        "      - {id: text, uses: files.read, with: {path: '{{ doc.path }}'}}\n"
        "      - {uses: embed, with: {texts: ['{{ steps.text.text }}']}}\n",
        n_documents=3,
    )
    settings = Settings(pool=PoolSettings(cache_dir=tmp_path / "cache"), state_dir=tmp_path / "s")
    report = run(
        world.file,
        options=RunOptions(local=True),
        environment=RunEnvironment(settings=settings, observer=Swap()),
    )
    assert report.status == "failed"
    assert report.message == REPLACED.replace("smollm2:135m", str(file))
    assert states(report) == {"0.txt": "new"}
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        scopes = ledger.scopes_of("pipeline.yaml")
        assert {key for scope in scopes for key in ledger.entries(scope)} == {"0.txt"}
    again = run(
        world.file, options=RunOptions(local=True), environment=RunEnvironment(settings=settings)
    )
    assert (again.status, again.calls, again.cached_calls) == ("completed", 3, 0)
