"""Completion as a person meets it: in real shells, by the Tab key."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paddock.runner.cli.application import application
from tests.fakes.gguf import write_gguf
from tests.runner.cli.commands.shell import PADDOCK
from tests.runner.cli.commands.shell import paddock as run_paddock
from tests.runner.cli.commands.terminal import CTRL_C, Terminal, terminal

STARTED = {
    "bash": (("--norc", "--noprofile", "-i"), 'eval "$(paddock completion bash)"'),
    "zsh": (("-f", "-i"), 'autoload -Uz compinit; compinit -D; eval "$(paddock completion zsh)"'),
    "fish": (("--no-config", "-i"), "paddock completion fish | source"),
}
# What is completed is asked of the real command; what is then typed is only shown.
STAND_IN = """#!/bin/sh
case "$_PADDOCK_COMPLETE$1" in ?*fish|completion) exec "{paddock}" "$@";; esac
printf 'GOT'; printf '[%s]' "$@"; echo .
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a pipeline, before a home whose store has a model."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "paddock"
    program.write_text(STAND_IN.format(paddock=PADDOCK))
    program.chmod(0o755)
    here = tmp_path / "here"
    here.mkdir()
    (here / "news.yaml").write_text("steps: []\n")
    return here


@contextmanager
def at_a_prompt(shell: str, folder: Path) -> Iterator[Terminal]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"NOT TRIED: {shell} is not installed")
    home = folder.parent
    environ = {
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PADDOCK_HOME": str(home / "home"),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PS1": "> ",
    }
    options, begin = STARTED[shell]
    with terminal(*options, environ=environ, cwd=folder, program=program) as screen:
        screen.rest()
        screen.type(f"{begin}; paddock ready\n")
        screen.wait_for("GOT[ready].")
        yield screen


@pytest.mark.parametrize("shell", STARTED)
def test_tab_completes_commands_options_values_models_and_files_and_lists_what_may_come(
    shell: str, folder: Path
) -> None:
    with at_a_prompt(shell, folder) as screen:
        for typed, got in (
            ("paddock run --retr\tnew\t", "GOT[run][--retry-failed][news.yaml]."),
            ("paddock summarise --how ext\t", "GOT[summarise][--how][extract]."),
            ("paddock chat smollm2:1\t", "GOT[chat][smollm2:135m]."),
            ("true | paddock ledg\tco\t", "GOT[ledger][copy]."),
        ):
            for key in typed:
                screen.type(key)
                if key == "\t":
                    screen.rest()
            screen.type("\n")
            screen.wait_for(got)
        screen.type("paddock summarise --how ")
        screen.type("\t\t")
        screen.wait_for("extract")
        screen.wait_for("write")
        screen.type(CTRL_C)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make a store with a model of one's own; return what names it to a command."""
    folder = tmp_path_factory.mktemp("store")
    model = write_gguf(folder / "tiny.gguf", axes={"token_embd.weight": (64, 8)})
    environ = {"PADDOCK_MODELS": str(folder / "models")}
    (folder / "Modelfile").write_text(f"FROM {model}\n")
    made = run_paddock("create", "smol:mine", environ=environ, cwd=folder)
    assert made.status == 0, made.err
    return environ


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[str]]:
    """Return what lists the completions of a line, in an empty folder and in this process."""

    def completions(line: str) -> list[str]:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        answer = CliRunner().invoke(application(line.split()[1]), prog_name="paddock")
        assert (answer.exit_code, answer.stderr) == (0, "")
        return answer.stdout.split("\n")[:-1]

    monkeypatch.setenv("_PADDOCK_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return completions


Complete = Callable[[str], list[str]]


def test_each_value_comes_with_what_it_is_for(complete: Complete) -> None:
    assert complete("paddock gra") == ["graph\tDraw a pipeline as Mermaid text, with what..."]
    assert "--only\tOnly this item; can be repeated." in complete("paddock run --o")


@pytest.mark.parametrize("command", ["chat", "embed", "show", "cp", "rm", "check", "push", "stop"])
def test_what_takes_a_model_completes_those_of_the_store(
    command: str, store: dict[str, str], complete: Complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    assert complete(f"paddock {command} smol") == ["smol:mine", "smollm2:135m"]
