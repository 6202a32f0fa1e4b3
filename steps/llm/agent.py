"""The step `agent`: a model that works on a task with tools, for a bounded number of turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from paddock.engine.request import Message, Role
from paddock.pipelines.expressions import Template
from paddock.steps.base import Output, Params, Tools
from paddock.steps.prompt import render_template

from .ask import Asker, UsageOutput
from .sampling_params import SamplingParams
from .tool_specs import AgentTools, function_files, refuse_duplicates, refuse_unknown_choice

if TYPE_CHECKING:
    from .agent_memory import TurnStore

MOST_AGENT_TURNS = 100


class AgentParams(Params):
    """Parameters of `agent`."""

    prompt: Template = Field(description="The task.")
    tools: list[AgentTools] = Field(
        min_length=1,
        description="What it may call: names of tools, or mappings with `server` and `allow`.",
        examples=[["calculator"]],
    )
    model: str | None = Field(default=None, description="Which model works.")
    system: Template | None = Field(default=None, description="What the model is told beforehand.")
    vars: dict[str, Any] = Field(default={}, description="More names that the templates may use.")
    max_turns: int = Field(
        default=8,
        ge=1,
        le=MOST_AGENT_TURNS,
        description="So often it may call tools; then it is made to answer without.",
    )
    memory: Literal["window", "summary", "store"] = Field(
        default="window",
        description="What becomes of the oldest turns when the context is full: they go, are "
        "summed up, or are put into a store from where the nearest come back.",
    )
    tool_choice: str = Field(
        default="auto",
        min_length=1,
        description="Of the first turn: `auto`, `required`, or the name of the tool to call.",
    )
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> AgentParams:
        refuse_duplicates(self.tools)
        if isinstance(self.tool_choice, str):  # else it is known when the step runs
            refuse_unknown_choice(self.tool_choice, self.tools)
        return self


class AgentOutput(Output):
    """Outputs of `agent`."""

    text: str
    output: Any = Field(default=None, description="The value of `reply.schema`: null without one.")
    calls: list[Any] = Field(
        description="Its calls in order: `{turn, tool, server, arguments, result, error}`."
    )
    turns: int = Field(description="How often it spoke before its answer was asked for.")
    usage: UsageOutput


class Agent:
    """A model that may call the listed tools for at most `max_turns` turns."""

    params: ClassVar[type[AgentParams]] = AgentParams
    output: ClassVar[type[AgentOutput]] = AgentOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset({"chat"})
    takes_reply: ClassVar[bool] = True

    @staticmethod
    def roles_besides(written: Mapping[str, Any]) -> frozenset[Role]:
        """Return the role of the model that a memory in a store asks for vectors."""
        keeps_texts = written.get("memory", "window") not in ("window", "summary")
        return frozenset({"embed"}) if keeps_texts else frozenset()

    def reads(self, params: AgentParams) -> Sequence[str]:
        """Name the files of its functions; what its tools read shows when they are called."""
        return function_files(params.tools)

    async def run(self, params: AgentParams, tools: Tools) -> AgentOutput:
        """Work on the task.

        Raises:
            StepError: there is no such tool, or the model gave no answer as `reply` wants it.
            EngineError: the task does not fit, or the pool could not do it.
        """
        from .agent_loop import AgentConversation
        from .tool_protocol import resolve_choice
        from .tool_specs import offered_tools

        model = tools.models.resolve(params.model, "chat")
        asker = Asker(tools, model, params.params.given())
        offered = await offered_tools(params.tools, tools.toolset)
        task = render_template(params.prompt, "prompt", params.vars)
        messages = [Message("user", task)]
        if params.system is not None:
            messages.insert(
                0, Message("system", render_template(params.system, "system", params.vars))
            )
        kept = await _turn_store(params.memory, asker, task)
        talk = AgentConversation(
            asker, offered, params.max_turns, kept, resolve_choice(params.tool_choice, offered)
        )
        try:
            ended = await talk.work(messages, tools.reply)
        finally:
            await kept.close()
        return AgentOutput(
            text=ended.text,
            output=ended.output,
            calls=[call.model_dump(mode="json") for call in ended.calls],
            turns=ended.n_turns,
            usage=asker.usage(),
        )


async def _turn_store(memory: str, asker: Asker, task: str) -> TurnStore:
    """Return what keeps turns that no longer fit."""
    if memory == "window":
        from .agent_memory import NoTurnStore

        return NoTurnStore()
    from . import agent_memory

    return (
        await agent_memory.turn_notes(asker, task)
        if memory == "summary"
        else agent_memory.recalled_turns(asker)
    )
