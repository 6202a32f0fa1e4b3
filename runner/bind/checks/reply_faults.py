"""Faults of a step's `reply`, and of `review` and `escalate`, which look at its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paddock.engine.sampling import json_schema
from paddock.engine.sampling.json_schema import json_pointer
from paddock.engine.system.text import nested_values
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import Expression
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import ReplySpec, StepNode
from paddock.pipelines.reply_schema import ReplySchema
from paddock.pipelines.yaml_source import YamlDocument
from paddock.steps.base import Step
from paddock.steps.registry import (
    CHECK_FUNCTIONS,
    BrokenCheck,
    facts_of_kind,
    own_roles,
    takes_reply,
)

from ..answer_names import ALL_FIELDS, NAMES_OF_WHOLE

_OPEN_TABLES = ("additionalProperties", "patternProperties")
_ANSWERING_REMEDY = "It belongs to steps such as 'chat', 'summarise', 'reduce' and 'agent'."


def reply_fields(reply: ReplySpec | None) -> tuple[str, ...] | None:
    """Name the fields of an answer's `output`; None where that is not known."""
    schema = reply.schema if reply is not None else None
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return None
    names = schema.get("properties")
    open_keywords = ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")
    if not isinstance(names, dict) or any(schema.get(word) for word in open_keywords):
        return None
    return tuple(names)


def answer_faults(
    document: YamlDocument, step: StepNode, kind: type[Step[Any, Any]] | None
) -> Iterator[Fault]:
    """Yield what is wrong with `reply`, `escalate` and `review` of a step, but for model names.

    `kind` is its class; None: it is not known.
    """
    has_answer = kind is None or (takes_reply(kind) and "chat" in own_roles(kind, step.params.data))
    no_answer = f"step '{step.uses}' gives no answer of a model, so"
    if step.reply is not None and has_answer:
        yield from _reply_faults(document, step, step.reply)
    elif step.reply is not None:
        what = f"{no_answer} `reply` has nothing to look at."
        yield Fault(what, _ANSWERING_REMEDY, document.key_mark((*step.at, "reply")))
    if step.escalate is not None and kind is not None:
        if has_answer and facts_of_kind(kind).only_answers:
            yield from _when_faults("escalate", step.escalate.when, document, step)
        else:
            what = f"step '{step.uses}' cannot `escalate`: no other model can be asked the same."
            remedy = "It belongs to 'chat', 'summarise' (without `how: extract`) and 'reduce'."
            yield Fault(what, remedy, document.key_mark((*step.at, "escalate")))
    if step.review is not None and has_answer:
        yield from _when_faults("review", step.review.when, document, step)
    elif step.review is not None:
        what = f"{no_answer} `review` has nothing to show."
        yield Fault(what, _ANSWERING_REMEDY, document.key_mark((*step.at, "review")))


def _reply_faults(document: YamlDocument, step: StepNode, reply: ReplySpec) -> Iterator[Fault]:
    at = (*step.at, "reply")
    yield from schema_faults(document, step)
    answer = reply_fields(reply)
    for index, check in reply.checks.items():
        mark = document.mark((*at, "check", index))
        try:
            for message, remedy in check.faults(CHECK_FUNCTIONS):
                yield Fault(f"`check`: {message}.", remedy, mark)
        except BrokenCheck as error:
            yield Fault(f"`check`: {error.message}.", error.remedy, mark)
        read = sorted(path for path in check.references if path[0] == "output")
        if read and reply.written is None:
            what = "`check` reads `output`, which is null without a `schema`."
            yield Fault(what, "Add `schema`, or look at `text`.", mark)
        elif answer is not None:
            for name in sorted({path[1] for path in read if len(path) > 1} - {*answer}):
                what = f"`check`: the answer has no field '{name}'."
                yield Fault(what, did_you_mean(name, answer), mark)
        if reply.evidence is None and check.reads_evidence:
            what = f"`check`: '{check.source}' needs `evidence`, which is not asked for."
            yield Fault(what, "Add `evidence` under `reply`, with the text to look in.", mark)
    if reply.evidence is not None:
        mark = document.mark((*at, "evidence", "only"))
        for fault in _unknown_only_faults(reply.evidence.only, reply.schema):
            yield Fault(*fault, mark)


