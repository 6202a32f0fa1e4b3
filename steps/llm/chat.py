"""The step `chat`: messages or a prompt to a model, with images for a model with vision."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import Message, Reply, Role
from paddock.engine.system.no_links import open_file
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.pipelines.prompt_file import ConversationTemplate, MessageParam
from paddock.steps.base import Params, Step, StepError, Tools
from paddock.steps.facts import CallFacts, Facts, TextFacts, Use, Written
from paddock.steps.paths import printable, refusing, resolve_path
from paddock.steps.prompt import render_template
from paddock.steps.text.text_parts import to_part
from paddock.steps.tools.tool_names import listed_tools

from .ask_and_repair import AnswerOutput, CheckedAnswer, ModelCaller, UsageOutput, ask_checked
from .cut_off_answers import MOST_CONTINUATIONS
from .map_reduce import DivisiblePrompt, MapReduce
from .prompt_truncation import truncate_messages
from .tool_protocol import ChatTools, refuse_duplicates, refuse_unknown_choice, request_tool_calls

MOST_IMAGE_BYTES = 32 * 1024 * 1024  # as the engine's
MOST_IMAGES = 32
"""Each takes hundreds of tokens; more would fill a context."""


class ExamplesParam(BaseModel):
    """Where examples of answers come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: Literal["reviews"] = Field(
        default="reviews",
        alias="from",
        description="`reviews`: answers that people accepted or edited.",
    )
    k: int = Field(
        default=4, ge=0, le=16, description="How many at most, the nearest to the text; 0: none."
    )


class AskParams(Params):
    """What a model is asked."""

    one_of: ClassVar[tuple[str, ...]] = ("prompt", "messages")
    conversations: ClassVar[frozenset[str]] = frozenset({"prompt"})

    prompt: Annotated[Template | None, Use.PROMPT] = Field(
        default=None, description="The user's message."
    )
    messages: list[MessageParam] | None = Field(
        default=None,
        min_length=1,
        description="A conversation; the model answers its last message.",
    )
    model: str | None = Field(default=None, description="Which model to use.")
    system: Template | None = Field(default=None, description="The system prompt.")
    vars: dict[str, Any] = Field(default={}, description="More names that the templates may use.")
    images: Annotated[list[str], Use.CONTENTS, Use.PATHS] = Field(
        default=[], description="Images (PNG, JPEG, GIF, BMP, WebP) for the last message."
    )
    examples: Annotated[ExamplesParam | None, Use.EXAMPLES] = Field(
        default=None,
        description="Decisions of people stand before the prompt, each as a text and its answer: "
        "those whose texts are nearest by the default embedding model.",
    )

    async def conversation(self, tools: Tools) -> list[Message]:
        """Return the messages; raise StepError if an image cannot be read."""
        messages = _messages_of(self)
        return await _with_images(messages, self.images, tools) if self.images else messages


class ChatParams(AskParams):
    tools: list[ChatTools] = Field(
        default=[],
        description="Tools that the model may ask for; its calls are the output `tool_calls`, and "
        "only the step `agent` makes them.",
    )
    tool_choice: str = Field(
        default="auto",
        min_length=1,
        description="`auto`, `none`, `required`, or the name of a tool.",
    )
    params: SamplingParams = Field(
        default=SamplingParams(), description="How answers are sampled; deterministic by default."
    )
    on_overflow: Literal["error", "truncate", "map-reduce", "refine"] = Field(
        default="error",
        description="If a prompt does not fit: an error; the middle of its longest message is left "
        "out, with a note; or the longest text that `prompt` inserts is read in parts.",
    )
    on_truncated: Literal["keep", "error", "continue"] = Field(
        default="keep",
        description="If an answer ends at `max_tokens`: it is used, and counted in the report; the "
        "item fails; or the model goes on there, at most 8 times and within the context (with "
        "`reply.schema`, `tools` or another server's model: is asked again with twice the room).",
    )

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> ChatParams:
        if self.on_overflow in ("map-reduce", "refine"):
            setting = f"`on_overflow: {self.on_overflow}`"
            if self.prompt is None:
                why = "it divides the longest text that the prompt inserts"
                raise ValueError(f"{setting} needs `prompt`: {why}")
            if self.images or self.tools:
                raise ValueError(f"{setting} cannot be combined with `images` or `tools`")
        if self.examples is not None and self.tools:
            raise ValueError("`examples` cannot be combined with `tools`")
        refuse_duplicates(self.tools)
        if isinstance(self.tool_choice, str):  # else known only when the step runs
            if self.tool_choice not in ("auto", "none") and not self.tools:
                raise ValueError(f"`tool_choice: {self.tool_choice}` needs `tools`")
            refuse_unknown_choice(self.tool_choice, self.tools)
        return self


class ChatOutput(AnswerOutput):
    reasoning: str | None = Field(
        default=None,
        description="The model's reasoning; null if it has none, or drops it "
        "(`models.<alias>.think: drop`).",
    )
    usage: UsageOutput
    tool_calls: list[Any] | None = Field(
        default=None,
        description="Calls that the model asks for, as `{name, arguments, id}`, and the `server`.",
    )


def _most_calls(written: Written, has_reply: bool) -> int | None:
    if "tools" in written and has_reply:
        return 2  # what it calls, then an answer of that form
    return None if _may_read_in_parts(written) else 1


def _may_read_in_parts(written: Written) -> bool:
    return written.get("on_overflow") in ("map-reduce", "refine")


def _most_repeats(written: Written, _of_model: Written) -> int:
    is_left = written.get("on_truncated", "keep") in ("keep", "error")
    return 0 if is_left else MOST_CONTINUATIONS


