"""The step `agent`: a model that calls tools until it answers, within limits.

Every request for a tool is checked before anything is called. Time-outs and failures are returned
to the model as tool results. What is read is marked as untrusted for whatever acts on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, Literal

from pydantic import Field, model_validator

from paddock.engine.errors import BadRequest, PromptTooLong, ToolsRefused
from paddock.engine.request import Message, Role, ToolCall, with_system_text
from paddock.engine.system.tasks import run_concurrently, time_limit
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import (
    BoundTool,
    Output,
    Params,
    ReplyForm,
    Step,
    StepError,
    ToolResult,
    Tools,
)
from paddock.steps.paths import resolve_path
from paddock.steps.prompt import render_template

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
    Asker,
    CheckedAnswer,
    UsageOutput,
    ask_checked,
    empty_answer,
)
from .tool_protocol import (
    DOCUMENTS_ONLY,
    AgentTools,
    ModelTurn,
    OfferedTool,
    ToolCallResult,
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
    """Parameters of `agent`."""

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
        default=8,
        ge=1,
        le=MOST_AGENT_TURNS,
        description="The most turns with tools; then the model must answer without.",
    )
    memory: Literal["window", "summary", "store"] = Field(
        default="window",
        description="What happens to the oldest turns when the context is full: dropped, "
        "summarised, or put into a vector store from which the nearest come back.",
    )
    tool_choice: str = Field(
        default="auto",
        min_length=1,
        description="For the first turn: `auto`, `required`, or the name of a tool to call.",
    )
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )
    on_truncated: Literal["keep", "error"] = Field(
        default="keep",
        description="What happens to an answer that ends at `max_tokens`: it is used, and the "
        "report says how many were; or the item fails.",
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> AgentParams:
        refuse_duplicates(self.tools)
        if isinstance(self.tool_choice, str):  # else it is known when the step runs
            refuse_unknown_choice(self.tool_choice, self.tools)
        return self


class AgentOutput(AnswerOutput):
    """Outputs of `agent`."""

    calls: list[Any] = Field(
        description="Its calls in order: `{turn, tool, server, arguments, result, error}`."
    )
    turns: int = Field(description="The number of turns before the final answer.")
    usage: UsageOutput


class Agent(Step[AgentParams, AgentOutput]):
    """A model that may call the listed tools for at most `max_turns` turns."""

    params = AgentParams
    output = AgentOutput
    roles = frozenset({"chat"})
    takes_reply = True

    @staticmethod
    def roles_besides(written: Mapping[str, Any]) -> frozenset[Role]:
        """Return the role of the embedding model for `memory: store`."""
        keeps_texts = written.get("memory", "window") not in ("window", "summary")
        return frozenset({"embed"}) if keeps_texts else frozenset()

    async def run(self, params: AgentParams, tools: Tools) -> AgentOutput:
        model = tools.models.resolve(params.model, "chat")
        asker = Asker(tools, model, params.params.given(), params.on_truncated)
        offered = await offered_tools(params.tools, tools.toolset)
        task = render_template(params.prompt, "prompt", params.vars)
        messages = [Message("user", task)]
        if params.system is not None:
            system = render_template(params.system, "system", params.vars)
            messages.insert(0, Message("system", system))
        kept = await _turn_store(params.memory, asker, task)
        talk = AgentConversation(
            asker, offered, params.max_turns, kept, resolve_choice(params.tool_choice, offered)
        )
        try:
            ended = await talk.work(messages, tools.reply)
        finally:
            if kept is not None:
                await kept.close()
        return AgentOutput(
            **ended.answer.outputs(),
            calls=[call.model_dump(mode="json") for call in ended.calls],
            turns=ended.n_turns,
            usage=asker.usage(),
        )


async def _turn_store(memory: str, asker: Asker, task: str) -> TurnStore | None:
    """Return the store for turns that no longer fit; None: they are lost."""
    if memory == "window":
        return None
    return await turn_notes(asker, task) if memory == "summary" else recalled_turns(asker)


MOST_CONCURRENT_CALLS = 8
MOST_CALLS_PER_TURN = 16
_GRACE_S = 5.0  # a tool keeps its own deadline; this one is for a tool that does not


class CallOutput(Output):
    """One call of the model, and its result."""

    turn: int
    tool: str
    server: str | None = None
    arguments: dict[str, Any]
    result: Any = Field(default=None, description="The result; null if it failed.")
    error: str | None = Field(default=None, description="Why it failed or was refused.")


@dataclass(frozen=True, slots=True)
class CallResult:
    """A call, its text for the model, and its record in the output."""

    call: ToolCall
    text: str
    output: CallOutput
    is_repeated: bool = False


@dataclass
class ToolCaller:
    """Calls the tools of one conversation; remembers calls and results."""

    tools: Tools
    offered: Mapping[str, OfferedTool]
    """By the names that the model uses."""
    foreign: dict[str, None] = field(default_factory=dict)
    """Sources of untrusted text in the conversation, in order."""
    _known: dict[str, CallResult] = field(default_factory=dict)
    """Successful calls."""
    _tried: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    async def carry_out(self, calls: Sequence[ToolCall], turn: int) -> list[CallResult]:
        """Make the calls of a turn; at the same time, unless one has side effects.

        Raises:
            StepError: a tool failed fatally.
        """
        first: dict[str, ToolCall] = {}
        for call in calls:
            first.setdefault(_call_key(call), call)

        async def carry_out_numbered(numbered: tuple[int, ToolCall]) -> CallResult:
            return await self._carry_out_call(numbered[1], turn, numbered[0])

        n_at_once = 1 if any(map(self._has_effects, calls)) else MOST_CONCURRENT_CALLS
        done = await run_concurrently(carry_out_numbered, enumerate(first.values()), n_at_once)
        for result in done:
            self._note(result)
        made = dict(zip(first, done, strict=True))
        # Equal calls of a turn are made once and answered twice: each has its id.
        return [replace(made[_call_key(call)], call=call) for call in calls]

    def _note(self, done: CallResult) -> None:
        """Remember a call, and whether its result is untrusted."""
        offer = self.offered.get(done.call.name)
        is_refusal = done.output.error == _not_allowed_text(done.call.name)
        if offer is not None and offer.returns_untrusted and not is_refusal:
            self.foreign[f"the results of '{done.output.tool}'"] = None
        if self._has_effects(done.call) and done.output.error is None:
            # Earlier results may be stale now, and failed calls may succeed.
            known = self._known.items()
            self._known = {key: result for key, result in known if self._has_effects(result.call)}
        if done.output.error is None:
            self._known.setdefault(_call_key(done.call), done)
        self._tried.add(_call_key(done.call))

    def _has_effects(self, call: ToolCall) -> bool:
        offer = self.offered.get(call.name)
        return offer is not None and offer.bound is not None and offer.bound.has_effects

    async def _carry_out_call(self, call: ToolCall, turn: int, number: int) -> CallResult:
        offer = self.offered.get(call.name)
        tool = offer.bound if offer is not None else None
        output = CallOutput(
            turn=turn,
            tool=tool.name if tool is not None else call.name,
            server=tool.server if tool is not None else None,
            arguments=dict(call.arguments),
        )
        if offer is None or tool is None:
            why = f"There is no tool '{call.name}'. There are: {', '.join(self.offered)}."
            return _failed_call(call, output, why)
        if number >= MOST_CALLS_PER_TURN:
            why = f"Not called: at most {MOST_CALLS_PER_TURN} tools are called at once."
            return _failed_call(call, output, why)
        before = self._known.get(_call_key(call))
        if before is not None:
            return _repeated_call(call, output, before)
        if tool.has_effects and self.foreign and not offer.may_be_tainted:
            self._note_refusal(tool)
            refused = _failed_call(call, output, _not_allowed_text(call.name))
            return replace(refused, is_repeated=_call_key(call) in self._tried)
        return await self._run(tool, offer.root, call, output)

    async def _run(
        self, tool: BoundTool, root: str, call: ToolCall, output: CallOutput
    ) -> CallResult:
        result = await self._called(tool, call)
        if result.is_error:
            is_repeated = _call_key(call) in self._tried  # a retry may succeed, but not forever
            return replace(_failed_call(call, output, result.text), is_repeated=is_repeated)
        for path in _documents_read_by(tool, root, result.value):
            await self.tools.outputs.note_file_read(resolve_path(self.tools.roots, path))
        return CallResult(call, result.text, output.model_copy(update={"result": result.value}))

    def _note_refusal(self, tool: BoundTool) -> None:
        if tool.name in self._refused:
            return
        self._refused.add(tool.name)
        server = f", server: {tool.server}" if tool.server else ""
        self.tools.log.note(
            f"the model wanted to call '{tool.name}', which has side effects, in a conversation "
            f"with untrusted text ({', '.join(self.foreign)}); it was refused. If that text "
            f"may make it do so, write `{{name: {tool.name}{server}, allow: tainted}}`."
        )

    async def _called(self, tool: BoundTool, call: ToolCall) -> ToolResult:
        """Call a tool; a call with side effects is not repeated for this item after a kill."""
        if not _is_called_once(tool):
            return await _call_within_time(tool, call.arguments)
        item = self.tools.item
        request = {
            "tool": tool.name,
            "server": tool.server,
            "arguments": dict(call.arguments),
            "item": [item.owner, item.step, item.key, item.attempt],
        }

        async def do() -> dict[str, Any]:
            result = await _call_within_time(tool, call.arguments)
            if result.is_error:
                raise _CallRefused(result)  # not recorded: it may succeed the next time
            return {"text": result.text, "value": result.value}

        try:
            return ToolResult(**await self.tools.memo.once("turn", request, do))
        except _CallRefused as refusal:
            return refusal.result


def _is_called_once(tool: BoundTool) -> bool:
    """Return whether a call is made once for an item, however often the item is restarted.

    True for side effects; and for the time, or no later call could be found in the cache. Fetching
    a page again has no side effects.
    """
    if tool.server is None and tool.name in ("now", "http.get"):
        return tool.name == "now"
    return tool.has_effects


def _documents_read_by(tool: BoundTool, root: str, value: Any) -> list[str]:
    """Return the documents that a built-in tool has read: the answer depends on them."""
    if tool.server is not None or tool.name not in ("files.read", "files.search"):
        return []
    found = value if isinstance(value, list) else [value]
    names = (document.get("path") for document in found if isinstance(document, Mapping))
    return list(dict.fromkeys(f"{root}/{name}" for name in names if isinstance(name, str)))


class _CallRefused(Exception):
    def __init__(self, result: ToolResult) -> None:
        self.result = result
        super().__init__(result.text)


async def _call_within_time(tool: BoundTool, arguments: Mapping[str, Any]) -> ToolResult:
    """Call a tool. Time-outs and failures are returned to the model as tool results."""
    try:
        async with time_limit(tool.timeout_s + _GRACE_S):
            return await tool.call(dict(arguments))
    except TimeoutError:
        return ToolResult(f"It gave no result within {tool.timeout_s:g} s.", is_error=True)
    except StepError as error:
        if error.is_fatal:
            raise
        return ToolResult(error.reason, is_error=True)


def _failed_call(call: ToolCall, output: CallOutput, why: str) -> CallResult:
    return CallResult(call, f"Error: {why}", output.model_copy(update={"error": why}))


def _repeated_call(call: ToolCall, output: CallOutput, before: CallResult) -> CallResult:
    text = (
        f"You have made this call before. Do not repeat it: use its result, or answer.\n"
        f"{before.text}"
    )
    made = output.model_copy(update={"result": before.output.result})
    return CallResult(call, text, made, is_repeated=True)


def _not_allowed_text(tool: str) -> str:
    return f"'{tool}' is not allowed here, since it changes something. Go on without it."


def _call_key(call: ToolCall) -> str:
    return f"{call.name}\n{json.dumps(call.arguments, sort_keys=True, ensure_ascii=False)}"


_OUT_OF_TURNS = "You can use no more tools. Answer the task now, with what you have found."
_IN_FORM = "Answer the task now, with what you have found, in the form that is asked for."
_MOST_REPEATS = 2


@dataclass(frozen=True, slots=True)
class AgentResult:
    """The answer, the calls and the number of turns."""

    answer: CheckedAnswer
    calls: tuple[CallOutput, ...]
    n_turns: int


@dataclass
class AgentConversation:
    """One model with its tools, for one task."""

    asker: Asker
    offered: Sequence[OfferedTool]
    max_turns: int
    kept: TurnStore | None
    first_choice: str = "auto"
    """For the first turn: `auto`, `required`, or the name of a tool."""

    async def work(self, messages: Sequence[Message], form: ReplyForm | None) -> AgentResult:
        """Run turns until the model answers.

        Raises:
            StepError: it gave no answer, or one that fails what `form` asks for.
            EngineError: the task does not fit, or the pool could not do it.
        """
        tools = self.asker.tools
        offered = {offer.tool.name: offer for offer in self.offered}
        caller = ToolCaller(tools, offered, dict.fromkeys(tools.untrusted))
        if tools.untrusted:
            messages = with_system_text(messages, DOCUMENTS_ONLY)
        protocol, memory, turn = await self._first_turn(messages)
        outputs: list[CallOutput] = []
        n_turns, n_repeats = 1, 0
        while turn is not None and turn.calls:
            turn = with_call_ids(turn, n_turns)
            done = await caller.carry_out(turn.calls, n_turns)
            outputs += [result.output for result in done]
            n_repeats = n_repeats + 1 if all(result.is_repeated for result in done) else 0
            await self._remember(protocol, memory, turn, done)
            if n_turns < self.max_turns and n_repeats < _MOST_REPEATS:
                turn = await _turn(protocol, memory, "auto")
                n_turns += 1
            else:
                turn = None
                self._note_end(n_turns, n_repeats)
        answer = await self._answer(messages, protocol, memory, turn, form)
        memory.note_dropped_turns()
        return AgentResult(answer, tuple(outputs), n_turns)

    async def _first_turn(
        self, messages: Sequence[Message]
    ) -> tuple[ToolProtocol, ConversationMemory, ModelTurn | None]:
        facts = await self.asker.tools.pool.facts(self.asker.model)
        protocol, memory = self._begun(messages, facts.takes_tools)
        try:
            return protocol, memory, await _turn(protocol, memory, self.first_choice)
        except (BadRequest, ToolsRefused) as error:
            if facts.takes_tools is not None or "tool" not in str(error).lower():
                raise
        # The server reports only on a request that its template has no tools.
        protocol, memory = self._begun(messages, takes_tools=False)
        return protocol, memory, await _turn(protocol, memory, self.first_choice)

    def _begun(
        self, messages: Sequence[Message], takes_tools: bool | None
    ) -> tuple[ToolProtocol, ConversationMemory]:
        warns = any(offer.returns_untrusted for offer in self.offered)
        tools = [offer.tool for offer in self.offered]
        protocol = tool_protocol_for(self.asker, tools, takes_tools, warns=warns)
        head = protocol.opened(messages)
        return protocol, ConversationMemory(self.asker, protocol.tools, head, self.kept)

    async def _remember(
        self,
        protocol: ToolProtocol,
        memory: ConversationMemory,
        turn: ModelTurn,
        done: Sequence[CallResult],
    ) -> None:
        results = [ToolCallResult(result.call, result.text) for result in done]
        given = await memory.fitting(turn.message, results)
        is_new = [result.output.error is None and not result.is_repeated for result in done]
        found = turn_text("", list(compress(given, is_new)))
        words = turn_text(turn.text, given)
        memory.turns.append(AgentTurn(turn.message, tuple(protocol.results(given)), words, found))

    def _note_end(self, n_turns: int, n_repeats: int) -> None:
        if n_turns == 1 and not n_repeats:
            return  # so the author wants it: one round of calls, then an answer
        why = "went on repeating its calls" if n_repeats else f"used all its {n_turns} turns"
        self.asker.tools.log.note(f"the model {why}, and was made to answer without tools.")

    async def _answer(
        self,
        messages: Sequence[Message],
        protocol: ToolProtocol,
        memory: ConversationMemory,
        turn: ModelTurn | None,
        form: ReplyForm | None,
    ) -> CheckedAnswer:
        """Return what the model has answered, or have it answer now."""
        if turn is not None and (form is None or await _passes_checks(form, turn.text)):
            if not turn.text.strip():
                raise empty_answer()
            return CheckedAnswer(turn.text, None, turn.reply)
        if turn is not None:
            memory.turns.append(AgentTurn(turn.message, (), turn.text, turn.text))
        closing = _OUT_OF_TURNS if turn is None else _IN_FORM

        async def answer(*, counts: bool) -> CheckedAnswer:
            if protocol.answers_without_tools:
                prompt = await memory.in_plain_words(messages, counts=counts)
            else:
                prompt = await memory.shown(closing, counts=counts)
            if form is None and not protocol.answers_without_tools:
                final = await protocol.ask(prompt, choice="none")
                return CheckedAnswer(final.text, None, final.reply)
            return await ask_checked(self.asker, prompt, form=form)

        try:
            last = await answer(counts=False)
        except PromptTooLong:
            last = await answer(counts=True)
        if not last.text.strip():
            raise empty_answer()
        return last


async def _turn(protocol: ToolProtocol, memory: ConversationMemory, choice: str) -> ModelTurn:
    """Ask for the next turn; only where the pool refuses it is it counted and shortened."""
    try:
        return await protocol.ask(await memory.shown(counts=False), choice=choice)
    except PromptTooLong:
        return await protocol.ask(await memory.shown(), choice=choice)


async def _passes_checks(form: ReplyForm, text: str) -> bool:
    return form.schema is None and not (await form.checked(None, text)).failures
