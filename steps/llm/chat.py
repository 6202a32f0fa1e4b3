"""The step `chat`: messages or a prompt to a model, with images for a model with vision."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import Message, Role
from paddock.engine.system.no_links import open_file
from paddock.engine.system.records import replace
from paddock.engine.system.text import without_middle
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.pipelines.prompt_file import ConversationTemplate, MessageParam
from paddock.steps.base import Params, Step, StepError, Tools
from paddock.steps.facts import CallFacts, Facts, TextFacts, Written
from paddock.steps.param_types import DecisionsParam, InputFile, PromptTemplate
from paddock.steps.paths import os_errors_refused, printable, resolve_path
from paddock.steps.prompt import render_template
from paddock.steps.text.text_parts import to_part
from paddock.steps.tools.tool_names import listed_tools

from .ask_and_repair import (
    MOST_CONTINUATIONS,
    AnswerOutput,
    CheckedAnswer,
    ModelCaller,
    Shorten,
    UsageOutput,
    ask_checked,
    ask_fitting,
    without_examples,
)
from .map_reduce import DivisiblePrompt, MapReduce
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

    prompt: Annotated[Template | None, PromptTemplate] = Field(
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
    images: Annotated[list[str], InputFile] = Field(
        default=[], description="Images (PNG, JPEG, GIF, BMP, WebP) for the last message."
    )
    examples: Annotated[ExamplesParam | None, DecisionsParam] = Field(
        default=None,
        description="Decisions of people stand before the prompt, each as a text and its answer: "
        "those whose texts are nearest by the default embedding model.",
    )

    async def conversation(self, tools: Tools) -> list[Message]:
        """Return the messages; raise StepError if an image cannot be read."""
        messages = [Message(message.role, message.content) for message in self.messages or ()]
        if isinstance(self.prompt, ConversationTemplate):
            messages = [
                Message(role, render_template(template, "prompt", self.vars))
                for role, template in self.prompt.turns
            ]
        elif self.prompt is not None:
            messages = [Message("user", render_template(self.prompt, "prompt", self.vars))]
        if self.system is not None:
            if messages[0].role == "system":
                raise StepError(
                    "`system` is set, but `messages[0]` is already a system message.",
                    remedy="Remove one of them.",
                )
            system = render_template(self.system, "system", self.vars)
            messages.insert(0, Message("system", system))
        if not self.images:
            return messages
        if len(self.images) > MOST_IMAGES:
            many = f"{len(self.images)} images are too many"
            raise StepError(f"{many}; at most {MOST_IMAGES} are allowed.")
        places = [resolve_path(tools.files.roots, path) for path in self.images]
        images = tuple([await asyncio.to_thread(_read_image_file, path) for path in places])
        where = max((at for at, each in enumerate(messages) if each.role == "user"), default=None)
        if where is None:
            raise StepError("`images` needs at least one message with `role: user`.")
        messages[where] = replace(messages[where], images=images)
        return messages


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

    async def run(self, params: ChatParams, tools: Tools) -> ChatOutput:
        model = tools.llm.models.resolve(params.model, "chat")
        caller = ModelCaller(tools, model, params.params.given(), params.on_truncated)
        messages = await params.conversation(tools)
        if params.tools:  # only an answer must match `reply`
            turn, calls = await request_tool_calls(
                caller, messages, params.tools, params.tool_choice
            )
            reply, answer = turn.reply, CheckedAnswer(turn.text, None, turn.reply)
            if not calls and tools.reply is not None:
                answer = await ask_checked(caller, messages, form=tools.reply)
        else:
            prompt, shorter = messages, list[Shorten[list[Message]]]()
            if tools.llm.examples:
                # Behind what the prompts of all items share: the system message
                n_system = int(messages[0].role == "system")
                prompt = messages[:n_system]
                for text, example in tools.llm.examples:
                    prompt += [Message("user", text), Message("assistant", example)]
                prompt += messages[n_system:]
                shorter.append(without_examples(caller, messages))
            if params.on_overflow != "error":
                shorter.append(partial(_fit_messages, params, caller, messages))
            ask = partial(ask_checked, caller, form=tools.reply)
            answer = await ask_fitting(ask, prompt, *shorter)
            reply = answer.reply
            calls = [
                {"name": call.name, "arguments": dict(call.arguments), "id": call.id}
                for call in reply.tool_calls
            ]
        return ChatOutput(
            **answer.outputs(),
            reasoning=(reply.reasoning or None) if model.keeps_reasoning else None,
            usage=caller.usage(),
            tool_calls=calls or None,
        )


def _read_image_file(path: Path) -> bytes:
    with os_errors_refused(f"image '{printable(path)}' cannot be read"), open_file(path) as file:
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
    params: ChatParams, caller: ModelCaller, messages: list[Message], overflow: PromptTooLong
) -> list[Message]:
    """Leave out the middle of the longest message, or read the longest inserted text in parts."""
    log = caller.tools.log
    if params.on_overflow == "truncate" or params.prompt is None:
        where = max(range(len(messages)), key=lambda index: len(messages[index].content))
        text = messages[where].content  # its middle goes: instructions are at either end

        def kept(n: int) -> list[Message]:
            message = replace(messages[where], content=without_middle(text, n))
            return [*messages[:where], message, *messages[where + 1 :]]

        n = await caller.most_characters(len(text), kept)
        caller.characters_cut = len(text) - n
        log.note(
            f"the prompt does not fit: {caller.characters_cut:,} of its {len(text):,} characters "
            "were left out of the middle (on_overflow: truncate)."
        )
        return kept(n)
    prompts = DivisiblePrompt.of(messages, params.prompt.texts(**params.vars), str(overflow))
    reader = MapReduce(
        caller,
        prompts,
        may_be_empty=True,
        name="answers to the parts",
        remedy="Ask for less in `prompt`, or raise the model's `ctx`.",
    )
    read = reader.refined if params.on_overflow == "refine" else reader.map_reduce
    last = await read([to_part(prompts.text)])
    log.note(
        f"the prompt does not fit: its longest text was read in {len(last.parts)} parts "
        f"(on_overflow: {params.on_overflow})."
    )
    return last.messages
