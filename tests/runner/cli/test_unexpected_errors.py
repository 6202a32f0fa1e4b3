import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner.test_cli import ended


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    return tmp_path


def test_an_error_of_our_own_is_one_sentence_and_a_file(home: Path) -> None:
    result = ended(ZeroDivisionError("division\nby zero"))
    (file,) = (home / "crashes").iterdir()
    assert result.exit_code == 1
    assert result.stderr == (
        "Internal error in Paddock (ZeroDivisionError: division by zero). "
        f"The traceback is in {file}; please report it.\n"
    )
    assert "raise error" in file.read_text()


def test_a_traceback_is_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_DEBUG", "1")
    assert "Traceback (most recent call last)" in ended(ZeroDivisionError()).stderr


INTERRUPTED = """
import atexit, os, sys, threading
from paddock.runner.cli import application
from paddock.runner.cli.commands import doctor

def interrupted() -> int:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    print("what was done")
    raise KeyboardInterrupt

atexit.register(os.abort)  # no thread may be at work while the interpreter is taken down
doctor.doctor = interrupted
sys.argv = ["paddock", "doctor"]
application.main()
"""


def test_an_interrupted_command_beside_a_thread_ends_at_once_and_keeps_what_it_printed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (130, "what was done\n"), ended.stderr
    assert ended.stderr == "Interrupted.\n"
