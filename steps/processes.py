"""Run commands without a shell, each in a process group of its own.

Standard input is fed, output is read up to a limit, and the whole group is ended when the waiting
task is cancelled or when this process is killed: each command is started by `process_guard`. Knows
no step's parameters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.system.process_guard import CANNOT_START, GRACE_S, guarded_command

from .base import StepError
from .paths import printable

_LEFT_OPEN_S = 1.0
"""How long what a command started may hold its pipes once the command itself has ended."""
_POLL_S = 0.1
_PIECE_BYTES = 64 * 1024
_WORDS_CHARS = 80
# What a command needs to find programs, its user's folder, a language and a place for what is
# temporary; nothing that might be a key.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
              "TERM", "SYSTEMROOT", "TEMP", "TMP", "PATHEXT", "COMSPEC", "USERPROFILE")  # fmt: skip

_OF_PYTHON = ("VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class OutputTooLarge(StepError):
    """A command wrote more than is kept; it was ended."""


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """How a command ended, and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes
    """Its last part."""


@dataclass(frozen=True, slots=True)
class GuardedProcess:
    """A process under guard: it ends, with all that it started, when our end of `line` closes."""

    process: asyncio.subprocess.Process
    line: socket.socket

    def start_error(self) -> OSError | None:
        """Return why there was no program to become, once the process has ended; None: there was."""
        if self.process.returncode != CANNOT_START:
            return None
        with contextlib.suppress(BlockingIOError):
            number, _, words = self.line.recv(1000).decode(errors="replace").partition(" ")
            return OSError(int(number), words) if number else None
        return None

    async def end(self) -> None:
        """End it and what it started: asked first, killed after `GRACE_S`; then let go."""
        try:
            await _end_group(self.process)
        finally:
            self.line.close()


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


def python_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a Python process that calls functions of others.

    >>> python_environ({"PATH": "/bin", "PYTHONPATH": "lib", "PADDOCK_API_KEY": "x"})["PYTHONPATH"]
    'lib'
    """
    kept = {n: v for n, v in environ.items() if n.startswith("PYTHON") or n in _OF_PYTHON}
    return clean_environ({**kept, "PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8"}, environ)


def is_program(program: str, cwd: Path, environ: Mapping[str, str]) -> bool:
    """Return whether a program can be found, in the folder and environment that it would have.

    >>> is_program("sh", Path(), {"PATH": "/bin"}), is_program("./sh", Path("/bin"), {})
    (True, True)
    """
    return find_program(program, cwd, environ) is not None


def find_program(program: str, cwd: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the path of the program that would be started; None where there is none."""
    import shutil

    if os.sep in program:
        path = Path(os.path.normpath(cwd / program))
        return path if path.exists() else None
    where = shutil.which(program, path=environ.get("PATH", os.defpath))
    return None if where is None else Path(where)


def command_words(command: Sequence[str]) -> str:
    """Write a command as a person would, and not longer than a line.

    >>> command_words(["git", "log", "--format=%s %b"])
    "`git log '--format=%s %b'`"
    """
    import shlex

    words = printable(" ".join(map(shlex.quote, command)).replace("\n", " "))
    return f"`{words}`" if len(words) <= _WORDS_CHARS else f"`{words[: _WORDS_CHARS - 1]}…`"


def last_lines(stderr: bytes, most: int = 300) -> str:
    """Return the last of what a command complained of, in one line."""
    text = " ".join(stderr.decode("utf-8", "replace").split())
    return text if len(text) <= most else f"…{text[-most:]}"


async def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    stdin: bytes = b"",
    most_bytes: int,
    most_error_bytes: int,
) -> CompletedCommand:
    """Run a command to its end.

    Raises:
        StepError: it cannot be started.
        TooMuch: it wrote more than `most_bytes`.
    """
    try:
        held = await start_guarded(command, cwd=cwd, environ=environ)
    except FileNotFoundError as error:
        raise StepError(f"the folder '{printable(cwd)}' is not there.") from error
    except (OSError, ValueError) as error:
        raise _cannot_start(command, cwd, error) from error
    try:
        ended = await _read_output(held.process, command, stdin, most_bytes, most_error_bytes)
        refused = held.start_error()
        if refused is not None:
            raise _cannot_start(command, cwd, refused)
        return ended
    finally:
        await asyncio.shield(held.end())