class Chat(Step[ChatParams, ChatOutput]):
    """Messages or a prompt to a model."""

    params = ChatParams
    output = ChatOutput
    roles = frozenset({"chat"})
    takes_reply = True
    facts = Facts(
        only_reads=True,
        is_repeatable=True,
        only_answers=True,
        only_measures=True,
        texts=TextFacts(lambda written: bool(written.get("images")), without=("usage",)),
        tools=partial(listed_tools, may_be_its_own=True),
        calls=CallFacts(_most_calls, _may_read_in_parts, most_repeats=_most_repeats),
    )

    @staticmethod
    def roles_besides(written: Mapping[str, Any]) -> frozenset[Role]:
        return frozenset({"embed"} if written.get("examples") else ())

    def reads(self, params: ChatParams) -> Sequence[str]:
        return params.images

    async def run(self, params: ChatParams, tools: Tools) -> ChatOutput:
        model = tools.llm.models.resolve(params.model, "chat")
        caller = ModelCaller(tools, model, params.params.given(), params.on_truncated)
        messages = await params.conversation(tools)
        if params.tools:  # only an answer must match `reply`
            turn, calls = await request_tool_calls(
                caller, messages, params.tools, params.tool_choice
            )
            answer = CheckedAnswer(turn.text, None, turn.reply)
            if not calls and tools.reply is not None:
                answer = await ask_checked(caller, messages, form=tools.reply)
            return _chat_output(caller, answer, turn.reply, calls)
        try:  # the pool counts: a prompt that fits crosses to it once
            answer = await self._answer(caller, messages)
        except PromptTooLong as overflow:
            if params.on_overflow == "error":
                raise
            messages = await _fit_messages(params, caller, messages, str(overflow))
            answer = await ask_checked(caller, messages, form=tools.reply)
        calls = [
            {"name": call.name, "arguments": dict(call.arguments), "id": call.id}
            for call in answer.reply.tool_calls
        ]
        return _chat_output(caller, answer, answer.reply, calls)

    async def _answer(self, caller: ModelCaller, messages: list[Message]) -> CheckedAnswer:
        tools = caller.tools
        if tools.llm.examples:
            # Behind what the prompts of all items share: the system message
            n_system = int(messages[0].role == "system")
            taught = messages[:n_system]
            for text, answer in tools.llm.examples:
                taught += [Message("user", text), Message("assistant", answer)]
            try:
                return await ask_checked(caller, [*taught, *messages[n_system:]], form=tools.reply)
            except PromptTooLong:
                tools.log.tally("prompt", "without its examples, with which it does not fit")
        return await ask_checked(caller, messages, form=tools.reply)


def _chat_output(
    caller: ModelCaller, answer: CheckedAnswer, reply: Reply, calls: list[dict[str, Any]]
) -> ChatOutput:
    return ChatOutput(
        **answer.outputs(),
        reasoning=(reply.reasoning or None) if caller.model.keeps_reasoning else None,
        usage=caller.usage(),
        tool_calls=calls or None,
    )


def _messages_of(params: AskParams) -> list[Message]:
    messages = [Message(message.role, message.content) for message in params.messages or ()]
    if isinstance(params.prompt, ConversationTemplate):
        messages = [
            Message(role, render_template(template, "prompt", params.vars))
            for role, template in params.prompt.turns
        ]
    elif params.prompt is not None:
        messages = [Message("user", render_template(params.prompt, "prompt", params.vars))]
    if params.system is None:
        return messages
    if messages[0].role == "system":
        raise StepError(
            "`system` is set, but `messages[0]` is already a system message.",
            remedy="Remove one of them.",
        )
    return [Message("system", render_template(params.system, "system", params.vars)), *messages]


async def _with_images(
    messages: list[Message], paths: Sequence[str], tools: Tools
) -> list[Message]:
    if len(paths) > MOST_IMAGES:
        raise StepError(f"{len(paths)} images are too many; at most {MOST_IMAGES} are allowed.")
    places = [resolve_path(tools.files.roots, path) for path in paths]
    images = tuple([await asyncio.to_thread(_read_image_file, path) for path in places])
    for where, message in reversed(list(enumerate(messages))):
        if message.role == "user":
            return [*messages[:where], replace(message, images=images), *messages[where + 1 :]]
    raise StepError("`images` needs at least one message with `role: user`.")


def _read_image_file(path: Path) -> bytes:
    with refusing(f"image '{printable(path)}' cannot be read"), open_file(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        found = file.read(MOST_IMAGE_BYTES + 1)
    if len(found) > MOST_IMAGE_BYTES:
        mib = 1024 * 1024
        raise StepError(
            f"image '{printable(path)}' has {size_bytes // mib} MiB; at most "
            f"{MOST_IMAGE_BYTES // mib} are read.",
            remedy="Reduce its size.",
        )
    return found


async def _fit_messages(
    params: ChatParams, caller: ModelCaller, messages: list[Message], why: str
) -> list[Message]:
    if params.on_overflow == "truncate" or params.prompt is None:
        kept, caller.characters_cut, note = await truncate_messages(
            messages, caller.most_characters
        )
        caller.tools.log.note(note)
        return kept
    prompts = DivisiblePrompt.of(messages, params.prompt.texts(**params.vars), why)
    reader = MapReduce(
        caller,
        prompts,
        may_be_empty=True,
        name="answers to the parts",
        remedy="Ask for less in `prompt`, or raise the model's `ctx`.",
    )
    read = reader.refined if params.on_overflow == "refine" else reader.map_reduce
    last = await read([to_part(prompts.text)])
    caller.tools.log.note(
        f"the prompt does not fit: its longest text was read in {len(last.parts)} parts "
        f"(on_overflow: {params.on_overflow})."
    )
    return last.messages
