"""Command `paddock doctor`."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.system.records import asdict
from paddock.runner.cli import doctor as checks
from paddock.runner.cli.arguments import JsonOption
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def doctor(as_json: JsonOption = False) -> int:
    found = checks.examine(read_settings(Path.cwd()))
    status = checks.findings_exit_status(found)
    facts = {"ok": not status, "findings": [asdict(finding) for finding in found]}
    printing.print_result(facts, checks.findings_text(found), as_json=as_json)
    return status
