"""Answers that end at their limit of tokens: continued, asked for again with more room, refused.

`on_truncated` says which. Where the author set no limit, an answer that was cut off or repeated
itself is refused in any case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from paddock.engine.request import ChatRequest, Message, ModelSpec, Reply, Tool, reserved_tokens
from paddock.engine.system.records import Struct, replace
from paddock.steps.base import StepError, Tools

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


class CutOffAnswers(Struct, frozen=True):
    """Asks for answers of one step; treats those that reach their limit as `on_truncated` says."""

    tools: Tools
    model: ModelSpec
    max_tokens: int | None
    """The author's limit, on the step or the model."""
    on_truncated: OnTruncated
    noun: str
    reply: Callable[[ChatRequest], Awaitable[Reply]]
    """Makes one call."""

    async def reserved(self) -> int:
        facts = await self.tools.llm.pool.facts(self.model)
        return reserved_tokens(self.max_tokens, facts.n_ctx_tokens)

    async def ask(self, request: ChatRequest, most_tokens: int | None) -> Reply:
        """Return an answer, whole as far as that can be had; raises what `ModelCaller.ask` does."""
        limit, reply = await self.reserved(), await self.reply(request)
        if self.on_truncated == "continue":
            limit, reply = await self._continued(request, reply, limit, most_tokens)
        elif self.on_truncated == "more" and (self.max_tokens or 0) > 0:
            limit, reply = await self._with_more_room(request, reply, limit, most_tokens)
        self._accept(reply, limit)
        return reply

    async def _continued(
        self, request: ChatRequest, reply: Reply, limit: int, most_tokens: int | None
    ) -> tuple[int, Reply]:
        """Have an answer go on from its last word, each time for as many tokens as the limit.

        A prompt that ends with text of the assistant is continued only by this machine's engine,
        and only where no form or tool makes the answer start again. Else it is asked again whole.
        """
        facts = await self.tools.llm.pool.facts(self.model)
        is_elsewhere = "://" in facts.path
        for _ in range(MOST_CONTINUATIONS):
            if not _is_cut_off(reply, limit) or reply.tool_calls:
                break
            before = reply
            if is_elsewhere or request.constraint or request.tools or not reply.text:
                limit, reply = await self._with_more_room(request, reply, limit, most_tokens)
            else:
                reply = await self._next_piece(request, reply, most_tokens)
            if reply is before:
                break
        return limit, reply

    async def _next_piece(
        self, request: ChatRequest, reply: Reply, most_tokens: int | None
    ) -> Reply:
        """Return an answer with its next piece; the same one if there is no room for that."""
        begun = Message("assistant", reply.text, reasoning=reply.reasoning)
        messages = (*request.messages, begun)
        room = await self._room_after(messages)
        if most_tokens is not None:
            room = min(room, most_tokens - reply.usage.completion_tokens)
        n_tokens = min(await self.reserved(), room)
        if (self.max_tokens or 1) < 0 or n_tokens < 1:
            return reply
        params = {**request.params, "max_tokens": n_tokens}
        piece = await self.reply(replace(request, messages=messages, params=params))
        n_spent = reply.usage.completion_tokens + piece.usage.completion_tokens
        usage = replace(piece.usage, completion_tokens=n_spent)
        return replace(piece, text=reply.text + piece.text, reasoning=reply.reasoning, usage=usage)

    async def _with_more_room(
        self, request: ChatRequest, reply: Reply, limit: int, most_tokens: int | None
    ) -> tuple[int, Reply]:
        if not _is_cut_off(reply, limit) or (self.max_tokens or 1) < 0:
            return limit, reply
        room = await self._room_after(request.messages, request.tools)
        n_tokens = min(2 * limit, room if most_tokens is None else min(room, most_tokens))
        if n_tokens <= limit:
            return limit, reply
        params = {**request.params, "max_tokens": n_tokens}
        return n_tokens, await self.reply(replace(request, params=params))

    async def _room_after(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
        facts = await self.tools.llm.pool.facts(self.model)
        return facts.n_ctx_tokens - await self.tools.llm.pool.count_chat(
            self.model, messages, tools
        )

    def _accept(self, reply: Reply, limit: int) -> None:
        """Refuse an answer that ended at a limit that the author did not set, or forbade.

        One that may be used is counted, and the run's notes say how many there were.
        """
        if self.max_tokens is not None:
            was_ended = reply.done_reason == "repetition" or reply.is_shortened
            if not _is_cut_off(reply, limit):
                how = "ended in a repetition" if was_ended else ""
            elif self.max_tokens < 0:
                how = "ended at the end of the context"
            else:
                how = f"ended at `max_tokens` ({self.max_tokens})"
                if reply.usage.completion_tokens > self.max_tokens:
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
