"""An answer's format, as an option writes it: `json`, a JSON Schema, or a file that holds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class BadAnswerFormat(Exception):
    """Neither `json` nor a schema."""


def answer_format(value: str) -> str | dict[str, Any]:
    """Return `json`, or the schema; a text that begins with a brace is one itself.

    Raises:
        BadAnswerFormat: in words.
    """
    if value == "json":
        return value
    is_schema = value.lstrip().startswith("{")
    what = "The schema" if is_schema else f"'{value}'"
    file = Path(value).expanduser()
    if not is_schema and not file.is_file():
        remedy = "Give 'json', or a file with a JSON Schema."
        raise BadAnswerFormat(f"There is no file '{value}'.\n  {remedy}")
    try:
        text = value if is_schema else file.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise BadAnswerFormat(f"'{value}' cannot be read: {error.strerror}.") from None
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise BadAnswerFormat(f"{what} is not JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise BadAnswerFormat(f"{what} is not a JSON Schema: it is no object.")
    return schema
