"""Doctor notices a build of llama.cpp that crashes, and says what models go without."""

import signal
from pathlib import Path

import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.system.hardware import read_cpu
from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.fallbacks import (
    Fallback,
    FallbackStore,
    rebuild_command,
    sound_build_gain,
)
from paddock.runner.cli import doctor
from paddock.runner.cli.doctor import Finding
from paddock.runner.settings import Settings
from tests.fakes.crashing import With, crashing


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pool = PoolSettings(cache_dir=tmp_path / "cache", n_threads=1)
    return Settings(pool=pool, state_dir=tmp_path / "state")


def _tried(settings: Settings) -> list[Finding]:
    return list(doctor.kernel_findings(settings, read_cpu()))


def test_a_sound_build_is_content(settings: Settings) -> None:
    text = "llama.cpp computes trial models in every format"
    assert _tried(settings) == [Finding("kernels", "ok", text)]


@pytest.mark.parametrize(
    ("with_", "level", "text", "remedy"),
    [
        (
            "extra",
            "warning",
            "the process with trial models was killed by SIGILL; models run without extra buffer "
            "types",
            f"{sound_build_gain()}:\n",
        ),
        (
            "always",
            "fault",
            "the process with trial models was killed by SIGILL, also without extra buffer types "
            "and flash attention, with one thread: no model can run",
            "Build llama.cpp again:\n",
        ),
    ],
)
def test_a_broken_build_is_noticed_by_decoding(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_: With,
    level: str,
    text: str,
    remedy: str,
) -> None:
    for name, value in crashing(tmp_path, with_, signal.SIGILL).items():
        monkeypatch.setenv(name, value)
    (found,) = _tried(settings)
    assert (found.level, found.text, found.remedy) == (level, text, remedy + rebuild_command())


def test_what_a_model_goes_without_is_told_and_how_to_try_it_again(settings: Settings) -> None:
    book = FallbackStore(settings.pool.cache_dir)
    book.keep("ab" * 32, Fallback("small.gguf", 2, "killed by SIGSEGV while warming up"))
    _, found = _tried(settings)
    assert found == Finding(
        "kernels",
        "warning",
        "small.gguf runs without extra buffer types and flash attention: its worker was killed by "
        "SIGSEGV while warming up",
        f"The trial models work. To try models without a fallback again, remove {book.file}",
    )


def test_on_a_processor_with_amx_the_gain_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.engine.workers.fallbacks.has_amx", lambda: True)
    crash = WorkerEnd("killed by SIGSEGV", -11)
    monkeypatch.setattr(
        doctor, "_run_kernel_trial", lambda fallback, _: None if fallback else crash
    )
    (found,) = _tried(settings)
    assert found.remedy == (
        f"Prompts would be read about 4 times as fast by a sound build:\n{rebuild_command()}"
    )
