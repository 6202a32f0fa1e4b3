"""Run a program that ends together with the process that started it, `kill -9` included.

Started as a script, in a process group of its own: `process_guard.py FD PROGRAM ARGUMENT…`. The
program has its standard streams, and the guard ends as the program does; where the other end of FD
is closed before that, the whole group is ended. FD 0 is the program's own standard input, as of a
server: its end asks the program to go, which has some time for that, and ends the group in any
case. Imports next to nothing: it is started with each command.
"""

from __future__ import annotations

import os
import select
import signal
import sys

if sys.platform != "win32":
    import resource

GRACE_S = 2.0
"""What a program gets between being asked to end and being killed."""
OWN_END_S = 5.0  # an MCP client closes the input, waits 2 s, asks, waits 2 s, kills
CANNOT_START = 127


def guarded_command(command: list[str], fd: int) -> list[str]:
    """Return a command's words under guard; `fd` is a socket or a pipe that it inherits."""
    return [sys.executable, "-I", "-S", __file__, str(fd), *command]


def main(arguments: list[str]) -> None:
    fd, command = int(arguments[0]), arguments[1:]
    try:
        ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.set_inheritable(fd, fd == 0)
        pid = os.posix_spawnp(
            command[0], command, os.environ, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
        )
    except (OSError, ValueError) as error:
        # Report why the program did not start: over the socket, or to standard error
        program = command[0]
        why = getattr(error, "strerror", None) or error
        if fd == 0:
            print(f"'{program}' cannot be started: {why}", file=sys.stderr)
        else:
            os.write(fd, f"{getattr(error, 'errno', 0)} {why}".encode())
        sys.exit(CANNOT_START)
    # Hold nothing of the program's, and leave alone what is meant for it
    for stream in (0, 1, 2):
        if stream != fd:
            os.close(stream)
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    status = _wait_status(pid, ended, fd)
    if fd == 0:
        os.killpg(0, signal.SIGKILL)  # with what the server may have left behind
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if fd != 0:
            _report_bytes(fd)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its own
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _wait_status(pid: int, ended: int, fd: int) -> int:
    """Wait for the program's end; end it when the process that started it is gone."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(fd, select.POLLHUP if fd == 0 else select.POLLIN | select.POLLHUP)
    wait_s: float | None = None
    is_terminated = False
    while True:
        seen = dict(poll.poll(None if wait_s is None else wait_s * 1000))
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if ended in seen:
            os.read(ended, 512)
        if fd in seen:
            poll.unregister(fd)
            wait_s = OWN_END_S if fd == 0 else 0.0
        elif not seen and not is_terminated:
            is_terminated = True
            wait_s = GRACE_S
            os.killpg(0, signal.SIGTERM)
        elif not seen:
            os.killpg(0, signal.SIGKILL)


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
