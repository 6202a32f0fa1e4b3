"""The benchmarks run: each command from end to end with our pool alone and tiny sizes.

What they measure is for a person to start; a benchmark that rots is worse than none.
"""

import doctest
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks import (
    arena,
    chat,
    device_rows,
    embed,
    harness,
    job,
    loads,
    overflow,
    raw,
    runner,
)
from tests.fakes.tiny import write_llm
from tests.waiting import PATIENCE_S

HERE = Path(__file__).resolve().parent
TINY = "--threads 1 --set profile_s=0"
FEW = f"--only paddock --documents 2 --answer-tokens 4 --words 40 {TINY}"
# Of no matter what it says: a load takes a sixth of the bundled model's, and each token less.
ANY = "--model {model}"


def test_the_runners_own_cost_is_told_first_again_and_with_one_edited(tmp_path: Path) -> None:
    runs = runner.three_runs(tmp_path, runner.run, 11)
    assert runner.row("Paddock", [runs, runs])[1:4] == [child.seconds for child in runs]


# Every command, from end to end

COMMANDS = {
    "job": (job, f"--rounds 1 --alone 1 {FEW} {ANY}", "| paddock |"),
    "job-forms": (
        job,
        f"--load b --rounds 1 --alone 1 {FEW.replace('-tokens 4', '-tokens 40')} {ANY}",
        "| paddock |",
    ),
    "chat": (
        chat,
        f"--rounds 1 --in-flight 2 --chat-tokens 3 --every-ms 3000 {FEW} {ANY}",
        "| paddock |",
    ),
    "embed": (embed, f"--only paddock --texts 12 --rounds 1 {TINY}", "| paddock |"),
    "overflow": (
        overflow,
        f"--only paddock --documents 5 --cells 2048 --answer-tokens 2 --words 20 {TINY} {ANY}",
        "| paddock | 5 of 5 |",
    ),
}


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PADDOCK_PEERS", str(tmp_path))
    yield


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model of some kilobytes which never ends its answer."""
    return write_llm(tmp_path_factory.mktemp("models") / "endless.gguf", "llama", {})


@pytest.mark.usefixtures("no_peers")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_measures_our_pool_and_prints_one_table(
    name: str, endless: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, options, wanted = COMMANDS[name]
    words = options.format(model=endless).split()
    monkeypatch.setattr(sys, "argv", [name, "--quick", *words])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(wanted) for line in lines), lines
    assert not any("failed" in line for line in lines), lines
    n_columns = {line.count("|") for line in lines if line.startswith("|")}
    assert len(n_columns) == 1, "one table"


def test_the_graphics_command_runs_on_a_processor(tmp_path: Path) -> None:
    options = (
        "--quick --layers 0 --threads 1 --parts raw,rooms --sequences 2 --prompt-tokens 32 "
        "--answer-tokens 4 --set profile_s=0"
    )
    done = subprocess.run(
        [sys.executable, str(HERE / "gpu.py"), *options.split()],
        text=True,
        capture_output=True,
        timeout=PATIENCE_S,
        env={**os.environ, "PADDOCK_PEERS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "supports gpu False" in done.stdout or "supports gpu True" in done.stdout
    assert "| decode, 2 sequences, tokens/s |" in done.stdout
    assert "| placed | all " in done.stdout


# Parts


@pytest.mark.parametrize(
    "module", [arena, device_rows, embed, harness, job, loads, raw], ids=lambda one: one.__name__
)
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
