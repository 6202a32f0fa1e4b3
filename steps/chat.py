"""Messages or a prompt to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from paddock.engine.request import Message, Role
from paddock.pipelines.expressions import Template

from .answers.asking import Asker, UsageOutput
from .answers.fitting import most, without_middle
from .prompt import render
from .sampling_params import SamplingParams
from .step import Output, Params, StepError, Tools


class MessageParam(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: str = Field(description="What is said.")


class ChatParams(Params):
    """Parameters of `chat`."""

    one_of: ClassVar[tuple[str, ...]] = ("prompt", "messages")
    not_yet: ClassVar[frozenset[str]] = frozenset({"images", "tools"})

    prompt: Template | None = Field(default=None, description="What the user says.")
    messages: list[MessageParam] | None = Field(
        default=None,
        min_length=1,
        description="A conversation; the model answers its last message.",
    )
    model: str | None = Field(default=None, description="Which model answers.")
    system: Template | None = Field(default=None, description="What the model is told beforehand.")
    vars: dict[str, Any] = Field(default={}, description="More names that the templates may use.")
    images: list[str] = Field(default=[], description="Pictures to look at (not in this version).")
    tools: list[Any] = Field(default=[], description="Tools it may call (not in this version).")
    params: SamplingParams = Field(
        default=SamplingParams(), description="How the answer is sampled; deterministic by default."
    )
    on_overflow: Literal["error", "truncate", "map-reduce", "refine"] = Field(
        default="error",
        description="What happens to a prompt that does not fit: an error, or the middle of its "
        "longest message is left out, and it is said so.",
    )

    @field_validator("on_overflow")
    @classmethod
    def _is_carried_out(cls, value: str) -> str:
        if value in ("map-reduce", "refine"):
            raise ValueError(f"'{value}' is not in this version of `chat`; `summarise` has it")
        return value


class ChatOutput(Output):
    """Outputs of `chat`."""

    text: str
    reasoning: str | None = Field(
        default=None,
        description="What the model thought before it spoke; null if it did not, or is told to "
        "drop it (`models.<alias>.think: drop`).",
    )
    output: Any = Field(default=None, description="The value of `reply.schema`: null without one.")
    usage: UsageOutput
    tool_calls: list[Any] | None = Field(
        default=None, description="Calls that the model asks for, as `{name, arguments, id}`."
    )


class Chat:
    """Messages or a prompt to a model."""

    params: ClassVar[type[ChatParams]] = ChatParams
    output: ClassVar[type[ChatOutput]] = ChatOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset({"chat"})

    def reads(self, params: ChatParams) -> Sequence[str]:
        """Name nothing."""
        return ()

    async def run(self, params: ChatParams, tools: Tools) -> ChatOutput:
        """Ask.

        Raises:
            StepError: a template failed, or the answer ended at a limit the author did not set.
            EngineError: the prompt does not fit, or the pool could not do it.
        """
        model = tools.models.resolve(params.model, "chat")
        asker = Asker(tools, model, params.params.given())
        messages = _messages(params)
        overflow = await asker.overflow(messages)
        if overflow and params.on_overflow == "error":
            raise overflow
        if overflow:
            messages = await _truncated(asker, messages)
        reply = await asker.ask(messages)
        return ChatOutput(
            text=reply.text,
            reasoning=(reply.reasoning or None) if model.keeps_reasoning else None,
            usage=asker.usage(),
            tool_calls=[asdict(call) for call in reply.tool_calls] or None,
        )


def _messages(params: ChatParams) -> list[Message]:
    messages = [Message(one.role, one.content) for one in params.messages or ()]
    if params.prompt is not None:
        messages = [Message("user", render(params.prompt, "prompt", params.vars))]
    if params.system is None:
        return messages
    if messages[0].role == "system":
        raise StepError("both `system` and the first of `messages` are what the model is told.")
    return [Message("system", render(params.system, "system", params.vars)), *messages]


async def _truncated(asker: Asker, messages: list[Message]) -> list[Message]:
    """Leave out the middle of the longest message: instructions stand at either end."""
    where = max(range(len(messages)), key=lambda index: len(messages[index].content))
    text = messages[where].content

    def kept(n: int) -> list[Message]:
        message = Message(messages[where].role, without_middle(text, n))
        return [*messages[:where], message, *messages[where + 1 :]]

    async def fits(n: int) -> bool:
        return await asker.overflow(kept(n)) is None

    n = await most(fits, len(text))
    if n == 0:
        raise await asker.overflow(kept(0)) or StepError("the prompt does not fit.")
    asker.characters_cut = len(text) - n
    asker.tools.log.note(
        f"the prompt does not fit: {asker.characters_cut:,} of its {len(text):,} characters were "
        f"left out of the middle (on_overflow: truncate)."
    )
    return kept(n)
