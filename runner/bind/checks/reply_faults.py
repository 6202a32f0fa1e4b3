"""Faults of a step's `reply`, and of `review` and `escalate`, which look at its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paddock.engine.errors import TrialTimeout
from paddock.engine.sampling.json_schema import SchemaProblem, json_pointer
from paddock.engine.system.text import nested_values
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import Expression
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import ReplySpec, StepNode
from paddock.pipelines.references import UNSURE
from paddock.pipelines.reply_schema import ReplySchema
from paddock.pipelines.validation import FaultCollector
from paddock.steps.base import Step
from paddock.steps.registry import (
    CHECK_FUNCTIONS,
    UnusableCheckPlugin,
    facts_of_kind,
    own_roles,
    takes_reply,
)

from ..answer_names import ALL_FIELDS, OF_WHOLE

SMALL_SHORT_FORM_CHARACTERS = 4_000
"""Of so many, in fewer than 64 levels, without half a character, a short form has no problem; to
start the process that tells takes 0.1 s."""
_OPEN_TABLES = ("additionalProperties", "patternProperties")
_ANSWERING_REMEDY = "It belongs to steps such as 'chat', 'summarise', 'reduce' and 'agent'."


def reply_fields(reply: ReplySpec) -> tuple[str, ...] | None:
    """Name the fields of an answer's `output`; None where that is not known."""
    schema = reply.schema
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return None
    names = schema.get("properties")
    open_keywords = ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")
    if not isinstance(names, dict) or any(schema.get(word) for word in open_keywords):
        return None
    return tuple(names)


def check_answer_keys(
    step: StepNode, kind: type[Step[Any, Any]] | None, checks: FaultCollector
) -> None:
    """Check `reply`, `escalate` and `review` of a step, but for names of models.

    `kind` is its class; None: it is not known.
    """
    has_answer = kind is None or (takes_reply(kind) and "chat" in own_roles(kind, step.params.data))
    no_answer = f"step '{step.uses}' gives no answer of a model, so"
    schema = step.reply.schema if step.reply is not None else None
    if kind is not None and (why := facts_of_kind(kind).schema_fault(schema)):
        place = ("reply", "schema") if schema is not None else ("uses",)
        checks.add((*step.at, *place), why, "Choose among labels, or use 'chat'.")
    if step.reply is not None and has_answer:
        is_constraint = kind is None or not facts_of_kind(kind).compares
        _check_reply(step, step.reply, checks, is_constraint=is_constraint)
    elif step.reply is not None:
        what = f"{no_answer} `reply` has nothing to look at"
        checks.add((*step.at, "reply"), what, _ANSWERING_REMEDY, is_key=True)
    if step.escalate is not None and kind is not None:
        if has_answer and facts_of_kind(kind).only_answers:
            _check_when("escalate", step.escalate.when, step, checks)
        else:
            what = f"step '{step.uses}' cannot `escalate`: no other model can be asked the same"
            remedy = "'chat', 'decide', 'reduce' and 'summarise' without `how: extract` can."
            checks.add((*step.at, "escalate"), what, remedy, is_key=True)
        if step.review is not None and not step.review.is_off:
            # tests/benchmarks/RESULTS.md: it spares a person no document
            what = f"step '{step.id}' has `review`, so that no larger model is asked"
            remedy = "Remove `escalate`; `review: {when: unsure}` asks what no decision tells."
            checks.add((*step.at, "escalate"), what, remedy, is_key=True)
    if step.review is not None and has_answer:
        _check_when("review", step.review.when, step, checks)
    elif step.review is not None:
        what = f"{no_answer} `review` has nothing to show"
        checks.add((*step.at, "review"), what, _ANSWERING_REMEDY, is_key=True)


