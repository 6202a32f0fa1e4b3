"""The step `agent`: a model that calls tools until it answers, within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, Literal

from pydantic import Field, model_validator

from paddock.engine.errors import BadRequest, PromptTooLong, ToolsRefused
from paddock.engine.request import Message, Role, with_system_text
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import Params, Step, Tools
from paddock.steps.facts import CallFacts, Facts, TextFacts, Written
from paddock.steps.prompt import render_template
from paddock.steps.tools.tool_names import TRUSTED_TOOLS, listed_tools

from .agent_memory import (
    AgentTurn,
    ConversationMemory,
    TurnStore,
    recalled_turns,
    turn_notes,
    turn_text,
)
from .ask_and_repair import (
    AnswerOutput,
    CheckedAnswer,
    ModelCaller,
    UsageOutput,
    ask_checked,
    ask_fitting,
    empty_answer,
)
from .tool_calls import CallOutput, ToolCaller
from .tool_protocol import (
    DOCUMENTS_ONLY,
    AgentTools,
    ModelTurn,
    OfferedTool,
    ToolProtocol,
    offered_tools,
    refuse_duplicates,
    refuse_unknown_choice,
    resolve_choice,
    tool_protocol_for,
    with_call_ids,
)

MOST_AGENT_TURNS = 100


class AgentParams(Params):
    prompt: Template = Field(description="The task.")
    tools: list[AgentTools] = Field(
        min_length=1,
        description="The tools that it may call: names, or mappings with `server` and `allow`.",
        examples=[["calculator"]],
    )
    model: str | None = Field(default=None, description="Which model to use.")
    system: Template | None = Field(default=None, description="The system prompt.")
    vars: dict[str, Any] = Field(default={}, description="More names that the templates may use.")
    max_turns: int = Field(
        default=8, ge=1, le=MOST_AGENT_TURNS, description="The most turns with tools."
    )
    memory: Literal["window", "summary", "store"] = Field(
        default="window",
        description="When the context is full, the oldest turns are dropped, summarised, or put "
        "into a store from which the nearest come back.",
    )
    tool_choice: str = Field(
        default="auto",
        min_length=1,
        description="For the first turn: `auto`, `required`, or the name of a tool.",
    )
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )
    on_truncated: Literal["keep", "error"] = Field(
        default="keep",
        description="If an answer ends at `max_tokens`: it is used, and counted in the report; or "
        "the item fails.",
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> AgentParams:
        refuse_duplicates(self.tools)
        if isinstance(self.tool_choice, str):  # else it is known when the step runs
            refuse_unknown_choice(self.tool_choice, self.tools)
        return self


class AgentOutput(AnswerOutput):
    calls: list[Any] = Field(
        description="Its calls in order: `{turn, tool, server, arguments, result, error}`."
    )
    turns: int = Field(description="The number of turns before the final answer.")
    usage: UsageOutput


def _brings_text(written: Written) -> bool:
    tools = written.get("tools")
    if not isinstance(tools, list):
        return True
    return not all(isinstance(tool, str) and tool in TRUSTED_TOOLS for tool in tools)


def _most_calls(written: Written, _has_reply: bool) -> int | None:
    n_turns = written.get("max_turns", AgentParams.model_fields["max_turns"].default)
    if not isinstance(n_turns, int):
        return None  # an expression
    memory = written.get("memory", "window")
    n_memory_calls = {"window": 0, "summary": n_turns, "store": 3 * n_turns + 3}.get(memory)
    return None if n_memory_calls is None else n_turns + 1 + n_memory_calls


class Agent(Step[AgentParams, AgentOutput]):
    """A model that may call the listed tools for at most `max_turns` turns."""

    params = AgentParams
    output = AgentOutput
    roles = frozenset({"chat"})
    takes_reply = True
    facts = Facts(
        texts=TextFacts(_brings_text, without=("usage",)),
        tools=listed_tools,
        calls=CallFacts(_most_calls),
    )

    @staticmethod
    def roles_besides(written: Mapping[str, Any]) -> frozenset[Role]:
        keeps_texts = written.get("memory", "window") not in ("window", "summary")
        return frozenset({"embed"}) if keeps_texts else frozenset()

    async def run(self, params: AgentParams, tools: Tools) -> AgentOutput:
        model = tools.llm.models.resolve(params.model, "chat")
        caller = ModelCaller(tools, model, params.params.given(), params.on_truncated)
        offered = await offered_tools(params.tools, tools.calls.toolset)
        task = render_template(params.prompt, "prompt", params.vars)
        messages = [Message("user", task)]
        if params.system is not None:
            system = render_template(params.system, "system", params.vars)
            messages.insert(0, Message("system", system))
        store: TurnStore | None = None  # turns that no longer fit are lost
        if params.memory == "summary":
            store = await turn_notes(caller, task)
        elif params.memory == "store":
            store = recalled_turns(caller)
        choice = resolve_choice(params.tool_choice, offered)
        try:
            answer, calls, n_turns = await _work(
                caller, messages, offered, choice, params.max_turns, store
            )
        finally:
            if store is not None:
                await store.close()
        return AgentOutput(
            **answer.outputs(),
            calls=[call.model_dump(mode="json") for call in calls],
            turns=n_turns,
            usage=caller.usage(),
        )


_OUT_OF_TURNS = "You can use no more tools. Answer the task now, with what you have found."
_IN_FORM = "Answer the task now, with what you have found, in the form that is asked for."
_MOST_REPEATS = 2


async def _work(
    caller: ModelCaller,
    messages: Sequence[Message],
    offers: Sequence[OfferedTool],
    first_choice: str,
    max_turns: int,
    kept: TurnStore | None,
) -> tuple[CheckedAnswer, list[CallOutput], int]:
    """Run turns until the model answers; return the answer, the calls, the number of turns.

    Raises:
        StepError: it gave no answer, or one that fails what `reply` asks for.
        EngineError: the task does not fit, or the pool could not do it.
    """
    tools = caller.tools
    offered = {offer.tool.name: offer for offer in offers}
    tool_caller = ToolCaller(tools, offered, dict.fromkeys(tools.calls.untrusted))
    if tools.calls.untrusted:
        messages = with_system_text(messages, DOCUMENTS_ONLY)
    facts = await tools.llm.pool.facts(caller.model)
    turn: ModelTurn | None = None
    for takes_tools in (facts.takes_tools, False):
        protocol = tool_protocol_for(
            caller,
            [offer.tool for offer in offers],
            takes_tools,
            warns=any(offer.returns_untrusted for offer in offers),
        )
        head = protocol.opened(messages)
        memory = ConversationMemory(caller, protocol.tools, head, kept)
        try:
            turn = await _turn(protocol, memory, first_choice)
            break
        except (BadRequest, ToolsRefused) as error:
            # A server reports only on a request that its template has no tools.
            if takes_tools is not None or "tool" not in str(error).lower():
                raise
    outputs: list[CallOutput] = []
    n_turns, n_repeats = 1, 0
    while turn is not None and turn.calls:
        turn = with_call_ids(turn, n_turns)
        done = await tool_caller.carry_out(turn.calls, n_turns)
        outputs += [result.output for result in done]
        n_repeats = n_repeats + 1 if all(result.is_repeated for result in done) else 0
        results = await memory.fitting(turn.message, done)
        is_new = [result.output.error is None and not result.is_repeated for result in done]
        words = turn_text(turn.text, results)
        found = turn_text("", list(compress(results, is_new)))
        shown = tuple(protocol.results(results))
        memory.turns.append(AgentTurn(turn.message, shown, words, found))
        if n_turns < max_turns and n_repeats < _MOST_REPEATS:
            turn = await _turn(protocol, memory, "auto")
            n_turns += 1
            continue
        turn = None
        if n_turns > 1 or n_repeats:  # else the author wants one round of calls
            used = f"used all its {n_turns} turns"
            why = "went on repeating its calls" if n_repeats else used
            tools.log.note(f"the model {why}, and was made to answer without tools.")
    answer = await _answer(messages, protocol, memory, turn)
    memory.note_dropped_turns()
    return answer, outputs, n_turns


async def _answer(
    messages: Sequence[Message],
    protocol: ToolProtocol,
    memory: ConversationMemory,
    turn: ModelTurn | None,
) -> CheckedAnswer:
    form = memory.caller.tools.reply
    if turn is not None:
        is_done = form is None or (form.schema is None and not await form.checked(None, turn.text))
        if is_done and not turn.text.strip():
            raise empty_answer()
        if is_done:
            return CheckedAnswer(turn.text, None, turn.reply)
        memory.turns.append(AgentTurn(turn.message, (), turn.text, turn.text))
    closing = _OUT_OF_TURNS if turn is None else _IN_FORM

    async def prompt(overflow: PromptTooLong | None = None) -> list[Message]:
        counts = overflow is not None
        if protocol.answers_without_tools:
            return await memory.in_plain_words(messages, counts=counts)
        return await memory.shown(closing, counts=counts)

    async def ask(prompt: list[Message]) -> CheckedAnswer:
        if form is None and not protocol.answers_without_tools:
            final = await protocol.ask(prompt, choice="none")
            return CheckedAnswer(final.text, None, final.reply)
        return await ask_checked(memory.caller, prompt, form=form)

    last = await ask_fitting(ask, await prompt(), prompt)
    if not last.text.strip():
        raise empty_answer()
    return last


async def _turn(protocol: ToolProtocol, memory: ConversationMemory, choice: str) -> ModelTurn:
    """Ask for the next turn; only where the pool refuses it is it counted and shortened."""
    ask = partial(protocol.ask, choice=choice)
    return await ask_fitting(ask, await memory.shown(counts=False), lambda _: memory.shown())
