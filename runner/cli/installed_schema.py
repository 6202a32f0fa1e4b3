"""JSON Schema of pipelines with the installed steps, and the file in which editors find it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system import private_files
from paddock.pipelines.editor_schema import pipeline_schema
from paddock.runner.bind.trigger_plugins import load_all_triggers
from paddock.runner.ledger.own_state import make_state
from paddock.runner.progress import printing
from paddock.steps import registry

SCHEMA_FILE = Path(".paddock") / "pipeline.schema.json"


def installed_schema() -> dict[str, Any]:
    kinds, broken = registry.load_all_steps()
    triggers, broken_triggers = load_all_triggers()
    for error in (*broken, *broken_triggers):
        printing.print_err(str(error))
    return pipeline_schema(
        {name: kind.params for name, kind in kinds.items()},
        {name: kind.Keys for name, kind in triggers.items()},
    )


def write_schema(folder: Path, schema: Mapping[str, Any]) -> Path:
    """Write the JSON Schema to the place that the first line of a pipeline names for editors."""
    file = folder / SCHEMA_FILE
    make_state(file.parent)
    private_files.write_private(file, json.dumps(schema, indent=1) + "\n")
    return file
