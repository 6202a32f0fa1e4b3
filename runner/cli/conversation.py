"""Terminal chat: the conversation, images named in a question, streaming an answer.

`ChatConversation` is pure: model, messages, settings, and the next request.
Only a path to an existing file is an image, so text that merely looks like a path stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system import units
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.text import counted
from paddock.runner.daemon.service_client import ServiceClient, ServiceError
from paddock.runner.progress import printing

from .chat_images import encode_image, find_images
from .chat_terminal import PlainAnswer

if TYPE_CHECKING:
    from .rich_answers import TerminalAnswer

ChatMessage = dict[str, Any]
"""A message of `/api/chat`: role, content, optional images."""
_NS_PER_S = 1e9
NOT_FOUND = 404


@dataclass(slots=True)
class ChatConversation:
    """State of a chat, from which requests are built."""

    model: str
    abilities: frozenset[str] = frozenset()
    """Of completion, tools, insert, vision, embedding, thinking."""
    turns: list[ChatMessage] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    format: str | Mapping[str, Any] | None = None
    think: bool | str | None = None
    """None: the model's default."""
    keep_alive_s: float | None = None
    is_verbose: bool = False
    shows_thinking: bool = True

    @property
    def accepts_images(self) -> bool:
        return "vision" in self.abilities

    def add_question(self, text: str, images: Sequence[str] = ()) -> None:
        """Add a message of the user; images are base64."""
        self.turns.append({"role": "user", "content": text, **_without_empty(images=list(images))})

    def add_answer(self, text: str, thinking: str = "") -> None:
        """Add an answer of the model, complete or not."""
        self.turns.append(
            {"role": "assistant", "content": text, **_without_empty(thinking=thinking)}
        )

    def drop_question(self) -> None:
        """Remove the last question, which got no answer."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns.pop()

    def change_model(self, model: str, abilities: frozenset[str]) -> None:
        self.model, self.abilities = model, abilities
        self.turns.clear()
        self.think = None

    def chat_request(self) -> dict[str, Any]:
        """Return the body for `/api/chat`."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*system, *self.turns],
            **_without_empty(options=dict(self.options), format=self.format),
            **({} if self.think is None else {"think": self.think}),
            **({} if self.keep_alive_s is None else {"keep_alive": self.keep_alive_s}),
        }

    def create_request(self, name: str) -> dict[str, Any]:
        """Return the body for `/api/create` that saves this conversation as a model."""
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in self.turns]
        return {
            "model": name,
            "from": self.model,
            **_without_empty(system=self.system, parameters=dict(self.options), messages=messages),
        }


def _without_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def timings_text(last: Mapping[str, Any]) -> str:
    """Return the timings in an answer's last object as lines."""
    n_known = last.get("cached_tokens") or 0
    words = _rate_rows(last, "prompt_eval_count", "prompt_eval_duration", n_known)
    prompt_rows = f"{words}, {n_known:,} cached" if words and n_known else words
    rows = [
        ("total", _duration_row(last, "total_duration")),
        ("load", _duration_row(last, "load_duration")),
        ("queue", _duration_row(last, "queue_duration")),
        ("prompt", prompt_rows),
        ("answer", _rate_rows(last, "eval_count", "eval_duration")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {words}" for name, words in rows if words)


def _duration_row(last: Mapping[str, Any], name: str) -> str:
    seconds = (last.get(name) or 0) / _NS_PER_S
    return units.duration(seconds) if seconds >= 0.01 else ""


def _rate_rows(last: Mapping[str, Any], count: str, duration: str, n_free: int = 0) -> str:
    """Return token count, time and rate; `n_free` tokens came from the cache."""
    n, seconds = int(last.get(count) or 0), (last.get(duration) or 0) / _NS_PER_S
    if not n:
        return ""
    words = counted(n, "token")
    if seconds <= 0:
        return words
    per_s = units.speed(max(0, n - n_free) / seconds)
    return f"{words} in {units.duration(seconds)}, {per_s} tokens/s"


class AnswerInterrupted(Exception):
    """The user stopped the answer."""


def model_capabilities(service: ServiceClient, model: str) -> frozenset[str]:
    """Return a model's capabilities.

    Raises:
        ServiceError: there is no such model, or it cannot chat.
    """
    try:
        card = service.post("/api/show", {"model": model})
    except ServiceError as error:
        if error.status != NOT_FOUND:
            raise
        raise ServiceError(
            f"There is no model '{model}' here.\n  paddock pull {model}", NOT_FOUND
        ) from None
    abilities = frozenset(map(str, card.get("capabilities") or ()))
    if abilities and "completion" not in abilities:
        raise ServiceError(
            f"'{model}' is not a chat model.\n  For vectors: paddock embed {model} 'a text'"
        )
    return abilities


def add_question(session: ChatConversation, text: str, images: Sequence[Path] = ()) -> None:
    """Add a question of the user, with the images that it names if the model takes images.

    Raises:
        NotAnImage: one cannot be read.
        ServiceError: images are given to a model without vision.
    """
    if images and not session.accepts_images:
        raise ServiceError(f"'{session.model}' does not take images.")
    if session.accepts_images:
        text, named = find_images(text)
        for path in named:
            printing.print_err(f"Image: {path}")
        images = (*images, *named)
    session.add_question(text, [encode_image(path) for path in images])


def stream_answer(
    service: ServiceClient, session: ChatConversation, out: PlainAnswer | TerminalAnswer
) -> None:
    """Stream the next answer to `out` and add it to the conversation, even if it is incomplete.

    Raises:
        ServiceError: there was no answer; the question is removed.
        AnswerInterrupted: the user stopped it.
    """
    texts: list[str] = []
    thinking: list[str] = []
    last: Mapping[str, Any] = {}
    try:
        out.wait(f"{session.model} ...")
        with closing(service.stream("/api/chat", session.chat_request())) as chunks:
            for chunk in chunks:
                message = chunk.get("message") or {}
                text, thought = message.get("content") or "", message.get("thinking") or ""
                is_read = True
                if thought:
                    thinking.append(thought)
                    is_read = not session.shows_thinking or out.add_thinking(thought)
                if text:
                    texts.append(text)
                    is_read = out.add_text(text)
                if chunk.get("done") or not is_read:
                    last = chunk
                    break
    except KeyboardInterrupt:
        raise AnswerInterrupted from None
    finally:
        out.end()
        if texts or thinking:
            session.add_answer("".join(texts), "".join(thinking))
        else:
            session.drop_question()
    # Print warnings about an answer that was cut, and timings if they are on
    if last.get("truncated"):
        printing.print_err(
            f"(The conversation has {last.get('prompt_tokens_original', 0):,} tokens, more than "
            f"the context holds: its oldest turns were left out. /clear starts a new one.)"
        )
    if last.get("done_reason") == "length":
        printing.print_err("(The answer reached its limit; /set parameter num_predict changes it.)")
    if session.is_verbose:
        printing.print_err(timings_text(last))
