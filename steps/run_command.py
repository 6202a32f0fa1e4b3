"""The step `run`: run a command, without a shell, in the pipeline's folders, within a time limit.

A command needs the caller's permission, which is asked for before a run begins.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from .base import Output, Params, StepError, Tools
from .paths import resolve_path

if TYPE_CHECKING:
    from paddock.engine.request import Role

DEFAULT_TIMEOUT_S = 600.0
MOST_BYTES = 16 * 1024 * 1024
MOST_ERROR_BYTES = 64 * 1024


def _as_word(value: Any) -> Any:
    """Take a number for the word that it would be on a command line: `[head, -n, 5]`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


CommandWord = Annotated[str, BeforeValidator(_as_word)]


class RunParams(Params):
    """Parameters of `run`."""

    command: list[CommandWord] = Field(
        min_length=1,
        description="The program and its arguments, one by one; there is no shell.",
        examples=[["git", "log", "--oneline"]],
    )
    stdin: str | None = Field(default=None, description="What it reads on its standard input.")
    env: dict[str, CommandWord] = Field(
        default={},
        description="Environment variables; of ours it gets only PATH, HOME, LANG and the like.",
    )
    cwd: str | None = Field(
        default=None, description="The folder in which it runs; by default the pipeline's."
    )
    ok_codes: list[int] = Field(
        default=[0], min_length=1, description="The exit codes that are no failure."
    )


class RunOutput(Output):
    """Outputs of `run`; bytes that are no UTF-8 are replaced in the texts."""

    stdout: str
    stderr: str
    """Its last 64 KiB."""
    code: int


class RunCommand:
    """A command without a shell; it needs `--allow run`."""

    params: ClassVar[type[RunParams]] = RunParams
    output: ClassVar[type[RunOutput]] = RunOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: RunParams) -> Sequence[str]:
        """Name nothing: nobody knows what a command reads."""
        return ()

    async def run(self, params: RunParams, tools: Tools) -> RunOutput:
        """Run it to its end.

        Raises:
            StepError: it cannot be started, wrote too much, or ended with another code.
            DeadlineExceeded: it did not end in time; it and all that it started are ended.
        """
        ended = await tools.memo.once(
            "tool", _cache_request(params), lambda: _run(params, tools), keeps=False
        )
        output = RunOutput.model_validate(ended)
        if output.code not in params.ok_codes:
            raise _exit_error(params, output)
        return output


def _cache_request(params: RunParams) -> dict[str, Any]:
    """Return what the ledger keeps of the call; values of the environment may be keys."""
    asked = params.model_dump(exclude={"env", "ok_codes"}, exclude_defaults=True)
    return {"tool": "run", **asked, **({"env": sorted(params.env)} if params.env else {})}


async def _run(params: RunParams, tools: Tools) -> dict[str, Any]:
    import asyncio

    from paddock.engine.errors import DeadlineExceeded
    from paddock.engine.system.processes import clean_environ

    from .processes import run_command

    if not params.command[0]:
        raise StepError("`command` begins with an empty word; name the program.")
    try:
        async with asyncio.timeout(None if tools.total_s else DEFAULT_TIMEOUT_S):
            ended = await run_command(
                params.command,
                cwd=resolve_path(tools.roots, params.cwd or "."),
                environ=clean_environ(params.env, os.environ),
                stdin=(params.stdin or "").encode("utf-8", "surrogateescape"),
                most_bytes=MOST_BYTES,
                most_error_bytes=MOST_ERROR_BYTES,
            )
    except TimeoutError as error:
        if tools.total_s:
            raise
        raise DeadlineExceeded("total", DEFAULT_TIMEOUT_S) from error
    return {
        "stdout": ended.stdout.decode("utf-8", "replace"),
        "stderr": ended.stderr.decode("utf-8", "replace"),
        "code": ended.code,
    }


def _exit_error(params: RunParams, output: RunOutput) -> StepError:
    from paddock.engine.system.text import last_part

    from .processes import command_words

    what = command_words(params.command)
    said = last_part(output.stderr.strip() or output.stdout, 300)
    how = f"ended with code {output.code}"
    if output.code < 0:
        how = f"was ended by the signal {_signal_name(-output.code)}"
    remedy = "" if output.code < 0 else f"Add {output.code} to `ok_codes` where that is no failure."
    return StepError(f"{what} {how}" + (f": {said.rstrip('.')}." if said else "."), remedy=remedy)


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
