"""An answer as a step's `reply` wants it: within its schema, its checks passed.

What a check finds is told to the model, which answers anew, as often as `repair` allows.
Knows no YAML: `ReplyForm` says what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Constraint, Message, Reply
from paddock.steps.step import ReplyForm

from .asking import Asker


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, as its step gives it."""

    text: str
    """What it said; with a schema, the value's JSON."""
    output: Any
    """The value by the schema; None where there is none."""
    reply: Reply
    """The last reply, raw."""


async def answered(
    asker: Asker, messages: Sequence[Message], *, form: ReplyForm | None = None
) -> Answer:
    """Ask once, and again where the answer does not pass the form's checks.

    Raises:
        StepError: of kind `check`, where it does not pass them in the end; as `Asker.ask` besides.
        EngineError: the prompt does not fit, or the pool could not do it.
    """
    constraint = None
    if form is not None and form.schema is not None:
        constraint = Constraint("json_schema", json.dumps(form.schema, ensure_ascii=False))
    reply = await asker.ask(messages, constraint=constraint)
    if constraint is None:
        return Answer(reply.text, None, reply)
    return Answer(reply.text, json.loads(reply.text), reply)
