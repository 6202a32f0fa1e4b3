"""Subprocesses: run without a shell; what they start never outlives us.

A guarded program ends with all that it started, detached or not, when the waiting task is cancelled
and when this process is killed, since `process_guard` starts it.

Programs of others, guarded:

- `run`: one runs to its end, and its output is wanted.
- `start_guarded`, `GuardedPipes`: it is talked to while it runs, in the event loop or in a thread.

Processes of ours, which end when their pipes close:

- `start_in_session`, `start_in_group`: long-lived ones, in the event loop or with inherited files.
- `start_with_pipes`: those of `frame_processes`, which answer orders by frames.

`run_blocking` asks a short question of the system. `spawn_detached` starts what outlives us.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from paddock.engine.system.records import Struct

from . import no_links
from .distribution import STATE_FOLDER
from .process_guard import CANNOT_START, GRACE_S, guarded_command
from .tasks import end

EXIT_BROKEN = 70  # EX_SOFTWARE
_LEFT_OPEN_S = 1.0
"""How long what a command started may hold its pipes once the command itself has ended."""
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit codes of a program that another one killed, and of a shell that reports it: the kernel does
so where memory runs out. What kills ours raises an error instead."""
_ENDS_ALL_S = 2.0
"""What the guard's supervisor gets to kill what is left, before the guard is killed, too."""
_POLL_S = 0.1
_PIECE_BYTES = 64 * 1024
RUN_PRIORITY = 10
"""Nine tenths of a turn are for the models, whose answers clients and the run itself wait for."""
_M_MMAP_THRESHOLD = -3  # of malloc.h
MOST_ERROR_BYTES = 64 * 1024
"""Kept of what a program writes to standard error."""
# What a program needs to find others, its user's folder, a language and a temporary folder;
# nothing that might be a key.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
              "TERM", "SYSTEMROOT", "TEMP", "TMP", "PATHEXT", "COMSPEC", "USERPROFILE")  # fmt: skip

