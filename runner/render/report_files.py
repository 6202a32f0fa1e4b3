"""Where commands write reports: which file a new report may replace, which path is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from paddock.engine.system import files, no_links
from paddock.runner.bind.trust.protected_files import ProtectedFiles
from paddock.steps.paths import write_refusal

# As the template `offline.html` begins a page
PAGE_START = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="Paddock">
"""
JUNIT_START = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="paddock" '
TESTS_START, RUN_START = "## Paddock tests: ", "## Paddock run of "
REPORT_STARTS = (PAGE_START, JUNIT_START, TESTS_START, RUN_START)
"""By which a file is known as an earlier report, which a new one may replace."""


def output_refusal(path: Path, example: str) -> str | None:
    """Return why an output may not have a path, and a remedy, as the name `example`."""
    if path.is_dir():
        return f"'{path}' is a folder.\n  Name a file, such as {path / example}."
    reserved = ProtectedFiles(frozenset(), frozenset()).refusal(Path(os.path.realpath(path)))
    if reserved is not None:
        return f"'{path}' {reserved.why}.\n  Name another file, such as '{example}'."
    if not os.access(path, os.W_OK) and (why := write_refusal(path.parent)) is not None:
        return f"'{path}' cannot be written: {why}.\n  Name another place."
    return None


def report_refusal(path: Path, example: str, inputs: Iterable[str | Path]) -> str | None:
    """Return why a report may not replace what is at a path, and a remedy; None: it may."""
    other = f"new-{example}" if path.name == example else example
    remedy = f"Name another file, such as '{other}'"
    own = files.identity_of_path(path)
    if own is not None and own in map(files.identity_of_path, inputs):
        return f"'{path}' is read by this command.\n  {remedy}."
    if path.is_file() and not is_empty_or_begins(path, REPORT_STARTS):
        return f"'{path}' exists, and is no report of Paddock.\n  {remedy}, or remove it."
    return None


def is_empty_or_begins(file: Path, texts: Iterable[str]) -> bool:
    starts = tuple(start.encode() for start in texts)
    try:
        with no_links.open_named(file) as stream:  # a pipe would be waited for
            head = stream.read(max(map(len, starts)))
    except OSError:
        return False
    return not head or head.startswith(starts)
