"""`paddock config`: each setting, its value and its origin. Secrets are not shown."""

from __future__ import annotations

from pathlib import Path

from paddock.runner.cli.arguments import JsonOption
from paddock.runner.cli.exit_status import DONE
from paddock.runner.cli.setting_rows import setting_rows, settings_table
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def config(as_json: JsonOption = False) -> int:
    found = setting_rows(read_settings(Path.cwd()))
    rows = {row.name: {"value": row.value, "from": row.origin} for row in found}
    printing.print_result({"settings": rows}, settings_table(found), as_json=as_json)
    return DONE
