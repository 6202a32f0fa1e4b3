"""Ask a model once: fit the prompt, wait for the answer, refuse one that ends at its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from paddock.engine.errors import PromptTooLong
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
)
from paddock.steps.step import Output, StepError, Tools

from .sketch import asked

CALLS_AT_ONCE = 8  # where a pool does not tell its places; it mixes those of many documents
_NEAR = 0.9  # of the limit, in tokens
_FREER, _MOST_FREE = 0.3, 0.9  # temperatures


class UsageOutput(Output):
    """What a step's model calls cost."""

    calls: int = 0
    prompt_tokens: int = 0
    prompt_reused_tokens: int = Field(
        default=0, description="Of `prompt_tokens`, found in the KV cache."
    )
    completion_tokens: int = 0
    characters_cut: int = Field(default=0, description="What `on_overflow: truncate` left out.")


@dataclass
class Asker:
    """One step's way to one model; adds up what the calls cost."""

    tools: Tools
    model: ModelSpec
    params: Mapping[str, Any]
    """The step's own sampling parameters."""
    characters_cut: int = 0
    _usages: list[Usage] = field(default_factory=list)

    @property
    def max_tokens(self) -> int | None:
        """The limit that the author set, on the step or on the model."""
        return resolve_sampling(self.params, self.model.params).max_tokens

    async def reserved(self) -> int:
        """Tell how many tokens are kept free for an answer."""
        facts = await self.tools.pool.facts(self.model)
        return reserved_tokens(self.max_tokens, facts.n_ctx_tokens)

    async def room(self) -> int:
        """Tell how many tokens a prompt may have, the answer's share already taken off."""
        facts = await self.tools.pool.facts(self.model)
        return facts.n_ctx_tokens - await self.reserved()

    async def n_at_once(self) -> int:
        """Return how many calls of one document are worth making at once."""
        facts = await self.tools.pool.facts(self.model)
        return facts.n_parallel or CALLS_AT_ONCE

    async def size(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
        """Count a prompt, with what tells the model of `tools`, and of its answer's form."""
        wanted = asked(messages, self.tools.reply)
        return await self.tools.pool.count_chat(self.model, wanted, tools)

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Count texts."""
        return await self.tools.pool.count_texts(self.model, texts)

    async def overflow(
        self, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> PromptTooLong | None:
        """Give the error for a prompt that does not fit, with the numbers."""
        n_tokens, reserved, room = (
            await self.size(messages, tools),
            await self.reserved(),
            await self.room(),
        )
        return None if n_tokens <= room else PromptTooLong(n_tokens, reserved, room + reserved)

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        constraint: Constraint | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
    ) -> Reply:
        """Get an answer; `constraint` and `tools` as in `ChatRequest`.

        Raises:
            StepError: it ended at a limit that the author did not set, or went in circles.
            EngineError: the pool could not do it.
        """
        request = ChatRequest(
            model=self.model,
            messages=tuple(messages),
            params=self._sampling(),
            priority=self.tools.priority,
            total_s=self.tools.total_s,
            idle_s=self.tools.idle_s,
            constraint=constraint,
            tools=tuple(tools),
            tool_choice=tool_choice,
        )
        reply = await self._reply(request)
        self._usages.append(reply.usage)
        await self._accept(reply)
        return reply

    async def _accept(self, reply: Reply) -> None:
        """Refuse an answer that ended at a limit of which its author said nothing."""
        if reply.done_reason == "repetition" and self.max_tokens is None:
            raise StepError(
                f"the answer went in circles, and was ended after "
                f"{reply.usage.completion_tokens} tokens.",
                remedy="Raise `repeat_penalty`, or set `max_tokens` under `params` to accept it.",
                kind="check",
            )
        if reply.done_reason == "length" and self.max_tokens is None:
            raise StepError(
                f"the answer ended at its limit of {reply.usage.completion_tokens} tokens.",
                remedy="Ask for a shorter one, raise `repeat_penalty` if it goes in circles, "
                "or set `max_tokens` under `params` to accept it.",
                kind="check",
            )
        if reply.is_shortened and self.max_tokens is None:
            await self._accept_shortened(reply)

    async def _accept_shortened(self, reply: Reply) -> None:
        """Refuse what its form alone has ended at the limit; what was led out of a circle passes.

        The form's end is found a few tokens before the limit.
        """
        n_tokens = reply.usage.completion_tokens
        if n_tokens >= _NEAR * await self.reserved():
            raise StepError(
                f"the answer reached its limit of {await self.reserved()} tokens, and was cut "
                "to an end there.",
                remedy="Ask for less, bound its lists by `maxItems` and its texts by `maxLength`, "
                "or set `max_tokens` under `params`.",
                kind="check",
            )
        self.tools.log.note("the answer went in circles, and was brought to an end there.")

    @property
    def is_greedy(self) -> bool:
        """Whether the same prompt always gets the same answer."""
        return resolve_sampling(self._sampling(), self.model.params).is_greedy

    def _sampling(self) -> Mapping[str, Any]:
        """Give the parameters of a call; another answer is wanted where one was refused before."""
        n_refused = self.tools.n_refused
        if not n_refused:
            return self.params
        usual = resolve_sampling(self.params, self.model.params)
        freer = max(usual.temperature, min(_MOST_FREE, _FREER * n_refused))
        return {**self.params, "seed": usual.seed + n_refused, "temperature": freer}

    async def _reply(self, request: ChatRequest) -> Reply:
        import asyncio

        stream = self.tools.pool.chat(request)
        try:
            return await stream.reply()
        except asyncio.CancelledError:
            stream.cancel()
            raise

    def usage(self) -> UsageOutput:
        """Add up the calls so far."""
        return UsageOutput(
            calls=len(self._usages),
            prompt_tokens=sum(usage.prompt_tokens for usage in self._usages),
            prompt_reused_tokens=sum(usage.prompt_reused_tokens for usage in self._usages),
            completion_tokens=sum(usage.completion_tokens for usage in self._usages),
            characters_cut=self.characters_cut,
        )
