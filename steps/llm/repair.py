"""Repair of answers: ask until the answer fits its schema and passes its checks.

What a check finds is sent back to the model, which answers again, at most `repair` times. Knows no
YAML: `ReplyForm` says what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Constraint, Message, Reply
from paddock.pipelines.reply_schema import TOO_DEEP, schema_mismatch
from paddock.steps.base import ReplyForm, StepError

from .ask import Asker, with_ending, with_schema_hint

_SHOWN_CHARS = 160
_CUT_OFF = "It was cut off"


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """What a model said, as its step gives it."""

    text: str
    """What it said; with a schema, the value's JSON."""
    output: Any
    """The value by the schema; None where there is none."""
    reply: Reply
    """The last reply, raw."""


async def ask_checked(
    asker: Asker, messages: Sequence[Message], *, form: ReplyForm | None = None
) -> CheckedAnswer:
    """Ask once, and again where the answer does not pass the form's checks.

    Raises:
        StepError: of kind `check`, where it does not pass them in the end; as `Asker.ask` besides.
        EngineError: the prompt does not fit, or the pool could not do it.
    """
    wanted = with_schema_hint(messages, form)
    answer, wrong = await _ask_once(asker, wanted, form)
    n_repairs, is_parrot = 0, False
    while wrong and form is not None and n_repairs < form.repair:
        again = await _repair_messages(asker, wanted, None if is_parrot else answer, wrong)
        if again is None:
            break
        before = answer.text
        answer, wrong = await _ask_once(asker, again, form)
        n_repairs += 1
        if answer.text == before and asker.is_greedy:
            if is_parrot:
                break  # it would be asked the very same, and say the very same
            is_parrot = True  # small models repeat what they see: do not show it
    if wrong:
        raise _repair_failed(answer, wrong, n_repairs)
    return answer


async def _ask_once(
    asker: Asker, messages: Sequence[Message], form: ReplyForm | None
) -> tuple[CheckedAnswer, list[str]]:
    """Get an answer, and what is wrong with it."""
    constraint = None
    if form is not None and form.schema is not None:
        constraint = Constraint("json_schema", json.dumps(form.schema, ensure_ascii=False))
    reply = await asker.ask(messages, constraint=constraint)
    text, output = reply.text, None
    if form is None:
        return CheckedAnswer(text, output, reply), []
    if constraint is not None:
        output, wrong = _parsed_reply(reply, form.schema)
        if wrong:
            return CheckedAnswer(text, None, reply), wrong
        text = json.dumps(output, ensure_ascii=False, separators=(",", ":"))
    return CheckedAnswer(text, output, reply), await form.failures(output, text)


def _parsed_reply(reply: Reply, schema: Any) -> tuple[Any, list[str]]:
    """Return an answer's value. A server elsewhere may not hold a model to the form."""
    try:
        value = json.loads(reply.text)
    except RecursionError:
        return None, [TOO_DEEP]
    except ValueError:
        if reply.done_reason != "length":
            return None, ["It is not JSON."]
        n_tokens = reply.usage.completion_tokens
        return None, [f"{_CUT_OFF} at its limit of {n_tokens} tokens: it must be shorter."]
    wrong = schema_mismatch(value, schema)
    return (value, []) if wrong is None else (None, [wrong])


async def _repair_messages(
    asker: Asker, wanted: Sequence[Message], answer: CheckedAnswer | None, wrong: Sequence[str]
) -> list[Message] | None:
    """Return the prompt for another answer, with the one before where that is given and fits.

    None: there is no room for it.
    """
    told = "\n".join(f"- {sentence}" for sentence in wrong)
    if answer is not None:
        order = f"This is wrong with your answer:\n{told}\nGive the whole answer again."
        said = (Message("assistant", answer.reply.text), Message("user", order))
        if await asker.overflow([*wanted, *said]) is None:
            return [*wanted, *said]
    short = with_ending(wanted, f"Mind this:\n{told}")
    return short if await asker.overflow(short) is None else None


def _repair_failed(answer: CheckedAnswer, wrong: Sequence[str], n_repairs: int) -> StepError:
    after = {0: "", 1: ", also after it was told so"}.get(
        n_repairs, f", also after it was told so {n_repairs} times"
    )
    text = " ".join(answer.text.split())
    shown = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
    remedy = "Loosen `check`, raise `repair`, or ask a larger model."
    if wrong[0].startswith(_CUT_OFF):
        remedy = "Raise `max_tokens` under `params`, or ask for less."
    what = f"the answer does not pass its checks{after}. {' '.join(wrong)} It was: {shown}"
    return StepError(what, remedy=remedy, kind="check")
