"""What is remembered of crashes, and the line that gets a sound build."""

from pathlib import Path

import pytest

from paddock.engine.llama.build import LlamaBuild
from paddock.engine.workers import fallbacks
from paddock.engine.workers.fallbacks import Fallback, FallbackStore, rebuild_command, with_fallback
from paddock.engine.workers.worker_protocol import WorkerOptions

LOAD = WorkerOptions("x.gguf", "chat", 2048, 8192, 4, 512, n_threads=4, kv_cache_type="q8_0")
CRASH = "killed by SIGSEGV while warming up"


def test_each_fallback_gives_up_one_thing_more() -> None:
    given = [with_fallback(LOAD, number) for number in range(4)]
    assert [load.uses_extra_buffers for load in given] == [True, False, False, False]
    assert [load.flash_attention for load in given] == ["auto", "auto", "off", "off"]
    assert [load.n_threads for load in given] == [4, 4, 4, 1]
    assert [load.kv_cache_type for load in given] == ["q8_0", "q8_0", "f16", "f16"], (
        "llama.cpp makes no cache in q8_0 without flash attention"
    )


def test_extra_buffers_are_the_processors_matter_and_the_rest_a_models_own(tmp_path: Path) -> None:
    book = FallbackStore(tmp_path)
    assert book.find("ab" * 32) is None
    book.keep("ab" * 32, Fallback("a.gguf", 3, CRASH))
    own, other = book.find("ab" * 32), book.find("cd" * 32)
    assert own == Fallback("a.gguf", 3, CRASH)
    assert other == Fallback("a.gguf", 1, CRASH)
    assert FallbackStore(tmp_path, "NVIDIA H200").find("ab" * 32) is None, "another device"


@pytest.mark.parametrize(
    ("build", "is_clone", "line"),
    [
        (
            LlamaBuild("llama-cpp-python", Path("/none"), "0.3.36"),
            False,
            "CXXFLAGS=-fno-dse pip install --force-reinstall --no-cache-dir "
            "--no-binary llama-cpp-python llama-cpp-python",
        ),
        (
            LlamaBuild("llama-cpp-python", Path("/none"), "0.3.36"),
            True,
            "uv sync --no-cache --reinstall-package llama-cpp-python",
        ),
        (
            LlamaBuild("paddock-llama", Path("/none"), "0.3.36", version="0.3.36.post1"),
            False,
            "pip install --force-reinstall --no-cache-dir paddock-llama==0.3.36.post1",
        ),
    ],
)
def test_the_line_that_builds_it_again_uses_no_old_wheel(
    monkeypatch: pytest.MonkeyPatch, build: LlamaBuild, is_clone: bool, line: str
) -> None:
    monkeypatch.setattr(fallbacks, "find_build", lambda: build)
    monkeypatch.setattr(fallbacks, "is_clone", lambda: is_clone)
    assert rebuild_command() == line
