"""A run on a machine whose llama.cpp crashes: told once, and never held against a document."""

from pathlib import Path

import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.workers.fallbacks import rebuild_command, sound_build_gain
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from paddock.runner.settings import Settings
from tests.fakes.crashing import crashing
from tests.runner.world import World, states

PIPELINE = """\
models: {vec: {ref: all-minilm, role: embed}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: '{{ doc.path }}'}}
      - {uses: embed, with: {texts: ['{{ steps.text.text }}']}}
"""


class Notes(Observer):
    """Keeps what is told to a person."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pool = PoolSettings(cache_dir=tmp_path / "cache", n_threads=1, profile_s=0)
    return Settings(pool=pool, state_dir=tmp_path / "state")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, PIPELINE, n_documents=3)


def _breaks(patch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        patch.setenv(name, value)


def test_a_run_without_extra_buffers_says_so_once_with_the_way_out(
    world: World, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _breaks(monkeypatch, crashing(tmp_path, "extra"))
    observer = Notes()
    report = run(
        world.file,
        options=RunOptions(local=True),
        environment=RunEnvironment(settings=settings, observer=observer),
    )
    assert (report.status, report.calls) == ("completed", 3)
    assert observer.notes == [
        "all-minilm runs without extra buffer types, because its worker was killed by SIGSEGV "
        f"while warming up. {sound_build_gain()}: {rebuild_command()}"
    ]
    assert list(report.notes) == observer.notes


def test_a_model_that_cannot_work_ends_the_run_once_and_every_document_stays_as_it_was(
    world: World, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _breaks(monkeypatch, crashing(tmp_path, "always"))
    report = run(
        world.file, options=RunOptions(local=True), environment=RunEnvironment(settings=settings)
    )
    assert (report.status, report.exit_status("new")) == ("failed", 1)
    assert str(report.message).startswith(
        "model 'all-minilm' cannot be used on this machine: its worker was killed by SIGSEGV "
        "while warming up, also without extra buffer types and flash attention"
    )
    assert str(report.message).count("SIGSEGV") == 1
    assert states(report) == {}, "nothing is counted as new, failed or quarantined"
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        scopes = ledger.scopes_of("pipeline.yaml")
        assert [key for scope in scopes for key in ledger.entries(scope)] == []
    monkeypatch.delenv("LD_PRELOAD")
    again = run(
        world.file, options=RunOptions(local=True), environment=RunEnvironment(settings=settings)
    )
    assert (again.status, states(again)) == ("completed", {f"{n}.txt": "new" for n in range(3)})
