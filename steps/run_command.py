"""The step `run`: run a command, without a shell, in the pipeline's folders, within a time limit.

A command needs the caller's permission, before a run begins.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from paddock.engine.errors import DeadlineExceeded
from paddock.engine.system import processes
from paddock.engine.system.files import content_stamp
from paddock.engine.system.text import last_part, shorten
from paddock.steps.tools.code_digests import files_named

from .base import Output, Params, Step, StepError, Tools
from .extras import is_missing_program
from .facts import Facts, Missing, Written
from .param_types import CommandParam, PathParam
from .paths import printable, resolve_path, start_refusal

DEFAULT_TIMEOUT_S = 600.0
MOST_BYTES = 16 * 1024 * 1024
_WORDS_CHARS = 80


def _as_word(value: Any) -> Any:
    """Convert a number to a word: `[head, -n, 5]`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


CommandWord = Annotated[str, BeforeValidator(_as_word)]


class RunParams(Params):
    command: Annotated[list[CommandWord], CommandParam] = Field(
        min_length=1,
        description="The program and its arguments, one by one.",
        examples=[["git", "log", "--oneline"]],
    )
    stdin: str | None = Field(default=None, description="Its standard input.")
    env: dict[str, CommandWord] = Field(
        default={},
        description="Environment variables, besides PATH, HOME, LANG and the like of "
        "Paddock's own.",
    )
    cwd: Annotated[str | None, PathParam] = Field(
        default=None, description="The working folder; by default the pipeline's."
    )
    ok_codes: list[int] = Field(
        default=[0], min_length=1, description="The exit codes that are not a failure."
    )


class RunOutput(Output):
    stdout: str
    stderr: str
    """Its last 64 KiB."""
    code: int


def _missing(step: str, written: Written, folder: Path) -> Iterator[Missing]:
    command = written.get("command")
    first = command[0] if isinstance(command, list) and command else None
    if is_missing_program(first, written.get("env"), folder):
        what = f"step '{step}' runs '{first}', and there is no such program here."
        yield ("command", 0), what, "Install it, or name its path."


class RunCommand(Step[RunParams, RunOutput]):
    """A command without a shell; it needs `--allow run`."""

    params = RunParams
    output = RunOutput
    facts = Facts(missing=_missing)

    async def run(self, params: RunParams, tools: Tools) -> RunOutput:
        cwd = resolve_path(tools.files.roots, params.cwd or ".")
        words = [*params.command, *params.env.values()]
        named = await asyncio.to_thread(_stamps, files_named(words, cwd, tools.files.roots.allowed))
        # What the ledger keeps of the call; values of the environment may be secrets
        request = params.model_dump(exclude={"env", "ok_codes"}, exclude_defaults=True)
        request = {"tool": "run", **request, **({"env": sorted(params.env)} if params.env else {})}
        ended = await tools.calls.memo.once(
            "tool", request, lambda: _run(params, cwd, tools), keeps=False
        )
        after = await asyncio.to_thread(_stamps, iter(named))
        for path in named.keys() & after.keys():
            if named[path] == after[path]:  # else the command wrote it
                await tools.files.outputs.note_file_read(path)
        output = RunOutput.model_validate(ended)
        if output.code in params.ok_codes:
            return output
        is_killed = output.code in processes.KILLED
        if is_killed:
            how = "was killed, as where memory runs out"
            remedy = "Free memory, or let fewer items run at once (`max_parallel`)."
        elif output.code < 0:
            how, remedy = f"was {processes.exit_status_text(output.code)}", ""
        else:
            how = f"ended with code {output.code}"
            remedy = f"Add {output.code} to `ok_codes` where that is not a failure."
        last = last_part(output.stderr.strip() or output.stdout, 300)
        what = f"{command_words(params.command)} {how}"
        what += f": {last.rstrip('.')}." if last else "."
        raise StepError(what, remedy=remedy, kind="io" if is_killed else "other")


def _stamps(paths: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    found: dict[Path, tuple[int, ...]] = {}
    for path in paths:
        with suppress(OSError):
            found[path] = content_stamp(path.stat())
    return found


async def _run(params: RunParams, cwd: Path, tools: Tools) -> dict[str, Any]:
    if not params.command[0]:
        raise StepError("`command` begins with an empty word; name the program.")
    try:
        async with asyncio.timeout(None if tools.timeout.total_s else DEFAULT_TIMEOUT_S):
            ended = await processes.run(
                params.command,
                cwd=cwd,
                environ=processes.program_environ(params.env, os.environ),
                stdin=(params.stdin or "").encode("utf-8", "surrogateescape"),
                most_bytes=MOST_BYTES,
            )
    except TimeoutError as error:
        if tools.timeout.total_s:
            raise
        raise DeadlineExceeded("total", DEFAULT_TIMEOUT_S) from error
    except processes.OutputTooLarge:
        raise StepError(
            f"{command_words(params.command)} wrote more than {MOST_BYTES:,} bytes, and was ended.",
            remedy="Let it write less, or into a file.",
        ) from None
    except (OSError, ValueError) as error:
        raise _start_error(params.command, cwd, error) from error
    return {
        "stdout": ended.stdout.decode("utf-8", "replace"),
        "stderr": ended.stderr.decode("utf-8", "replace"),
        "code": ended.code,
    }


def command_words(command: Sequence[str]) -> str:
    """Return a command as in a shell, in backticks and at most a line long.

    >>> command_words(["git", "log", "--format=%s %b"])
    "`git log '--format=%s %b'`"
    """
    words = printable(" ".join(map(shlex.quote, command)).replace("\n", " "))
    return f"`{shorten(words, _WORDS_CHARS)}`"


def _start_error(command: Sequence[str], cwd: Path, error: OSError | ValueError) -> StepError:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return StepError(f"the folder '{printable(cwd)}' is not there.")
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
    return start_refusal(command_words(command), error)
