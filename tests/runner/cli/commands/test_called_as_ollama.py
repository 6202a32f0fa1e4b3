"""What users of Ollama type, and what a pipeline of a model's name does to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.engine.system.distribution import OLLAMA_API, own_version
from paddock.runner.cli.pipeline_or_model import translate_ollama_run
from tests.waiting import PATIENCE_S

PIPELINE = "name: x\nsteps:\n  - {id: hello, uses: prompt, with: {template: hello}}\n"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["run", "llama3.2:3b"], ["chat", "--no-pull", "llama3.2:3b"]),
        (["run", "llama3", "Why", "blue?"], ["chat", "--no-pull", "llama3", "Why", "blue?"]),
        (
            ["run", "--format", "json", "--verbose", "me/llama3:8b", "Hi"],
            ["chat", "--no-pull", "--format", "json", "--verbose", "me/llama3:8b", "Hi"],
        ),
        (["run", "--keepalive=5m", "x"], ["chat", "--no-pull", "--keepalive=5m", "x"]),
        (["run", "--nowordwrap", "x", "y"], ["chat", "--no-pull", "x", "y"]),
        (["run"], ["run"]),
        (["run", "--local"], ["run", "--local"]),
        (["run", "--allow", "run", "x"], ["run", "--allow", "run", "x"]),
        (["run", "missing.yaml"], ["run", "missing.yaml"]),
        (["run", "./missing"], ["run", "./missing"]),
        (["run", "here"], ["run", "here"]),
        (["run", "flat"], ["run", "flat"]),
        (["plan", "llama3"], ["plan", "llama3"]),
        ([], []),
    ],
)
def test_run_with_a_models_name_is_a_chat_unless_a_pipeline_has_the_name(
    given: list[str], meant: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "flat.yml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    assert translate_ollama_run("/usr/bin/paddock", given) == meant
    pulls = ["--pull" if word == "--no-pull" else word for word in meant]
    assert translate_ollama_run("/home/me/bin/ollama", given) == pulls


def called(program: Path, *given: str) -> subprocess.CompletedProcess[str]:
    home = program.parent / "home"
    environ = {**os.environ, "PADDOCK_HOME": str(home), "PADDOCK_HOST": "127.0.0.1:1"}
    return subprocess.run(
        [program, *given], env=environ, cwd=program.parent, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@pytest.fixture
def ollama(tmp_path: Path) -> Path:
    link = tmp_path / "ollama"
    link.symlink_to(Path(sys.executable).parent / "paddock")
    return link


def test_a_link_named_ollama_tells_the_version_of_the_api(ollama: Path) -> None:
    version = f"ollama version is {OLLAMA_API} (paddock {own_version()})\n"
    assert called(ollama, "-v").stdout == called(ollama, "--version").stdout == version


def test_list_takes_a_prefix(ollama: Path) -> None:
    lines = called(ollama, "list", "ALL").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "all-minilm:latest"]
    nothing = called(ollama, "list", "zzz")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert nothing.stderr == "No model's name begins with 'zzz'. `paddock list` shows all models.\n"
