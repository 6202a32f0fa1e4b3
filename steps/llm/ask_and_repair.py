"""Ask a model: fit the prompt, ask, go on where the answer was cut off, check it, have it repaired.

Every step that asks does so here. `ask_fitting` takes the next shorter prompt where the pool says
that one is too long. `ModelCaller.ask` treats an answer that ended at its limit of tokens as
`on_truncated` says; where the author set no limit, one that was cut off or repeated itself is
refused. `ask_checked` holds it to its schema, of which one line of the prompt tells the model
(`schema_hint`), and sends back what a check finds, at most `repair` times.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field

from paddock.engine.errors import PromptTooLong
from paddock.engine.option_scoring import OptionQuestion, OptionShares, score_options
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    ModelSpec,
    Reply,
    Tool,
    Usage,
    reserved_tokens,
    resolve_sampling,
    with_ending,
)
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import NestedTooDeep, counted, one_line, parse_shallow_json, shorten
from paddock.pipelines.label_choices import PromptLabels, without_choice_marks, without_repeats
from paddock.pipelines.schema_validation import TOO_DEEP, value_faults
from paddock.steps.base import PLACEHOLDER, Output, ReplyForm, StepError, Tools

from .confidence import N_ALTERNATIVES, confidence
from .prompt_truncation import most_that_fits
from .schema_hint import with_schema_hint

P = TypeVar("P")
T = TypeVar("T")

CALLS_AT_ONCE = 8  # if a pool does not report its slots; it mixes calls of many documents
_SURELY_FITS_SHARE = 0.8  # of the room; a template's own words take the rest
_RETRY_TEMPERATURE_STEP = 0.3
_MOST_RETRY_TEMPERATURE = 0.9
_NEAR_LIMIT = 0.9  # of the limit, in tokens
_CLOSING_TOKENS = 32  # a short limit's grammar may begin to close the answer so many before it
OnTruncated = Literal["keep", "error", "continue", "more"]
"""`more`: ask once again with twice the limit."""
_LIMITS = {"max_tokens", "num_predict"}
MOST_CONTINUATIONS = 8
"""Of `continue`; a model that does not end by then has lost its thread."""


def one_repeat(written: Mapping[str, Any], of_model: Mapping[str, Any]) -> int:
    """Return 1 where answers may have a limit: such a step asks once more for one that is cut off.

    `of_model`: the sampling values of its model.
    """
    own = written.get("params", {})
    return int(not isinstance(own, Mapping) or bool(_LIMITS & {*own, *of_model}))


class AnswerOutput(Output):
    text: str
    output: Any = Field(default=None, description="The value of `reply.schema`: null without one.")
    evidence: Any = Field(
        default=None,
        description="Where each field of `output` stands in the sources: null without "
        "`reply.evidence`.",
    )
    confidence: Any = Field(
        default=None,
        description="The probability of each field of `output`: null without `reply.confidence`.",
    )
    escalated: Any = Field(
        default=None,
        description="`{to, why, was}` of an answer of the larger model, with that of the step's "
        "own: null where `escalate` was not due.",
    )
    review: Any = Field(
        default=None,
        description="A person's decision, `{state, by, at, value}`: null where `review` was not "
        "due.",
    )


class UsageOutput(Output):
    calls: int = 0
    prompt_tokens: int = 0
    prompt_reused_tokens: int = Field(
        default=0, description="Of `prompt_tokens`, found in the KV cache."
    )
    completion_tokens: int = 0
    characters_cut: int = Field(
        default=0, description="Characters that `on_overflow: truncate` left out."
    )


class SchemaOnlyForm(Struct, frozen=True):
    schema: Any
    repair: int = 0
    wants_confidence: bool = False
    lists: Sequence[PromptLabels] = ()

    async def checked(self, output: Any, text: str) -> list[str]:
        """Find nothing: the decoder holds to the schema."""
        return []

    async def evidence(self, output: Any) -> Any:
        return None


class ModelCaller(Struct):
    tools: Tools
    model: ModelSpec
    params: Mapping[str, Any]
    on_truncated: OnTruncated = "keep"
    """What happens to an answer that ends at the author's limit."""
    noun: str = "answer"
    """What the report calls the answers."""
    characters_cut: int = 0
    _usages: list[Usage] = field(default_factory=list)

    @property
    def max_tokens(self) -> int | None:
        """The author's limit, on the step or the model."""
        return resolve_sampling(self.params, self.model.params).max_tokens

    async def reserved(self) -> int:
        facts = await self.tools.llm.pool.facts(self.model)
        return reserved_tokens(self.max_tokens, facts.n_ctx_tokens)

    async def room(self) -> int:
        facts = await self.tools.llm.pool.facts(self.model)
        return facts.n_ctx_tokens - await self.reserved()

    async def n_at_once(self) -> int:
        facts = await self.tools.llm.pool.facts(self.model)
        return facts.n_parallel or CALLS_AT_ONCE

    async def size(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
        """Count a prompt with descriptions of `tools` and the hint of the schema."""
        prompt = with_schema_hint(messages, self.tools.reply)
        return await self.tools.llm.pool.count_chat(self.model, prompt, tools)

    def most(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> float:
        """Return a number that the prompt's tokens do not exceed but for what its template adds.

        A token has at least one byte. What a dry run does not know has no limit.
        """
        prompt = with_schema_hint(messages, self.tools.reply)
        if any(message.images or PLACEHOLDER in message.content for message in prompt):
            return math.inf
        return sum(len(str(part).encode("utf-8", "replace")) for part in (*prompt, *tools))

    async def count(self, texts: Sequence[str]) -> list[int]:
        return await self.tools.llm.pool.count_texts(self.model, texts)

    async def overflow(
        self, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> PromptTooLong | None:
        """Return the error for a prompt that does not fit, or None.

        A short one is not counted, so that a known answer to it needs no model.
        """
        if self.most(messages, tools) <= _SURELY_FITS_SHARE * await self.room():
            return None
        n_tokens, room = await self.size(messages, tools), await self.room()
        reserved = await self.reserved()
        return None if n_tokens <= room else PromptTooLong(n_tokens, reserved, room + reserved)

    async def most_characters(
        self, n_characters: int, prompt: Callable[[int], list[Message]]
    ) -> int:
        """Return how many of a text's characters fit; `prompt` makes the prompt with that many.

        Raises:
            PromptTooLong: not a single one fits.
        """

        async def fits(n: int) -> bool:
            return await self.overflow(prompt(n)) is None

        n = await most_that_fits(fits, n_characters)
        if n == 0:
            raise await self.overflow(prompt(0)) or StepError("the prompt does not fit.")
        return n

    async def ask(
        self, messages: Sequence[Message], *, most_tokens: int | None = None, **options: Any
    ) -> Reply:
        """Return an answer, whole as far as that can be had; `options` are of `ChatRequest`.

        `most_tokens`: how long one that reached its limit may become by `on_truncated`; None: what
        the context holds.

        Raises:
            StepError: it ended at a limit that the author did not set, or must not end at, or
                repeated itself.
            EngineError: the pool could not do it.
        """
        request, pool = replace(self._request(messages), **options), self.tools.llm.pool
        facts, max_tokens = await pool.facts(self.model), self.max_tokens
        limit = usual = reserved_tokens(max_tokens, facts.n_ctx_tokens)
        reply = await self._reply(request)
        n_left = 0
        if self.on_truncated == "continue" and (max_tokens is None or max_tokens >= 0):
            n_left = MOST_CONTINUATIONS
        elif self.on_truncated == "more" and (max_tokens or 0) > 0:
            n_left = 1
        while n_left and _is_cut_off(reply, limit) and not reply.tool_calls:
            n_left -= 1
            # A prompt that ends with text of the assistant is continued only by this machine's
            # engine, and only where no form or tool makes the answer start again.
            starts_again = request.constraint or request.tools or "://" in facts.path
            goes_on = bool(self.on_truncated == "continue" and reply.text and not starts_again)
            begun = Message("assistant", reply.text, reasoning=reply.reasoning)
            prompt = (*request.messages, begun) if goes_on else request.messages
            n_spent = reply.usage.completion_tokens if goes_on else 0
            room = facts.n_ctx_tokens - await pool.count_chat(self.model, prompt, request.tools)
            if most_tokens is not None:
                room = min(room, most_tokens - n_spent)
            n_tokens = min(usual if goes_on else 2 * limit, room)
            if n_tokens <= (0 if goes_on else limit):
                break
            params = {**request.params, "max_tokens": n_tokens}
            again = await self._reply(replace(request, messages=prompt, params=params))
            if not goes_on:
                limit, reply = n_tokens, again
                continue
            usage = replace(again.usage, completion_tokens=n_spent + again.usage.completion_tokens)
            text = reply.text + again.text
            reply = replace(again, text=text, reasoning=reply.reasoning, usage=usage)
        self._accept(reply, limit)
        return reply

    async def score_options(
        self, messages: Sequence[Message], questions: Sequence[OptionQuestion]
    ) -> list[OptionShares]:
        """Return how likely each option of each question is.

        Raises:
            EngineError: the pool could not do it.
        """
        return (await score_options(self._reply, self._request(messages), questions))[0]

    def _request(self, messages: Sequence[Message]) -> ChatRequest:
        return ChatRequest(
            model=self.model,
            messages=tuple(messages),
            params=self._sampling(),
            priority=self.tools.llm.priority,
            total_s=self.tools.timeout.total_s,
            idle_s=self.tools.timeout.idle_s,
            keeps_images=True,
        )

    @property
    def is_greedy(self) -> bool:
        return resolve_sampling(self._sampling(), self.model.params).is_greedy

    def _sampling(self) -> Mapping[str, Any]:
        """Return the parameters of a call, freer after each answer that failed its checks."""
        n_refused = self.tools.llm.n_refused
        if not n_refused:
            return self.params
        usual = resolve_sampling(self.params, self.model.params)
        freer = max(
            usual.temperature, min(_MOST_RETRY_TEMPERATURE, _RETRY_TEMPERATURE_STEP * n_refused)
        )
        return {**self.params, "seed": usual.seed + n_refused, "temperature": freer}

    async def _reply(self, request: ChatRequest) -> Reply:
        stream = self.tools.llm.pool.chat(request)
        try:
            reply = await stream.reply()
        except asyncio.CancelledError:
            stream.cancel()
            raise
        self._usages.append(reply.usage)
        return reply

    def usage(self) -> UsageOutput:
        return UsageOutput(
            calls=len(self._usages),
            prompt_tokens=sum(usage.prompt_tokens for usage in self._usages),
            prompt_reused_tokens=sum(usage.prompt_reused_tokens for usage in self._usages),
            completion_tokens=sum(usage.completion_tokens for usage in self._usages),
            characters_cut=self.characters_cut,
        )

    def _accept(self, reply: Reply, limit: int) -> None:
        """Refuse an answer that ended at a limit that the author did not set, or forbade.

        One that may be used is counted, and the run's notes say how many there were.
        """
        if (most := self.max_tokens) is not None:
            was_ended = reply.done_reason == "repetition" or reply.is_shortened
            if not _is_cut_off(reply, limit):
                how = "ended in a repetition" if was_ended else ""
            elif most < 0:
                how = "ended at the end of the context"
            else:
                how = f"ended at `max_tokens` ({most})"
                if reply.usage.completion_tokens > most:
                    how += ", even with more room"
            if how and self.on_truncated == "error":
                raise StepError(
                    f"the answer {how}, and `on_truncated` is `error`.",
                    remedy="Raise `max_tokens` under `params`, ask for less, or set "
                    "`on_truncated` to `keep` or `continue`.",
                    kind="check",
                )
            if how:
                self.tools.log.tally(self.noun, how)
            return
        if reply.done_reason == "repetition":
            raise StepError(
                f"the answer repeated itself and was ended after "
                f"{reply.usage.completion_tokens} tokens.",
                remedy="Raise `repeat_penalty`, or set `max_tokens` under `params` to accept it.",
                kind="check",
            )
        if reply.done_reason == "length":
            raise StepError(
                f"the answer ended at its limit of {reply.usage.completion_tokens} tokens.",
                remedy="Ask for a shorter one, raise `repeat_penalty` if it repeats itself, "
                "or set `max_tokens` under `params` to accept it.",
                kind="check",
            )
        if not reply.is_shortened:
            return
        # Its schema ended it: the grammar closes an answer a few tokens before the limit.
        if reply.usage.completion_tokens >= _NEAR_LIMIT * limit:
            raise StepError(
                f"the answer reached its limit of {limit} tokens and was closed there.",
                remedy="Ask for less, bound its lists by `maxItems` and its texts by `maxLength`, "
                "or set `max_tokens` under `params`.",
                kind="check",
            )
        self.tools.log.note("the answer repeated itself and was closed there.")


def _is_cut_off(reply: Reply, limit: int) -> bool:
    """Return whether an answer ended at its limit, or was closed there by its grammar."""
    n_near = min(_NEAR_LIMIT * limit, limit - _CLOSING_TOKENS)
    is_closed = reply.is_shortened and reply.usage.completion_tokens >= n_near
    return reply.done_reason == "length" or (is_closed and reply.done_reason != "repetition")


def empty_answer() -> StepError:
    return StepError("the model gave an empty answer.", kind="check")


_SHOWN_CHARS = 160


class CheckedAnswer(Struct, frozen=True):
    text: str
    """Its text; with a schema, the value's JSON."""
    output: Any
    """The value by the schema; None without one."""
    reply: Reply
    evidence: Any = None
    """Where each field of `output` stands; None unless the form asks for it."""
    confidence: Any = None
    """The probability of each field of `output`; None unless the form asks for it."""

    def outputs(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "output": self.output,
            "evidence": self.evidence,
            "confidence": self.confidence,
        }


Shorten = Callable[[PromptTooLong], Awaitable[P]]


async def ask_fitting(ask: Callable[[P], Awaitable[T]], prompt: P, *shorter: Shorten[P]) -> T:
    """Ask; where the pool says that the prompt is too long, by the next shorter one.

    The pool counts, so that a prompt that fits crosses to it once.
    """
    for shorter_prompt in shorter:
        try:
            return await ask(prompt)
        except PromptTooLong as overflow:
            prompt = await shorter_prompt(overflow)
    return await ask(prompt)


def without_examples(caller: ModelCaller, prompt: P) -> Shorten[P]:
    async def shorten(_: PromptTooLong) -> P:
        caller.tools.log.tally("prompt", "without its examples, with which it does not fit")
        return prompt

    return shorten


async def ask_checked(
    caller: ModelCaller,
    messages: Sequence[Message],
    *,
    form: ReplyForm | None = None,
    most_tokens: int | None = None,
) -> CheckedAnswer:
    """Ask, and ask again while the answer fails the form's checks.

    `most_tokens` is that of `ModelCaller.ask`.

    Raises:
        StepError: of kind `check` if it fails them in the end; else as `ModelCaller.ask`.
        EngineError: the prompt does not fit, or the pool could not do it.
    """
    if form is None:
        reply = await caller.ask(messages, most_tokens=most_tokens)
        return CheckedAnswer(reply.text, None, reply)
    constraint = None if form.schema is None else schema_constraint(form.schema)
    n_logprobs = N_ALTERNATIVES if constraint and form.wants_confidence else None
    own_prompt = prompt = with_schema_hint(messages, form)
    before, n_repairs, shows_answer = "", 0, True
    while True:
        reply = await caller.ask(
            prompt, constraint=constraint, n_logprobs=n_logprobs, most_tokens=most_tokens
        )
        answer = _JudgedReply(reply, reply.text)
        if constraint is not None:
            answer = _parsed_reply(reply, form.schema)
        if not answer.wrong:
            answer = replace(answer, wrong=await form.checked(answer.output, answer.text))
        if not answer.wrong:
            break
        if n_repairs and answer.text == before and caller.is_greedy:
            if not shows_answer:
                raise answer.refusal(n_repairs)  # the same prompt would get the same answer
            shows_answer = False  # small models repeat what they see
        again = None
        if n_repairs < form.repair:
            shown = reply if shows_answer else None
            again = await _repair_messages(caller, own_prompt, shown, answer.wrong)
        if again is None:
            raise answer.refusal(n_repairs)
        prompt, before, n_repairs = again, answer.text, n_repairs + 1
    if constraint is None:
        return CheckedAnswer(answer.text, None, reply)
    likely = None
    if form.wants_confidence:
        value = json.loads(reply.text)
        likely = confidence(reply.text, reply.logprobs, value, form.schema)
        _, likely = without_repeats(value, form.schema, likely)
    evidence = await form.evidence(answer.output)
    return CheckedAnswer(answer.text, answer.output, reply, evidence, likely)


class _JudgedReply(Struct, frozen=True):
    reply: Reply
    text: str
    """Its text; with a schema that it holds to, the value's JSON."""
    output: Any = None
    wrong: Sequence[str] = ()
    """Sentences; empty: it passes its checks."""
    way_out: str = "Loosen `check`, raise `repair`, or ask a larger model."

    def refusal(self, n_repairs: int) -> StepError:
        after = f", even after {counted(n_repairs, 'repair')}" if n_repairs else ""
        shown = one_line(self.text, _SHOWN_CHARS)
        what = f"the answer fails its checks{after}. {' '.join(self.wrong)} It was: {shown}"
        is_cut_off = self.reply.done_reason == "length"
        longer = "Raise `max_tokens` under `params`, or ask for less."
        return StepError(what, remedy=longer if is_cut_off else self.way_out, kind="check")


def schema_constraint(schema: Any) -> Constraint:
    return Constraint("json_schema", json.dumps(without_choice_marks(schema), ensure_ascii=False))


_NOT_HELD = "Its server does not hold answers to this schema: ask another, or raise `repair`."


class _NotStorable(ValueError):
    """What Python would change in silence, though a schema may allow it: the message says what."""

    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(what)
        self.way_out = way_out


def _finite(written: str) -> float:
    if not math.isfinite(number := float(written)):
        raise _NotStorable(
            f"Its number {shorten(written, 40)} cannot be stored.",
            "Give the number a `minimum` and a `maximum` in the schema.",
        )
    return number


def _of_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; llguidance 1.9 lets a model write a key of its own choice twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        key = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        what = f"It has the key {shorten(json.dumps(key), 40)} more than once."
        raise _NotStorable(what, "Raise `repair`, or ask another model.")
    return value


def _parsed_reply(reply: Reply, schema: Any) -> _JudgedReply:
    """Return an answer's value, with each label of a list once, or what is wrong.

    Remote servers may not enforce the schema.
    """

    def refused(*wrong: str, way_out: str = _NOT_HELD) -> _JudgedReply:
        return _JudgedReply(reply, reply.text, None, wrong, way_out)

    try:
        value = parse_shallow_json(
            reply.text,
            parse_float=_finite,
            parse_constant=_finite,
            object_pairs_hook=_of_single_keys,
        )
    except NestedTooDeep:
        return refused(TOO_DEEP)
    except _NotStorable as error:
        return refused(str(error), way_out=error.way_out)
    except ValueError:
        if reply.done_reason != "length":
            return refused("It is not JSON.")
        n_tokens = reply.usage.completion_tokens
        return refused(f"It was cut off at its limit of {n_tokens} tokens: it must be shorter.")
    if wrong := [fault.sentence for fault in value_faults(value, schema)]:
        return refused(*wrong)
    output = without_repeats(value, schema)[0]
    text = json.dumps(output, ensure_ascii=False, separators=(",", ":"))
    return _JudgedReply(reply, text, output)


async def _repair_messages(
    caller: ModelCaller, prompt: Sequence[Message], answer: Reply | None, wrong: Sequence[str]
) -> list[Message] | None:
    """Return the prompt for another answer, with the last one if it is given and fits, or None."""
    reasons = "\n".join(f"- {sentence}" for sentence in wrong)
    if answer is not None:
        order = f"This is wrong with your answer:\n{reasons}\nGive the whole answer again."
        repair = (Message("assistant", answer.text), Message("user", order))
        if await caller.overflow([*prompt, *repair]) is None:
            return [*prompt, *repair]
    short = with_ending(prompt, f"Mind this:\n{reasons}")
    return short if await caller.overflow(short) is None else None
