"""What a step's `reply` asks for, checked before anything runs: its schema and its checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.pipelines import reply
from paddock.pipelines.checking.check import Check, CheckFunction
from paddock.pipelines.errors import Fault, known
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.source import Document
from paddock.pipelines.tree import Step as WrittenStep
from paddock.steps.answers.functions import FUNCTIONS, BrokenCheck
from paddock.steps.step import Step


@dataclass(frozen=True)
class BoundReply:
    """What the answer of a step must be."""

    schema: Any
    """As JSON Schema; None where the answer is free text."""
    checks: tuple[Check, ...]
    repair: int
    functions: Mapping[str, CheckFunction]
    """What the checks may call."""


def bound(step: WrittenStep, base: Path) -> BoundReply | None:
    """Give what a step's answer must be, as far as it can be read; `base` is the YAML's folder."""
    if step.reply is None:
        return None
    written = step.reply.schema
    schema = None if written is None else reply.read(written, base).schema
    checks = tuple(step.reply.checks.values())
    return BoundReply(schema, checks, step.reply.repair, FUNCTIONS)


def spec(bound: BoundReply) -> Mapping[str, Any]:
    """Write down what decides an answer, the text of a schema's file in place of its name."""
    checks = [check.source for check in bound.checks]
    return {"schema": bound.schema, "check": checks, "repair": bound.repair}


def fields(bound: BoundReply | None) -> tuple[str, ...] | None:
    """Name the fields of an answer's `output`; None where that is not known."""
    schema = bound.schema if bound is not None else None
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return None
    names = schema.get("properties")
    open_ones = ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")
    if not isinstance(names, dict) or any(schema.get(word) for word in open_ones):
        return None
    return tuple(names)


def faults(
    document: Document, step: WrittenStep, base: Path, kind: type[Step[Any, Any]] | None
) -> Iterator[Fault]:
    """Tell what is wrong with the `reply` of a step; `kind` is its class, if it is known."""
    if step.reply is None:
        return
    at = (*step.at, "reply")
    if kind is not None and not getattr(kind, "takes_reply", False):
        what = f"step '{step.uses}' gives no answer of a model, so `reply` has nothing to look at."
        remedy = "It belongs to steps such as 'chat', 'summarise', 'reduce' and 'agent'."
        yield Fault(what, remedy, document.key_mark(at))
        return
    yield from of_schema(document, step.at, base)
    answer = fields(bound(step, base))
    for index, check in step.reply.checks.items():
        mark = document.mark((*at, "check", index))
        for message, remedy in _of_check(check):
            yield Fault(f"`check`: {message}.", remedy, mark)
        for name in _unknown_fields(check, answer, has_schema=step.reply.schema is not None):
            yield Fault(*name, mark)


def _of_check(check: Check) -> Iterator[tuple[str, str]]:
    try:
        yield from check.faults(FUNCTIONS)
    except BrokenCheck as error:
        message, _, remedy = str(error).partition(". ")
        yield message, remedy


def _unknown_fields(
    check: Check, answer: tuple[str, ...] | None, *, has_schema: bool
) -> Iterator[tuple[str, str]]:
    """Say which fields of the answer a check reads that will never be there."""
    read = sorted(path for path in check.references if path[0] == "output")
    if read and not has_schema:
        what = "`check` reads `output`, which is null without a `schema`."
        yield what, "Add `schema`, or look at `text`."
    elif answer is not None:
        for name in sorted({path[1] for path in read if len(path) > 1} - {*answer}):
            yield f"`check`: the answer has no field '{name}'.", known(name, answer)


def of_schema(document: Document, at: Place, base: Path) -> Iterator[Fault]:
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
