"""A guarded program ends as by itself, and with what started it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from paddock.engine.system.process_guard import guarded_command
from tests.waiting import PATIENCE_S, is_alive, until

STUBBORN = "trap '' TERM; sleep 600 & echo $$ $!; wait; sleep 600"


@contextmanager
def line() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe: the guard's, and ours, which may be closed before."""
    theirs, ours = os.pipe()
    try:
        yield theirs, ours
    finally:
        os.close(theirs)
        with suppress(OSError):
            os.close(ours)


def start(fd: int, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        guarded_command(list(command), fd),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        pass_fds=(fd,),
    )


def ended(fd: int, *command: str, stdin: str = "") -> tuple[int, str, str]:
    with start(fd, *command) as process:
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 7", 7), ("kill -9 $$", -9), ("kill -SEGV $$", -11), ("kill -TERM $$", -15)],
)
def test_it_ends_with_the_programs_code_or_signal(script: str, code: int) -> None:
    with line() as (theirs, _):
        assert ended(theirs, "sh", "-c", script) == (code, "", "")


def test_the_program_has_the_streams_the_folder_and_the_signals_that_it_would_have(
    tmp_path: Path,
) -> None:
    with line() as (theirs, _):
        assert ended(theirs, "sh", "-c", "cat; echo so >&2", stdin="hi") == (0, "hi", "so\n")
        here = subprocess.run(
            guarded_command(["pwd"], theirs), cwd=tmp_path, pass_fds=(theirs,), capture_output=True
        )
        assert here.stdout.decode().strip() == str(tmp_path.resolve())
        ignored = ended(theirs, "grep", "SigIgn", "/proc/self/status")[1].split()[1]
        assert int(ignored, 16) & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGTERM - 1)) == 0
        listed = ended(theirs, "ls", "/proc/self/fd")[1].split()
        assert str(theirs) not in listed


def test_a_program_that_is_not_there_is_told_over_the_line_or_in_words() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert ended(theirs.fileno(), "/no/such/program") == (127, "", "")
        assert ours.recv(100) == b"2 No such file or directory"
    told = "'/no/such/program' cannot be started: No such file or directory\n"
    assert ended(0, "/no/such/program") == (127, "", told)


@pytest.mark.parametrize("is_told_by_a_line", [True, False])
def test_a_stubborn_program_gets_some_time_and_is_killed_with_all_that_it_started(
    is_told_by_a_line: bool,
) -> None:
    with (
        line() as (theirs, ours),
        start(theirs if is_told_by_a_line else 0, "sh", "-c", STUBBORN) as process,
    ):
        assert process.stdout is not None and process.stdin is not None
        pids = [process.pid, *map(int, process.stdout.readline().split())]
        assert all(map(is_alive, pids))
        if is_told_by_a_line:
            os.close(ours)
        else:
            process.stdin.close()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        until(lambda: not any(map(is_alive, pids)))


def test_a_program_is_asked_before_it_is_killed() -> None:
    asked = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with line() as (theirs, ours), start(theirs, "sh", "-c", asked) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.close(ours)
        assert (process.wait(PATIENCE_S), process.stdout.read()) == (3, "asked\n")


def test_one_that_is_told_by_its_input_gets_time_to_end_by_itself() -> None:
    well = "cat >/dev/null; sleep 0.2; echo done"
    assert ended(0, "sh", "-c", well)[1:] == ("done\n", "")


DETACHED = {
    "a session of its own": "setsid sleep 600 & echo $!; sleep 600",
    "in the background, without a terminal": "nohup sleep 600 >/dev/null 2>&1 & echo $!; sleep 600",
    "twice, so that its parent is gone": "(setsid sh -c 'echo $$; exec sleep 600' &); sleep 600",
    "one that does not listen": (
        "(setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' &); sleep 600"
    ),
    "behind a program that ends when it is asked": (
        "(setsid sh -c 'echo $$; exec sleep 600' &); trap 'exit 0' TERM; "
        "while :; do sleep 0.05; done"
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process adopts what is detached")
@pytest.mark.parametrize("end", ["line", "input", "killed", "group killed"])
@pytest.mark.parametrize("how", DETACHED)
def test_what_a_program_detaches_ends_with_it(how: str, end: str) -> None:
    with (
        line() as (theirs, ours),
        start(0 if end == "input" else theirs, "sh", "-c", DETACHED[how]) as process,
    ):
        assert process.stdout is not None and process.stdin is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        if end == "line":
            os.close(ours)
        elif end == "input":
            process.stdin.close()
        elif end == "killed":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
        until(lambda: not is_alive(pid))


def test_what_a_program_leaves_that_ends_by_itself_goes_on() -> None:
    with line() as (theirs, _):
        code, out, _ = ended(theirs, "sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!")
        assert (code, is_alive(int(out))) == (0, True)
        os.kill(int(out), signal.SIGKILL)
