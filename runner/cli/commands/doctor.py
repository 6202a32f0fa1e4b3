"""Command `paddock doctor`."""

from __future__ import annotations

from pathlib import Path

from paddock.runner.cli import doctor as checks
from paddock.runner.cli.arguments import JsonOption
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def doctor(as_json: JsonOption = False) -> int:
    """Check this machine: llama.cpp, devices, models, disks, ports."""
    found = checks.examine(read_settings(Path.cwd()))
    printing.print_result(checks.findings_json(found), checks.findings_text(found), as_json=as_json)
    return checks.findings_exit_status(found)