_KEY_NAME = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_OF_PYTHON = ("VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class OutputTooLarge(Exception):
    """A program wrote more to its standard output than is kept; it was ended."""


class CompletedCommand(Struct, frozen=True):
    code: int
    stdout: bytes
    stderr: bytes
    """Its last part."""


class GuardedProcess(Struct, frozen=True):
    """A process under guard: it ends, with all that it started, when our end of `line` closes."""

    process: asyncio.subprocess.Process
    line: socket.socket

    def start_error(self) -> OSError | None:
        if self.process.returncode != CANNOT_START:
            return None
        with contextlib.suppress(BlockingIOError):
            number, _, words = self.line.recv(1000).decode(errors="replace").partition(" ")
            return OSError(int(number), words) if number else None
        return None

    async def end(self) -> None:
        """End it and what it started: asked first, killed after `GRACE_S`; then let go."""
        self.line.close()
        await end_group(self.process, GRACE_S + _ENDS_ALL_S)


def python_command(*arguments: str) -> tuple[str, ...]:
    """Return a command of this Python that imports nothing from the folder where it is started.

    >>> python_command("-m", "json.tool")[1:]
    ('-P', '-m', 'json.tool')
    """
    return (sys.executable, "-P", *arguments)


def clean_environ(added: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: what any program needs, and what the author adds.

    >>> clean_environ({"A": "1"}, {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET": "x"})
    {'PATH': '/bin', 'LC_ALL': 'C', 'A': '1'}
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith("LC_")
    }
    return {**kept, **added}


def bytecode_folder(environ: Mapping[str, str]) -> str:
    """Return where the Python of pipelines keeps bytecode: it does not believe what lies beside."""
    home = environ.get("PADDOCK_HOME") or f"{environ.get('HOME', '')}/{STATE_FOLDER}"
    return f"{home}/cache/bytecode"


def program_environ(added: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    own = {"PYTHONPYCACHEPREFIX": bytecode_folder(environ)}
    return clean_environ({**own, **added}, environ)


def python_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a Python process that calls functions of others.

    >>> python_environ({"PATH": "/bin", "PYTHONPATH": "lib", "PADDOCK_API_KEY": "x"})["PYTHONPATH"]
    'lib'
    """
    kept = {n: v for n, v in environ.items() if n.startswith("PYTHON") or n in _OF_PYTHON}
    return clean_environ({**kept, "PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8"}, environ)


def without_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what is a key by its name, or has a password in an address.

    For processes of ours that work on what others wrote, and need variables of devices, of which
    there is no list.

    >>> without_keys({"CUDA_PATH": "/c", "HF_TOKEN": "x", "PADDOCK_SMTP": "smtp://me:x@host"})
    {'CUDA_PATH': '/c'}
    """
    return {
        name: value
        for name, value in environ.items()
        if not _KEY_NAME.search(name) and not _ADDRESS_WITH_PASSWORD.search(value)
    }


def find_program(program: str, cwd: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the path of the program that would be started in this folder and environment.

    >>> find_program("./sh", Path("/bin"), {})
    PosixPath('/bin/sh')
    """
    if os.sep in program:
        path = Path(os.path.normpath(cwd / program))
        return path if path.exists() else None
    where = shutil.which(program, path=environ.get("PATH", os.defpath))
    return None if where is None else Path(where)


async def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str],
    stdin: bytes = b"",
    most_bytes: int,
    nice: int = 0,
) -> CompletedCommand:
    """Run a program to its end, guarded.

    Raises:
        OSError, ValueError: it cannot be started. A FileNotFoundError names the folder that is
            missing as its `filename`; it has none where the program is.
        OutputTooLarge: it wrote more than `most_bytes`.
    """
    guarded = await start_guarded(command, cwd=cwd, environ=environ)
    try:
        if nice:
            with contextlib.suppress(OSError, AttributeError):
                os.setpriority(os.PRIO_PGRP, guarded.process.pid, nice)
        out, err = bytearray(), bytearray()

        async def read_stdout() -> None:
            assert guarded.process.stdout is not None
            while piece := await guarded.process.stdout.read(_PIECE_BYTES):
                out.extend(piece)
                if len(out) > most_bytes:
                    raise OutputTooLarge

        assert guarded.process.stderr is not None
        read_stderr = keep_last(guarded.process.stderr, err, MOST_ERROR_BYTES)
        # All at once, so that neither side waits for the other
        writing, *pipes = [
            asyncio.create_task(part)
            for part in (_write_stdin(guarded.process, stdin), read_stdout(), read_stderr)
        ]
        try:
            await wait_for_end(guarded.process, pipes[0])
            _, open_ = await asyncio.wait(pipes, timeout=_LEFT_OPEN_S)
            if open_:  # what it started lives on and holds the pipes; it is not waited for
                signal_group(guarded.process.pid, signal.SIGKILL)
                await asyncio.wait(open_, timeout=_LEFT_OPEN_S)
            if pipes[0].done():
                pipes[0].result()
        finally:
            await end(writing, *pipes)
        refused = guarded.start_error()
        if refused is not None:
            raise refused
        return CompletedCommand(guarded.process.returncode or 0, bytes(out), bytes(err))
    finally:
        await asyncio.shield(guarded.end())


async def start_guarded(
    command: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str]
) -> GuardedProcess:
    """Start a program with pipes to its standard streams; nothing of it outlives us.

    `cwd` is a path without links, and no link that is put there is followed.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError, ValueError: it cannot be started. That its file is not there shows later.
    """
    starting = asyncio.create_task(_start_guarded(command, cwd, environ))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # asyncio would kill the guard alone, and wait for pipes that the program holds open.
        await asyncio.shield(_end_when_started(starting))
        raise


async def _end_when_started(starting: asyncio.Task[GuardedProcess]) -> None:
    with contextlib.suppress(OSError, ValueError):
        await (await starting).end()


async def _start_guarded(
    command: Sequence[str], cwd: Path | None, environ: Mapping[str, str]
) -> GuardedProcess:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        with theirs, _held(cwd) as place:
            process = await asyncio.create_subprocess_exec(
                *guarded_command(list(command), theirs.fileno()),
                cwd=place,
                env=environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # with all that it starts, so that it can be ended whole
                pass_fds=(theirs.fileno(),),
            )
    except BaseException:
        ours.close()
        raise
    return GuardedProcess(process, ours)


@contextlib.contextmanager
def _held(cwd: Path | None) -> Iterator[Path | None]:
    if cwd is None:
        yield None
        return
    with contextlib.closing(no_links.HeldFolder(cwd)) as folder:
        yield folder.path


class GuardedPipes:
    """A guarded program whose pipes a thread reads and writes itself. Used by one thread at a time.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], *, environ: Mapping[str, str]) -> None:
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    guarded_command(list(command), theirs.fileno()),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=environ,
                    start_new_session=True,
                    pass_fds=(theirs.fileno(),),
                    bufsize=0,
                )
        except BaseException:
            self._line.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.stdin, self.stdout = self._process.stdin.fileno(), self._process.stdout.fileno()

    def wait(self) -> tuple[int, int]:
        """Return the exit status of a program that has closed its output; 0 if it lives on.

        The second is the most memory in bytes that it held, where a signal ended it; else 0.
        """
        try:
            code = self._process.wait(GRACE_S)
            return code, int(self._line.recv(1000) or 0) if code < 0 else 0
        except subprocess.TimeoutExpired:
            return 0, 0

    def end(self) -> None:
        """End it and what it started: it has `GRACE_S`, then it is killed."""
        self._line.close()
        try:
            self._process.wait(GRACE_S + _ENDS_ALL_S)
        except subprocess.TimeoutExpired:
            signal_group(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


async def start_in_session(
    command: Sequence[str], *, environ: Mapping[str, str], **kept: Any
) -> asyncio.subprocess.Process:
    """Start one of our own long-lived processes; it ends by itself when its pipes close.

    Its session is its own, so that Ctrl-C at the terminal is the parent's to handle. `kept` goes
    to `create_subprocess_exec`.

    Raises:
        OSError: it cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *command, env=environ, start_new_session=True, **kept
    )


def start_in_group(command: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a process of ours that inherits open files. Ctrl-C at the terminal is the parent's."""
    return subprocess.Popen(command, pass_fds=descriptors, process_group=0)


def start_with_pipes(command: Sequence[str], stderr: int | IO[str]) -> subprocess.Popen[bytes]:
    """Start a process of ours that a thread asks by its pipes; it gets no keys."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,  # Ctrl-C in the terminal is handled by this process
        env={**without_keys(os.environ), "PYTHONUTF8": "1"},
        bufsize=0,
    )


def spawn_detached(
    command: Sequence[str],
    stderr_file: Path,
    stdin: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Start a process that outlives us, in a session of its own; return its number.

    Its standard error goes to a private file, which is emptied first. `stdin` is an open file,
    `environ` its environment; None: ours. It holds none of our open files: the lock that
    `flock FILE paddock run` passes on would last as long as it does.
    """
    no_input = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    inherited: list[tuple[int, int]] = []
    for number in [int(place.name) for place in Path("/dev/fd").iterdir()]:
        with contextlib.suppress(OSError):  # that of this list
            if number > 2 and os.get_inheritable(number):
                inherited.append((os.POSIX_SPAWN_CLOSE, number))
    return os.posix_spawn(
        command[0],
        list(command),
        os.environ if environ is None else environ,
        file_actions=[
            no_input if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(stderr_file), flags, 0o600),
            *inherited,
        ],
        setsid=True,
    )


def show_as(name: str) -> None:
    """Write a name over this process's command line and first environment in `/proc` (Linux)."""
    if sys.platform == "linux":
        facts = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        first, last, end = int(facts[45]), int(facts[46]), int(facts[48])
        os.environ.update(os.environ)  # each variable is copied to where the old ones are not
        text = name.encode()[: last - first - 1]
        ctypes.memmove(first, text.ljust(end - first, b"\0"), end - first)


def return_large_blocks() -> None:
    """Return blocks of a megabyte to the system when they are freed; glibc keeps some of them.

    Requests of 30 MB left 300 MB with a service.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def run_blocking(command: Sequence[str], *, timeout_s: float) -> CompletedCommand | None:
    """Run a program to its end with nothing as its input; None: it is missing, or took too long."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return CompletedCommand(ended.returncode, ended.stdout, ended.stderr)


def exit_status_text(status: int) -> str:
    """Return how a process ended, with the name of a signal.

    >>> exit_status_text(-11), exit_status_text(3), exit_status_text(-35)
    ('killed by SIGSEGV', 'ended with status 3', 'killed by signal 35')
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"


def lower_priority(nice: int) -> None:
    """Lower this process's priority, and that of what it starts.

    Linux divides the processor among sessions before it looks at `nice` (autogroup), so the session
    of a process that leads one gets the same value.
    """
    if hasattr(os, "nice"):
        os.nice(nice)
    if sys.platform == "linux" and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice), "ascii")


def set_priority(group: int, nice: int) -> None:
    """Set the priority of a process that leads a session, of its threads and of the session."""
    with contextlib.suppress(OSError, AttributeError):  # only an administrator raises it
        os.setpriority(os.PRIO_PGRP, group, nice)
    with contextlib.suppress(OSError):  # anyone raises it to 0, ten times a second
        Path(f"/proc/{group}/autogroup").write_text(str(nice), "ascii")


def run_and_exit(main: Callable[[], None]) -> NoReturn:
    """Call a process's `main` and end at once, since another thread may be reading the pipe."""
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(EXIT_BROKEN)
    os._exit(0)


async def keep_last(stream: asyncio.StreamReader, kept: bytearray, n_bytes: int) -> None:
    """Read a stream to its end; `kept` has its last bytes."""
    while piece := await stream.read(_PIECE_BYTES):
        kept.extend(piece)
        del kept[: max(0, len(kept) - n_bytes)]


async def wait_for_end(
    process: asyncio.subprocess.Process, reading: asyncio.Task[None] | None = None
) -> None:
    """Wait until the process itself has ended.

    `Process.wait` alone waits for its pipes as well, which a grandchild may hold open for ever.
    """
    waiting: set[asyncio.Task[Any]] = {asyncio.create_task(process.wait())}
    if reading is not None:
        waiting.add(reading)
    ended = next(iter(waiting - {reading}))
    try:
        while process.returncode is None:
            await asyncio.wait(waiting, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done():
                waiting.discard(reading)
                reading.result()  # too much output is an end as well
    finally:
        ended.cancel()


async def _write_stdin(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin)
        await process.stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()


async def end_group(process: asyncio.subprocess.Process, grace_s: float = GRACE_S) -> None:
    """End a process and its group: SIGTERM, and SIGKILL after `grace_s`; close its pipes."""
    if process.returncode is None:
        signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await wait_for_end(process)
        signal_group(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await wait_for_end(process)
    transport = getattr(process, "_transport", None)  # its pipes, which a grandchild may hold open
    if transport is not None:
        transport.close()


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
