"""Ctrl-C and SIGTERM while a command is being imported, and in the background of a script."""

import subprocess
import sys

import pytest


def hit(module: str, name: str, *, is_background: bool = False) -> tuple[int, str]:
    """Send a signal to a command at the moment when it imports a module."""
    code = (
        "import signal, sys\n"
        f"module, number = {module!r}, signal.{name}\n"
        f"if {is_background}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == module: signal.raise_signal(number)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['paddock', 'config']\n"
        "from paddock.runner.__main__ import main\n"
        "main()\n"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    return answer.returncode, answer.stderr


@pytest.mark.parametrize(
    "module",
    ["paddock.runner.cli.application", "typer", "jinja2", "paddock.runner.cli.commands.config"],
)
def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_word(module: str) -> None:
    expected = (0 if module == "jinja2" else 130, "")  # which this command does without
    assert hit(module, "SIGINT") == expected


def test_ctrl_c_does_not_end_what_a_script_has_begun_in_the_background() -> None:
    assert hit("typer", "SIGINT", is_background=True) == (0, "")


@pytest.mark.parametrize("is_background", [False, True])
def test_being_asked_to_end_while_a_command_is_imported_is_no_traceback(
    is_background: bool,
) -> None:
    module = "paddock.runner.cli.commands.config"
    assert hit(module, "SIGTERM", is_background=is_background) == (130, "")
