"""Notify by a command, without a shell: the message is JSON on its standard input.

It gets the environment that `run` steps get and the names of event, pipeline and run: keys of this
account (`PADDOCK_API_KEY`, `PADDOCK_LEDGER`) are not for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from paddock.steps import processes

from .message import Message
from .ways import DEADLINE_S, Untold

_END_S = 5.0
_SAID_BYTES = 4_096
_SAID_CHARS = 200
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_MARK = re.compile("\0([0-9]+)\0")


def words_of(command: str | list[str]) -> list[str]:
    """Split a command as a shell would, and expand nothing; a template stays within its word.

    >>> words_of("tell --to {{ inputs.team }} 'a b'")
    ['tell', '--to', '{{ inputs.team }}', 'a b']

    Raises:
        Untold: a quote is not closed, or there is no command.
    """
    if isinstance(command, str):
        templates = _TEMPLATE.findall(command)
        numbers = iter(range(len(templates)))
        marked = _TEMPLATE.sub(lambda _: f"\0{next(numbers)}\0", command)
        try:
            split = shlex.split(marked)
        except ValueError as error:
            raise Untold(f"the command cannot be read ({error})") from error
        words = [_MARK.sub(lambda found: templates[int(found[1])], word) for word in split]
    else:
        words = [str(word) for word in command]
    if not words or not words[0]:
        raise Untold("the command is empty")
    return words


async def run(words: Sequence[str], folder: Path, message: Message) -> None:
    """Run a command in the pipeline's folder until it ends.

    Raises:
        Untold: it cannot be started, ended with another status than 0, or took too long.
    """
    added = {
        "PADDOCK_EVENT": message.event,
        "PADDOCK_PIPELINE": _variable(message.data["pipeline"]),
        "PADDOCK_RUN": _variable(message.data["run"]),
    }
    environ = processes.clean_environ(added, os.environ)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=folder,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # with all that it starts, so that it can be ended whole
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Untold(f"'{words[0]}' cannot be started ({why})") from error
    try:
        async with asyncio.timeout(DEADLINE_S):
            said = await _fed(process, json.dumps(message.data).encode() + b"\n")
            status = await process.wait()
    except TimeoutError:
        raise Untold(f"'{words[0]}' did not end within {DEADLINE_S:g} s") from None
    finally:
        await _end(process)
    if status != 0:
        last = " ".join(said.decode("utf-8", "replace").split())[-_SAID_CHARS:]
        raise Untold(f"'{words[0]}' ended with status {status}" + (f": {last}" if last else ""))


async def _fed(process: asyncio.subprocess.Process, given: bytes) -> bytes:
    """Give it the message, and hear the last of what it complains of; it need not read."""
    stdin, stderr = process.stdin, process.stderr
    if stdin is None or stderr is None:
        return b""

    async def feed() -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(given)
            await stdin.drain()
        stdin.close()

    feeding = asyncio.create_task(feed())
    said = b""
    try:
        while part := await stderr.read(_SAID_BYTES):
            said = (said + part)[-_SAID_BYTES:]
        await feeding
    finally:
        feeding.cancel()
    return said


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the command and what it started, where it is still there, and its pipes with it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.communicate()


def _variable(value: object) -> str:
    return str(value).replace("\0", "")