def _unknown_only_faults(only: Sequence[str], schema: Any) -> Iterator[tuple[str, str]]:
    """Yield which fields that evidence is asked for the answer will never have."""
    names: dict[str, None] = {}
    for _, table in nested_values(schema):
        if not isinstance(table, Mapping):
            continue
        if any(table.get(word) for word in _OPEN_TABLES):
            return
        names |= dict.fromkeys(table.get("properties") or ())
    for path in only if names else ():
        if any(part not in names for part in path.split(".") if not part.isdigit()):
            what = f"`evidence.only`: the answer has no field '{path}'."
            yield what, did_you_mean(path, names)


def schema_faults(document: YamlDocument, step: StepNode) -> Iterator[Fault]:
    """Yield what is wrong with the `reply.schema` of a step."""
    if step.reply is None or step.reply.written is None:
        return
    place, form = (*step.at, "reply", "schema"), step.reply.form
    for fault in form.faults:
        is_value = fault.path[-1:] == ("file",) or not fault.path
        mark = document.mark((*place, *fault.path))
        if not is_value and form.file:
            mark = document.mark((*place, "file"))
        yield Fault(f"{_schema_place(form, fault.path)}: {fault.message}.", fault.remedy, mark)
    if form.faults:
        return
    is_here = not (form.file or form.is_short or isinstance(step.reply.written, str))
    for problem in _schema_problems(form.schema):
        mark = document.key_mark((*place, *problem.path) if is_here else place)
        message = f"{_schema_place(form, problem.path)}: {problem.message}."
        yield Fault(message, problem.remedy, mark)


def _schema_problems(form: Any) -> Sequence[json_schema.SchemaProblem]:
    # Slow to load, and only needed where a pipeline has schemas.
    from paddock.engine.sampling.constraint import schema_error

    problems = json_schema.check_schema(form)
    if not problems and (why := schema_error(form)):
        remedy = "Ask for less in one answer, or look at it afterwards with `check`."
        return (json_schema.SchemaProblem((), why, remedy),)
    return problems


def _schema_place(form: ReplySchema, path: Place) -> str:
    what = f"`reply.schema` in the file '{form.file}'" if form.file else "`reply.schema`"
    place = json_pointer(path) if path != ("file",) else ""
    return f"{what}, at {place}" if place else what


def _when_faults(
    key: str, when: Expression, document: YamlDocument, step: StepNode
) -> Iterator[Fault]:
    """Yield what a condition over an answer reads that the step does not have."""
    reply = step.reply
    if reply is None and document.span((*step.at, "reply")) is not None:
        return  # it has a fault of its own, so that what it asks for is not known
    answer, mark = reply_fields(reply), document.mark((*step.at, key, "when"))
    roots = (
        ("output", "schema: …", reply is not None and reply.written is not None),
        ("confidence", "confidence: true", reply is not None and reply.wants_confidence),
        ("evidence", "evidence: …", reply is not None and reply.evidence is not None),
    )
    for root, key_of_reply, is_there in roots:
        paths = [path[1:] for path in when.references if path[0] == root]
        if paths and not is_there:
            what = f"`{key}.when` reads `{root}`, which this step does not have."
            yield Fault(what, f"Add `{key_of_reply}` under `reply`.", mark)
            continue
        besides = (*NAMES_OF_WHOLE[root], ALL_FIELDS) if root in NAMES_OF_WHOLE else ()
        of_all = [path[1:] for path in paths if besides and path[:1] == (ALL_FIELDS,)]
        names = {path[0] for path in (*paths, *of_all) if path}
        for name in sorted(names - {*answer, *besides}) if answer is not None else ():
            what = f"`{key}.when`: `{root}` has no field '{name}'."
            yield Fault(what, did_you_mean(name, [*besides, *(answer or ())]), mark)
