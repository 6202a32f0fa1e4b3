"""The step `decide`: which labels fit a text, by the probability that the model gives to each.

Nothing is said, so nothing has to be repaired: every label of a field is compared in one pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from paddock.engine.option_scoring import OptionQuestion, option_list
from paddock.engine.request import Message
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import one_line
from paddock.pipelines.label_choices import CHOOSE
from paddock.steps.base import ReplyForm, Step, StepError, Tools
from paddock.steps.facts import CallFacts, Facts, TextFacts

from .ask_and_repair import AnswerOutput, ModelCaller, UsageOutput, ask_fitting, without_examples
from .chat import AskParams, Chat
from .confidence import listed_values, option_confidence

MOST_LABELS = 1_000


class DecideParams(AskParams):
    pass


class DecideOutput(AnswerOutput):
    usage: UsageOutput


def _fields_of(schema: Any) -> Mapping[str, Any] | None:
    """Return the schema of each field; None of an answer that is one label itself."""
    return schema.get("properties") if isinstance(schema, Mapping) else {}


def schema_fault(schema: Any) -> str:
    """Return what is wrong with a schema for this step.

    >>> schema_fault({"properties": {"tag": {"enum": ["a", "b"]}, "n": {"type": "integer"}}})
    "step 'decide' compares labels, and field 'n' is no list of them"
    """
    if schema is None:
        return "step 'decide' needs `reply.schema`, with the labels to choose from"
    fields = _fields_of(schema)
    for name, part in ({"": schema} if fields is None else fields).items():
        is_list = isinstance(part, Mapping) and (CHOOSE in part or listed_values(part) is not None)
        if not is_list:
            what = f"field '{name}'" if name else "its answer"
            return f"step 'decide' compares labels, and {what} is no list of them"
    return "" if fields != {} else "step 'decide' needs a field with labels in `reply.schema`"


class _LabelField(Struct, frozen=True):
    name: str
    """Empty: the answer itself."""
    values: Sequence[Any]
    question: OptionQuestion

    @classmethod
    def of(cls, name: str, schema: Mapping[str, Any], form: ReplyForm) -> _LabelField:
        values = listed_values(schema) or []
        if len(values) > MOST_LABELS:
            raise StepError(
                f"{len(values):,} labels are to be compared, and at most {MOST_LABELS:,} can be.",
                remedy="Say `narrow` beside `choose`: the nearest to each text are compared.",
            )
        options = tuple(map(_option, values))
        path = (name,) if name else ()
        shown = [labels.text for labels in form.lists if path in labels.fields]
        about = one_line(str(schema.get("description", "")))
        words = [f'Decide "{name}"{f" ({about})" if about else ""}.' if name else about]
        words += shown or [option_list(options)]
        words += ["Answer with one label, and nothing else."] if shown else []
        return cls(name, values, OptionQuestion(options, "\n\n".join(filter(None, words))))

    def taught(self, answers: Sequence[tuple[str, Any]]) -> OptionQuestion:
        """Return its question behind texts with their answers."""
        own = [(text, value[self.name] if self.name else value) for text, value in answers]
        examples = tuple((text, _option(value)) for text, value in own)
        return replace(self.question, examples=examples)


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Decide(Step[DecideParams, DecideOutput]):
    """Which labels of `reply.schema` fit; quicker than `chat`."""

    params = DecideParams
    output = DecideOutput
    roles = frozenset({"chat"})
    takes_reply = True
    facts = Facts(
        only_reads=True,
        is_repeatable=True,
        only_answers=True,
        only_measures=True,
        compares=True,
        schema_fault=schema_fault,
        texts=TextFacts(lambda written: bool(written.get("images")), without=("usage",)),
        calls=CallFacts(),
    )

    roles_besides = staticmethod(Chat.roles_besides)

    async def run(self, params: DecideParams, tools: Tools) -> DecideOutput:
        form = tools.reply
        if form is None or (fault := schema_fault(form.schema)):
            raise StepError(f"{fault if form else schema_fault(None)}.")
        model = tools.llm.models.resolve(params.model, "chat")
        caller = ModelCaller(tools, model, {})
        decided = await _decide(caller, await params.conversation(tools), form)
        return DecideOutput(**decided, usage=caller.usage())


async def _decide(
    caller: ModelCaller, messages: Sequence[Message], form: ReplyForm
) -> dict[str, Any]:
    """Return the outputs of an answer; its fields are asked about at once, each by itself.

    Raises:
        StepError: of kind `check` if the answer fails the form's checks.
    """
    schemas = _fields_of(form.schema)
    parts = {"": form.schema} if schemas is None else schemas
    fields = [_LabelField.of(name, part, form) for name, part in parts.items()]
    answers = [(text, json.loads(answer)) for text, answer in caller.tools.llm.examples]
    ask, plain = partial(caller.score_options, messages), [field.question for field in fields]
    shorter = [without_examples(caller, plain)] if answers else []
    taught = [field.taught(answers) for field in fields] if answers else plain
    found = await ask_fitting(ask, taught, *shorter)
    output: dict[str, Any] = {}
    sure: dict[str, Any] = {}
    for field, scored in zip(fields, found, strict=True):
        output[field.name] = field.values[scored.likeliest]
        sure[field.name] = option_confidence(field.values, scored.shares)
    value, confidence = (output, sure) if schemas is not None else (output[""], sure[""])
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if wrong := await form.checked(value, text):
        raise StepError(
            f"the answer fails its checks. {' '.join(wrong)} It was: {one_line(text, 160)}",
            remedy="Loosen `check`, or ask a larger model.",
            kind="check",
        )
    return {
        "text": text,
        "output": value,
        "evidence": await form.evidence(value),
        "confidence": confidence if form.wants_confidence else None,
    }