def _check_reply(
    step: StepNode, reply: ReplySpec, checks: FaultCollector, *, is_constraint: bool
) -> None:
    at_schema = (*step.at, "reply", "schema")
    _check_schema(at_schema, reply, checks, is_constraint=is_constraint)
    answer = reply_fields(reply)
    for index, check in reply.checks.items():
        at = (*step.at, "reply", "check", index)
        try:
            for message, remedy in check.faults(CHECK_FUNCTIONS):
                checks.add(at, f"`check`: {message}", remedy)
        except UnusableCheckPlugin as error:
            checks.add(at, f"`check`: {error.message}", error.remedy)
        read = sorted(path for path in check.references if path[0] == "output")
        if read and reply.written is None:
            what = "`check` reads `output`, which is null without a `schema`"
            checks.add(at, what, "Add `schema`, or look at `text`.")
        elif answer is not None:
            for name in sorted({path[1] for path in read if len(path) > 1} - {*answer}):
                what = f"`check`: the answer has no field '{name}'"
                checks.add(at, what, did_you_mean(name, answer))
        if reply.evidence is None and check.reads_evidence:
            what = f"`check`: '{check.source}' needs `evidence`, which is not asked for"
            checks.add(at, what, "Add `evidence` under `reply`, with the text to look in.")
    for field in sorted({*reply.readings} - {*(answer or reply.readings)}):
        what = f"`readings`: the answer has no field '{field}'"
        checks.add((*step.at, "reply", "readings", field), what, did_you_mean(field, answer or ()))
    read_by_when = () if step.review is None else step.review.when.references
    is_used = reply.evidence is not None and any(path[0] == UNSURE for path in read_by_when)
    if reply.readings and not is_used:
        what = "`readings` of an e-invoice are only used where a person is asked about other fields"
        remedy = "Add `evidence`, with the outputs of `files.read`, and `review: {when: unsure}`."
        checks.add((*step.at, "reply", "readings"), what, remedy, is_key=True)
    if reply.evidence is None or not reply.evidence.only:
        return
    tables = [table for _, table in nested_values(reply.schema) if isinstance(table, Mapping)]
    names = dict.fromkeys(name for table in tables for name in table.get("properties") or ())
    if any(table.get(word) for table in tables for word in _OPEN_TABLES) or not names:
        return
    for path in reply.evidence.only:
        if any(part not in names for part in path.split(".") if not part.isdigit()):
            what = f"`evidence.only`: the answer has no field '{path}'"
            checks.add((*step.at, "reply", "evidence", "only"), what, did_you_mean(path, names))


def _check_schema(
    at: Place, reply: ReplySpec, checks: FaultCollector, *, is_constraint: bool
) -> None:
    form = reply.form
    for fault in form.faults:
        is_value = fault.path[-1:] == ("file",) or not fault.path
        place = (*at, "file") if form.file and not is_value else (*at, *fault.path)
        checks.add(place, f"{_schema_place(form, fault.path)}: {fault.message}", fault.remedy)
    if form.faults or reply.written is None:
        return
    is_here = not (form.file or form.is_short or isinstance(reply.written, str))
    for problem in _schema_problems(form, is_constraint=is_constraint):
        place = (*at, *problem.path) if is_here else at
        what = f"{_schema_place(form, problem.path)}: {problem.message}"
        checks.add(place, what, problem.remedy, is_key=True)


def _schema_problems(form: ReplySchema, *, is_constraint: bool) -> Sequence[SchemaProblem]:
    try:
        source = json.dumps(form.schema, allow_nan=False)
        n_levels = source.count('"items"') + source.count('"properties"')
        is_small = len(source) <= SMALL_SHORT_FORM_CHARACTERS and n_levels < 64
        if form.is_short and is_small and "\\ud" not in source:
            return ()
        # A pipeline without models starts without what compares schemas in a process
        from paddock.engine.sampling.constraint_trials import schema_problems

        return schema_problems(source, compiles=is_constraint)
    except (ValueError, TypeError, RecursionError):
        what = "the schema has values that JSON cannot hold"
        return (SchemaProblem((), what, "Remove them."),)
    except TrialTimeout:  # the model that is asked finds out
        return ()


def _schema_place(form: ReplySchema, path: Place) -> str:
    what = f"`reply.schema` in the file '{form.file}'" if form.file else "`reply.schema`"
    place = json_pointer(path) if path != ("file",) else ""
    return f"{what}, at {place}" if place else what


def _check_when(key: str, when: Expression, step: StepNode, checks: FaultCollector) -> None:
    reply = step.reply
    if reply is None and checks.document.span((*step.at, "reply")) is not None:
        return  # it has a fault of its own, so that what it asks for is not known
    answer = reply_fields(reply) if reply is not None else None
    at = (*step.at, key, "when")
    roots = (
        ("output", "schema: …", reply is not None and reply.written is not None),
        ("confidence", "confidence: true", reply is not None and reply.wants_confidence),
        ("evidence", "evidence: …", reply is not None and reply.evidence is not None),
        (UNSURE, "evidence: …", reply is not None and reply.evidence is not None),
    )
    for root, key_of_reply, is_there in roots:
        paths = [path[1:] for path in when.references if path[0] == root]
        if paths and not is_there:
            what = f"`{key}.when` reads `{root}`, which this step does not have"
            checks.add(at, what, f"Add `{key_of_reply}` under `reply`.")
            continue
        besides = (*OF_WHOLE[root](None), ALL_FIELDS) if root in OF_WHOLE else ()
        of_all = [path[1:] for path in paths if besides and path[:1] == (ALL_FIELDS,)]
        names = {path[0] for path in (*paths, *of_all) if path}
        for name in sorted(names - {*answer, *besides}) if answer is not None else ():
            what = f"`{key}.when`: `{root}` has no field '{name}'"
            checks.add(at, what, did_you_mean(name, [*besides, *(answer or ())]))
