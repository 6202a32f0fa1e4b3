"""Write reports where CI looks for them: JUnit XML, and Markdown also to GitHub's own place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddock.runner.report import Report
from paddock.steps.aside import put

from . import summary as markdown
from .junit import junit as as_xml
from .outcome import Suite, documents

GITHUB = "GITHUB_STEP_SUMMARY"
"""Where GitHub Actions says that a step's summary goes."""


def write(
    suites: Sequence[Suite],
    *,
    junit: Path | None = None,
    summary: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Write the reports of tests that are asked for.

    Raises:
        OSError: one cannot be written.
    """
    if junit is not None:
        put(junit, as_xml(suites))
    _summarise(markdown.of_tests(suites), summary, os.environ if environ is None else environ)


def write_run(
    report: Report,
    file: str,
    *,
    junit: Path | None = None,
    summary: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Write the reports of a run that are asked for: its documents as cases.

    Raises:
        OSError: one cannot be written.
    """
    if junit is not None:
        put(junit, as_xml([documents(report, file)]))
    _summarise(markdown.of_run(report), summary, os.environ if environ is None else environ)


def _summarise(text: str, summary: Path | None, environ: Mapping[str, str]) -> None:
    if summary is not None:
        put(summary, text)
    if environ.get(GITHUB):
        # Other steps' words stand there already; that they cannot be added to fails no job.
        with (
            contextlib.suppress(OSError),
            Path(environ[GITHUB]).open("a", encoding="utf-8") as file,
        ):
            file.write(f"{text}\n")
