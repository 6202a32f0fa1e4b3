"""Check that an answer can be held to what a step's `reply` asks for, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddock.pipelines import reply
from paddock.pipelines.errors import Fault
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.source import Document


def faults(document: Document, at: Place, base: Path) -> Iterator[Fault]:
    """Tell what is wrong with the `reply.schema` of the step at `at`."""
    written = _schema_of(document.data, at)
    if written is None:
        return
    place = (*at, "reply", "schema")
    form = reply.read(written, base)
    for fault in form.faults:
        is_value = fault.path[-1:] == ("file",) or not fault.path
        mark = document.mark((*place, *fault.path))
        if not is_value and form.file:
            mark = document.mark((*place, "file"))
        yield Fault(f"{_where(form, fault.path)}: {fault.message}.", fault.remedy, mark)
    if form.faults:
        return
    from paddock.engine.sampling import schema

    for problem in schema.check(form.schema):
        is_here = not form.file and not isinstance(written, str) and not form.is_short
        mark = document.key_mark((*place, *problem.path) if is_here else place)
        message = f"{_where(form, problem.path)}: {problem.message}."
        yield Fault(message, problem.remedy, mark)


def _schema_of(data: Any, at: Place) -> Any:
    for name in (*at, "reply", "schema"):
        if isinstance(name, str):
            data = data.get(name) if isinstance(data, dict) else None
        else:
            data = data[name] if isinstance(data, list) and name < len(data) else None
    return data


def _where(form: reply.Form, path: Place) -> str:
    from paddock.engine.sampling.keywords import pointer

    what = f"`reply.schema` in the file '{form.file}'" if form.file else "`reply.schema`"
    place = pointer(path) if path != ("file",) else ""
    return f"{what}, at {place}" if place else what
