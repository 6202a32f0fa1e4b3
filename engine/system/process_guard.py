"""Run a program that ends, with all that it started, when the process that started it does so.

Started as a script, in a process group of its own: `process_guard.py FD PROGRAM ARGUMENT…`. The
program has its standard streams, and the guard ends as the program does. Where the other end of FD
is closed before that, `kill -9` included, all that the program started is ended. FD 0 is the
program's own standard input, as of a server: its end asks the program to go, which has some time
for that, and all is ended in any case. What a program leaves behind that ends by itself goes on.

    guard ──▶ supervisor ──▶ program ──▶ …

The program is in the guard's group. The supervisor has left it, so that it survives what kills the
group, and ends the rest. On Linux it is the parent of what was detached (`setsid`, `nohup`, a
double fork); elsewhere that is ended only where the process that started it lives, or in the group.

Imports next to nothing: it is started with each command.
"""

from __future__ import annotations

import _ctypes  # `ctypes` itself would take a fifth of a start
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` and `contextlib` would take a quarter of a start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn
if sys.platform != "win32":
    import resource

GRACE_S = 2.0
"""What a program gets between being asked to end and being killed."""
OWN_END_S = 5.0  # an MCP client closes the input, waits 2 s, asks, waits 2 s, kills
CANNOT_START = 127
_KILL_S = 5.0
"""How long what starts others again and again is killed."""
_PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h


def guarded_command(command: list[str], fd: int) -> list[str]:
    """Return a command's words under guard; `fd` is a socket or a pipe that it inherits."""
    return [sys.executable, "-I", "-S", __file__, str(fd), *command]


def main(arguments: list[str]) -> NoReturn:
    fd, command = int(arguments[0]), arguments[1:]
    guard_ended, held = os.pipe()
    if supervisor := os.fork():
        _let_go({0, 1, 2, fd, guard_ended})
        _end_as(os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]))
    os.close(held)
    Supervisor(fd, guard_ended).run(command)


class Supervisor:
    """Starts a program, waits for its end, and ends all that it started where that is asked."""

    def __init__(self, fd: int, guard_ended: int) -> None:
        self._fd, self._guard_ended, self._group = fd, guard_ended, os.getpgrp()
        self._adopts = _adopt_orphans()
        self._status: int | None = None
        """Of the program, once it has ended."""

    def run(self, command: list[str]) -> NoReturn:
        try:
            ended, wake = os.pipe()
            os.set_blocking(wake, False)
            signal.set_wakeup_fd(wake)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            os.set_inheritable(self._fd, self._fd == 0)
            os.setpgid(0, 0)  # what kills the guard's group must not reach this process
            pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                setpgroup=self._group,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except (OSError, ValueError) as error:
            # Report why the program did not start: over the socket, or to standard error
            program = command[0]
            why = getattr(error, "strerror", None) or error
            if self._fd == 0:
                print(f"'{program}' cannot be started: {why}", file=sys.stderr, flush=True)
            else:
                os.write(self._fd, f"{getattr(error, 'errno', 0)} {why}".encode())
            os._exit(CANNOT_START)
        _let_go({0, 1, 2} - {self._fd})
        if self._is_to_end_all(pid, ended):
            self._kill_all(pid)
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code < 0 and self._fd != 0:
            _report_bytes(self._fd)
        _end_as(code)

    def _is_to_end_all(self, pid: int, ended: int) -> bool:
        """Wait for the program's end; return whether what it started is to be killed.

        1. The guard is gone: at once.
        2. The program has ended by itself, or was killed, maybe with the guard that is not seen to
           be gone yet: what a server left is killed, and what a killed program did.
        3. The other end of FD is closed: all that goes on is asked to end, and has some time.
        """
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._guard_ended, select.POLLHUP)
        poll.register(self._fd, select.POLLHUP if self._fd == 0 else select.POLLIN | select.POLLHUP)
        until_s: float | None = None
        is_asked = is_terminated = False
        while True:
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            seen = dict(poll.poll(None if left_s is None else left_s * 1000))
            if ended in seen:
                os.read(ended, 512)
            if self._fd in seen:
                poll.unregister(self._fd)
                is_asked, until_s = True, time.monotonic() + (OWN_END_S if self._fd == 0 else 0.0)
            self._reap(pid)
            if self._guard_ended in seen:  # 1
                return True
            if self._status is not None and not is_asked:  # 2
                return self._fd == 0 or os.WIFSIGNALED(self._status)
            if is_asked and self._status is not None and not _descendants():  # 3
                return False
            if not seen and is_terminated:
                return True
            if not seen:
                is_terminated, until_s = True, time.monotonic() + GRACE_S
                self._signal(signal.SIGTERM)

    def _reap(self, pid: int) -> None:
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == pid:
                    self._status = found[1]
        except ChildProcessError:
            return

    def _signal(self, number: int) -> None:
        for pid in _descendants():
            _send(os.kill, pid, number)

    def _kill_all(self, pid: int) -> None:
        until_s = time.monotonic() + _KILL_S
        while _descendants() and time.monotonic() < until_s:
            self._signal(signal.SIGKILL)
            self._reap(pid)
            time.sleep(0.005)
        self._reap(pid)
        if not self._adopts:  # with the guard, which is in it
            _send(os.killpg, self._group, signal.SIGKILL)


def _send(kill: Callable[[int, int], None], number: int, signal_: int) -> None:
    try:
        kill(number, signal_)
    except OSError:
        return  # it has ended, or is another user's


def _descendants() -> list[int]:
    """Return the processes that run below this one, parents before children."""
    # One whose parent ends during a look is not found by it
    return _below(os.getpid()) or _below(os.getpid())


def _below(pid: int) -> list[int]:
    processes, found = _processes(), [pid]
    for above in found:
        found += [child for child, parent, _ in processes if parent == above]
    running = {child for child, _, state in processes if state != "Z"}
    return [child for child in found[1:] if child in running]


def _processes() -> list[tuple[int, int, str]]:
    """Return each process, its parent and its state."""
    rows = list[list[str]]()
    if sys.platform == "linux":
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - a quick import
            try:
                with open(f"/proc/{name}/stat", encoding="latin-1") as file:  # noqa: PTH123
                    rows.append([name, *file.read().rpartition(")")[2].split()[:2]])
            except OSError:
                continue  # it has ended
    else:
        with os.popen("ps -axo pid=,stat=,ppid=") as listed:
            rows += [line.split() for line in listed]
    return [(int(pid), int(parent), state[0]) for pid, state, parent in rows]


def _adopt_orphans() -> bool:
    """Become the parent of what a process below this one detaches; return whether that is so."""
    if sys.platform != "linux":
        return False
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    return bool(_ctypes.call_function(prctl, (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0)


def _let_go(descriptors: set[int]) -> None:
    """Hold nothing of the program's, and leave alone what is meant for it."""
    for number in descriptors:
        os.close(number)
    os.chdir("/")
    for signal_ in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signal_, signal.SIG_IGN)


def _end_as(code: int) -> NoReturn:
    """End with an exit code, or, below zero, by a signal."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its own
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _report_bytes(fd: int) -> None:
    """Report the most memory that the program held.

    The process that started the guard cannot know: its own memory counts as its child's.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    try:
        os.write(fd, str(used if sys.platform == "darwin" else used * 1024).encode())
    except OSError:
        return  # nothing waits for it


if __name__ == "__main__":
    main(sys.argv[1:])
