"""Run `paddock` in a process of its own, as a script does, or in the test's, which is quicker."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

from paddock.runner.cli.application import application
from tests.waiting import PATIENCE_S

PADDOCK = str(Path(sys.executable).with_name("paddock"))


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


def paddock(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | bytes | None = None,
) -> Ended:
    """Run it to its end; without `given` its input is empty."""
    raw = given.encode() if isinstance(given, str) else given
    answer = subprocess.run(
        [PADDOCK, *arguments],
        input=raw or b"",
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        timeout=PATIENCE_S,
        check=False,
    )
    return Ended(answer.returncode, answer.stdout.decode(), answer.stderr.decode())


def paddock_here(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | bytes | None = None,
) -> Ended:
    """Run it to its end in this process, where a process of its own is no part of the claim."""
    with contextlib.chdir(cwd or Path.cwd()):
        ended = CliRunner().invoke(
            application(arguments[0]), list(arguments), input=given, env=environ
        )
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def invoke(*arguments: str, given: str | bytes = "") -> Result:
    """Run it in this process; `output` has both streams in their order."""
    return CliRunner().invoke(application(arguments[0]), list(arguments), input=given)