async def start_guarded(
    command: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str], **kept: Any
) -> GuardedProcess:
    """Start a program with pipes to all its standard streams, and let nothing of it outlive us.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError, ValueError: it cannot be started. That its file is not there shows later.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *guarded_command(list(command), theirs.fileno()),
                cwd=cwd,
                env=environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # with all that it starts, so that it can be ended whole
                pass_fds=(theirs.fileno(),),
                **kept,
            )
    except BaseException:
        ours.close()
        raise
    return GuardedProcess(process, ours)


def _cannot_start(command: Sequence[str], cwd: Path, error: OSError | ValueError) -> StepError:
    why = getattr(error, "strerror", None) or error
    if isinstance(error, FileNotFoundError):
        first = command[0]
        if os.sep not in first or not (cwd / first).exists():
            remedy = "Install it, or name its path."
            if len(words := first.split()) > 1:
                remedy = f"Write its words one by one: `[{', '.join(map(printable, words))}]`."
            what = f"there is no program '{printable(first)}' here."
            return StepError(what, remedy=remedy, kind="missing")
        why = "the program that its first line names is not there"
    return StepError(f"{command_words(command)} cannot be started: {why}.")


async def _read_output(
    process: asyncio.subprocess.Process,
    command: Sequence[str],
    stdin: bytes,
    most_bytes: int,
    most_error_bytes: int,
) -> CompletedCommand:
    """Feed it and hear it at once, so that neither side waits for the other."""
    out, err = bytearray(), bytearray()

    async def hear() -> None:
        assert process.stdout is not None
        while piece := await process.stdout.read(_PIECE_BYTES):
            out.extend(piece)
            if len(out) > most_bytes:
                raise OutputTooLarge(
                    f"{command_words(command)} wrote more than {most_bytes:,} bytes, and was ended.",
                    remedy="Let it write less, or into a file.",
                )

    async def hear_errors() -> None:
        assert process.stderr is not None
        while piece := await process.stderr.read(_PIECE_BYTES):
            err.extend(piece)
            del err[: max(0, len(err) - most_error_bytes)]

    feeding, *pipes = [
        asyncio.create_task(part) for part in (_write_stdin(process, stdin), hear(), hear_errors())
    ]
    try:
        await _wait_for_end(process, pipes[0])
        _, open_ = await asyncio.wait(pipes, timeout=_LEFT_OPEN_S)
        if open_:  # what it started lives on and holds the pipes; it is not waited for
            _signal_group(process.pid, signal.SIGKILL)
            await asyncio.wait(open_, timeout=_LEFT_OPEN_S)
        if pipes[0].done():
            pipes[0].result()
    finally:
        for task in (feeding, *pipes):
            task.cancel()
        await asyncio.gather(feeding, *pipes, return_exceptions=True)
    return CompletedCommand(process.returncode or 0, bytes(out), bytes(err))


async def _wait_for_end(
    process: asyncio.subprocess.Process, hearing: asyncio.Task[None] | None = None
) -> None:
    """Wait until the process itself has ended.

    `Process.wait` alone waits for its pipes as well, which a grandchild may hold open for ever.
    """
    waiting: set[asyncio.Task[Any]] = {asyncio.create_task(process.wait())}
    if hearing is not None:
        waiting.add(hearing)
    ended = next(iter(waiting - {hearing}))
    try:
        while process.returncode is None:
            await asyncio.wait(waiting, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
            if hearing is not None and hearing.done():
                waiting.discard(hearing)
                hearing.result()  # too much output is an end as well
    finally:
        ended.cancel()


async def _write_stdin(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    """Give it its input; it need not read it."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin)
        await process.stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()


async def _end_group(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await _wait_for_end(process)
        except TimeoutError:
            pass
        _signal_group(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await _wait_for_end(process)
    transport = getattr(process, "_transport", None)  # its pipes, which somebody may hold open
    if transport is not None:
        transport.close()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
