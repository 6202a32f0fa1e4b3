"""Where a person sees tuned copies, measured models and fallbacks."""

import json
from pathlib import Path

import pytest

from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.fallbacks import Fallback, FallbackStore, rebuild_command
from paddock.runner.cli import doctor, model_tables
from paddock.runner.cli.commands.model_commands import copy_notes
from paddock.runner.cli.doctor import Finding
from paddock.runner.settings import read_settings
from tests.engine.tuning.test_tuned_copies import copy_in
from tests.runner.cli.commands.shell import invoke

SUMMARY = "BF16, reads 4.1 and writes eight answers at once 2.0 times as fast, agrees in 95.4 %"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep copies and records out of the home of the person who runs the tests."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PADDOCK_NUM_THREAD", "1")
    return tmp_path


@pytest.fixture
def finder(home: Path) -> ModelFinder:
    return ModelFinder(home / "models", home / "cache")


def test_a_copy_and_why_there_is_none_are_shown(home: Path, finder: ModelFinder) -> None:
    digest = finder.find_original("smollm2:135m").digest
    pool = PoolSettings(models_dir=home / "models", cache_dir=home / "cache")
    finder.tuned.keep(copy_in(home, digest))
    rows = [row for row in model_tables.local_models(pool) if row.name == "smollm2:135m"]
    assert "tuned: BF16" in model_tables.model_table(rows)
    assert list(doctor.speed_findings(read_settings(home))) == [
        Finding("models", "ok", f"tuned copy of smollm2:135m: {SUMMARY}")
    ]
    assert json.loads(invoke("show", "smollm2:135m", "--json").stdout)["tuned"] == SUMMARY
    note = f"Tuned copy of smollm2:135m: {SUMMARY}"
    assert copy_notes(pool, [{"tuned_from": digest}, {"digest": "b" * 64}]) == [note]
    finder.tuned.refuse(digest, "it failed: killed by SIGILL")
    why = "none: it failed: killed by SIGILL"
    assert copy_notes(pool, [{"digest": digest}]) == [f"Tuned copy of smollm2:135m: {why}"]
    assert json.loads(invoke("show", "smollm2:135m", "--json").stdout)["tuned"] == why
    assert list(doctor.speed_findings(read_settings(home))) == []


def test_clean_removes_copies_of_models_that_are_gone(home: Path, finder: ModelFinder) -> None:
    gone = copy_in(home, "a" * 64)
    kept = copy_in(home, finder.find_original("smollm2:135m").digest, "f" * 64)
    finder.tuned.keep(gone)
    finder.tuned.keep(kept)
    assert json.loads(invoke("clean", str(home), "--json").stdout)["copies"] == ["smollm2:135m"]
    assert list(finder.tuned.all()) == [kept]
    assert not Path(gone.path).exists()


@pytest.mark.parametrize(
    ("has_amx", "gain"),
    [
        (True, "Prompts would be read about 4 times as fast by a sound build"),
        (False, "A sound build would be faster"),
    ],
)
def test_what_a_model_goes_without_is_said_and_how_to_try_it_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, has_amx: bool, gain: str
) -> None:
    monkeypatch.setattr("paddock.engine.workers.fallbacks.has_amx", lambda: has_amx)
    book = FallbackStore(home / "cache")
    book.keep("ab" * 32, Fallback("small.gguf", 2, "killed by SIGSEGV while warming up"))
    assert list(doctor.fallback_findings(read_settings(home))) == [
        Finding(
            "kernels",
            "warning",
            "small.gguf runs without extra buffer types and flash attention: its worker was "
            "killed by SIGSEGV while warming up",
            f"{gain}:\n{rebuild_command()}\n"
            f"To try models without a fallback again, remove {book.file}",
        )
    ]
