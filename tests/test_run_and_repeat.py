"""What `poe test` makes of tests that fail: once, twice, or too many of them."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = """
import pytest
from pathlib import Path

def test_sound():
    Path("sound").open("a").write("x")

def test_at_first():
    Path("at_first").open("a").write("x")
    assert len(Path("at_first").read_text()) > 1

@pytest.mark.parametrize("number", range(%d))
def test_broken(number):
    assert not number
"""


ENDS_ITS_PROCESS = """
import os, time
from pathlib import Path

def test_before():
    pass

def test_which_nothing_ends():
    while not Path("begun").exists():
        Path("begun").touch()
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

def test_after():
    Path("after").open("a").write("x")
"""

ENDS_AT_FIRST = """
import os
from pathlib import Path

def test_x():
    if not Path("seen").exists():
        Path("seen").touch()
        os._exit(3)

def test_y():
    pass
"""


def run(folder: Path, tests: str) -> tuple[int, list[str]]:
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "tests.run_and_repeat", "-n", "2", "--dist", "loadfile"]
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it started
    return process.returncode, output.splitlines()


def test_what_fails_once_is_named_and_passes(tmp_path: Path) -> None:
    status, lines = run(tmp_path, TESTS % 1)
    assert status == 0
    notice = [line.strip("! ") for line in lines if line][-3:-1]
    assert notice == ["1 FAILED IN THE WHOLE RUN, REPEATED ALONE", "test_it.py::test_at_first"]
    assert "1 passed in" in lines[-1]
    assert (tmp_path / "sound").read_text() == "x"


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    status, lines = run(tmp_path, TESTS % 3)
    assert status == 1
    assert "2 failed, 1 passed in" in lines[-1]


def test_where_more_than_thirty_fail_none_is_repeated(tmp_path: Path) -> None:
    status, lines = run(tmp_path, TESTS % 32)
    assert status == 1
    assert "32 failed, 2 passed" in lines[-1]


def test_what_hangs_ends_with_its_process_and_is_repeated_while_its_file_goes_on(
    tmp_path: Path,
) -> None:
    hook = "from tests.in_one_process import pytest_xdist_make_scheduler\n"
    (tmp_path / "conftest.py").write_text(hook)
    limits = (
        "addopts = --timeout=1\nfaulthandler_timeout = 3\nfaulthandler_exit_on_timeout = true\n"
    )
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{limits}")
    status, lines = run(tmp_path, ENDS_ITS_PROCESS)
    assert status == 0
    assert "test_it.py::test_which_nothing_ends" in lines
    assert any("1 failed, 2 passed in" in line for line in lines)
    assert "1 passed in" in lines[-1]
    assert (tmp_path / "after").read_text() == "x"


def test_a_late_end_of_a_process_lets_the_others_finish(tmp_path: Path) -> None:
    """What it had done already is not given to another one, which would wait for more."""
    hook = "from tests.in_one_process import pytest_xdist_make_scheduler\n"
    (tmp_path / "conftest.py").write_text(hook)
    for number in range(14):
        (tmp_path / f"test_{number:02}.py").write_text("def test_x(): pass\ndef test_y(): pass\n")
    (tmp_path / "test_11.py").write_text(ENDS_AT_FIRST)
    status, lines = run(tmp_path, "def test_last(): pass\n")
    assert status == 0
    assert any("1 failed, 28 passed in" in line for line in lines)
    assert "1 passed in" in lines[-1]
