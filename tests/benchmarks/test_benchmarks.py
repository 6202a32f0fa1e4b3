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
    contenders,
    device_rows,
    embed,
    harness,
    job,
    loads,
    overflow,
    raw,
    runner,
)
from tests.benchmarks.arena import Contest, Failed
from tests.benchmarks.harness import NOTHING, medians
from tests.benchmarks.loads import Ask
from tests.benchmarks.setup import Said
from tests.fakes.tiny import write_llm

HERE = Path(__file__).resolve().parent
TINY = "--threads 1 --set profile_s=0"
FEW = f"--only paddock --documents 2 --answer-tokens 4 --words 40 {TINY}"
# Of no matter what it says: a load takes a sixth of the bundled model's, and each token less.
ANY = "--model {model}"


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str, seconds: float) -> float:
        turns.append(name)
        return seconds

    found = medians(
        {"a": lambda number: contender("a", number), "b": lambda _: contender("b", 7.0)}, 3
    )
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": 1, "b": 7.0}


def test_the_runners_own_cost_is_told_first_again_and_with_one_edited(tmp_path: Path) -> None:
    runs = runner.three_runs(tmp_path, runner.run, 11)
    assert runner.row("Paddock", [runs, runs])[1:4] == [child.seconds for child in runs]


# Every command, from end to end

COMMANDS = {
    "job": (job, f"--rounds 1 --alone 1 {FEW} {ANY}", "| paddock |"),
    "job-forms": (
        job,
        f"--load b --rounds 1 --alone 1 {FEW.replace('-tokens 4', '-tokens 40')}",
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
        timeout=200,
        env={**os.environ, "PADDOCK_PEERS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "supports gpu False" in done.stdout or "supports gpu True" in done.stdout
    assert "| decode, 2 sequences, tokens/s |" in done.stdout
    assert "| placed | all " in done.stdout


def test_the_graphics_command_finds_the_house_where_nothing_is_installed() -> None:
    code = (
        "import sys; sys.path = [path for path in sys.path if '__editable__' not in path]; "
        f"sys.path.insert(0, {str(HERE)!r}); import gpu; gpu.make_importable(); "
        "import paddock.engine.backends.local; print(paddock.engine.backends.local.__file__)"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, env=env, check=True
    )
    found = Path(done.stdout.strip())
    assert found.parts[-4:] == ("paddock", "engine", "backends", "local.py")
    assert "__editable__" not in found.parts[-5]
    assert not found.exists(), "the links are gone again, and the clone is as it was"


# Parts


def test_the_job_is_compared_with_the_best_peer_and_failures_have_their_row() -> None:
    def turn(seconds: float, text: str) -> job.Turn:
        asks = [Ask("", "a document", 9)]
        return job.Turn(seconds, asks, [Said(text, 650, 50)], [text], 10**8)

    found: Contest[job.Turn] = Contest(
        {
            "paddock": [turn(2.0, "Yes.")],
            "slow": [turn(4.0, "Yes.")],
            "fast": [turn(1.0, "No.")],
            contenders.DEFAULTS.name: [turn(5.0, "Yes.")],
            "broken": [Failed("HTTP 500")],
        }
    )
    lines = job.report("a", found, [90.0]).replace(NOTHING, "-").splitlines()
    assert lines[2:] == [
        "| paddock | 30.0 | 30.0 to 30.0 | 0.50 | 2.50 | 650 | 50.0 | 100% | 100 |",
        "| slow | 15.0 | 15.0 to 15.0 | 0.25 | 1.25 | 650 | 50.0 | 100% | 100 |",
        "| fast | 60.0 | 60.0 to 60.0 | 1.00 | 5.00 | 650 | 50.0 | 0% | 100 |",
        "| llama-server defaults | 12.0 | 12.0 to 12.0 | 0.20 | 1.00 | 650 | 50.0 | 100% | 100 |",
        "| broken | failed (HTTP 500) | - | - | - | - | - | - | - |",
        "| llama-batched-bench (the limit) | 90.0 | 90.0 to 90.0 | 1.50 | 7.50 | - | - | - | - |",
    ]


def test_the_device_table_puts_ours_first_and_compares_in_the_right_direction() -> None:
    rows = [
        device_rows.Row("speed", {"other": 100.0, "paddock": 150.0}, True),
        device_rows.Row("wait", {"paddock": 150.0, "other": 300.0}, False),
        device_rows.Row("job: not done within 9 s", {}),
    ]
    assert device_rows.report(rows).replace(NOTHING, "-").splitlines() == [
        "|  | paddock | other | to the best peer |",
        "|---|--:|--:|--:|",
        "| speed | 150 | 100 | 1.50 |",
        "| wait | 150 | 300 | 2.00 |",
        "| job: not done within 9 s | - | - | - |",
    ]


@pytest.mark.parametrize(
    "module", [arena, device_rows, embed, harness, job, loads, raw], ids=lambda one: one.__name__
)
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
