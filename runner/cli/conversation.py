"""Terminal chat: the conversation, images named in a question, slash commands, streaming an answer.

`ChatConversation` is pure: model, messages, settings, and the next request. `converse` is the loop.
Only a path to an existing file is an image, so text that merely looks like a path stays text.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.models.model_names import is_path
from paddock.engine.models.modelfile import parse_parameter
from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.config.format_option import BadAnswerFormat, answer_format
from paddock.runner.daemon.service_client import ServiceClient, ServiceError
from paddock.runner.progress import printing

from . import model_tables
from .chat_images import NotAnImage, encode_image, find_images
from .chat_terminal import LineInput, PlainAnswer, answer_view, echo_disabled
from .exit_status import CommandError
from .model_arguments import resolve_model_ref

if TYPE_CHECKING:
    from .rich_answers import TerminalAnswer

ChatMessage = dict[str, Any]
"""A message of `/api/chat`: role, content, optional images."""


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
        """Whether its model takes images."""
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
        return {
            "model": name,
            "from": self.model,
            **_without_empty(
                system=self.system, parameters=dict(self.options), messages=self._plain()
            ),
        }

    def _plain(self) -> list[ChatMessage]:
        return [{"role": turn["role"], "content": turn["content"]} for turn in self.turns]


def _without_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


_NS_PER_S = 1e9


def timings_text(last: Mapping[str, Any]) -> str:
    """Return the timings in an answer's last object as lines."""
    rows = [
        ("total", _duration_row(last, "total_duration")),
        ("load", _duration_row(last, "load_duration")),
        ("queue", _duration_row(last, "queue_duration")),
        ("prompt", _prompt_rows(last)),
        ("answer", _rate_rows(last, "eval_count", "eval_duration")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {words}" for name, words in rows if words)


def _duration_row(last: Mapping[str, Any], name: str) -> str:
    seconds = (last.get(name) or 0) / _NS_PER_S
    return units.duration(seconds) if seconds >= 0.01 else ""


def _prompt_rows(last: Mapping[str, Any]) -> str:
    n_known = last.get("cached_tokens") or 0
    words = _rate_rows(last, "prompt_eval_count", "prompt_eval_duration", n_known)
    return f"{words}, {n_known:,} cached" if words and n_known else words


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


SLASH_HELP = """\
  /set ...            change a setting; alone, it lists them
  /show [part]        show the model: info, license, modelfile, parameters, system, template
  /load MODEL         chat with another model
  /save MODEL         save this model, its settings and the conversation as a new model
  /clear              start a new conversation
  /bye                leave (or Ctrl-D)
  \"\"\"                 begins and ends a text of several lines
Ctrl-C stops an answer."""

SLASH_SETTINGS = """\
  /set parameter NAME VALUE...     a parameter of the model, such as temperature 0.2
  /set system TEXT                 system message
  /set format json | FILE          answer as JSON, or by a JSON Schema;  /set noformat
  /set think [low|medium|high]     reason before answering;              /set nothink
  /set verbose                     show timings after each answer;       /set quiet
  /set history                     save the history of input lines;      /set nohistory"""

_SHOW_PARTS = ("info", "license", "modelfile", "parameters", "system", "template")
THINK_LEVELS = ("low", "medium", "high", "max")


def is_slash_command(text: str) -> bool:
    """Return whether this is a command, and not a question that begins with a path.

    >>> is_slash_command("/bye"), is_slash_command("/etc/hosts is what?"), is_slash_command("Hello")
    (True, False, False)
    """
    word = text.split(None, 1)[0] if text.strip() else ""
    return word.startswith("/") and "/" not in word[1:]


@dataclass
class SlashCommands:
    """Slash commands of one chat. Errors are raised as `ServiceError` or `CommandError`."""

    service: ServiceClient
    session: ChatConversation
    keyboard: LineInput | None = None
    is_over: bool = False

    def execute(self, text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        command = self._commands().get(word[1:])
        if command is None:
            raise ServiceError(f"There is no command '{word}'. /? shows them.")
        command(rest.strip())

    def _commands(self) -> dict[str, Callable[[str], None]]:
        return {
            "set": self._set,
            "show": self._show,
            "load": self._load,
            "save": self._save,
            "clear": self._clear,
            "bye": self._leave,
            "exit": self._leave,
            "help": self._help,
            "?": self._help,
        }

    def _help(self, about: str) -> None:
        printing.print_err(SLASH_SETTINGS if about.lstrip("/") == "set" else SLASH_HELP)

    def _leave(self, _: str) -> None:
        self.is_over = True

    def _clear(self, _: str) -> None:
        self.session.turns.clear()
        printing.print_err("The conversation starts from the beginning.")

    def _load(self, model: str) -> None:
        if not model:
            raise ServiceError("Name a model: /load MODEL.")
        model = resolve_model_ref(model)
        self.session.change_model(model, model_capabilities(self.service, model))
        printing.print_err(f"{model}. A new conversation begins.")

    def _save(self, name: str) -> None:
        if not name:
            raise ServiceError("Name the new model: /save MODEL.")
        if is_path(self.session.model):
            file = self.session.model
            raise ServiceError(
                f"'{file}' is a file, and only models of the store can be saved.\n"
                f"  Import it first: paddock pull {file}"
            )
        for _ in self.service.stream("/api/create", self.session.create_request(name)):
            pass
        printing.print_err(f"Made '{name}'.")

    def _show(self, what: str) -> None:
        what = what or "info"
        if what not in _SHOW_PARTS:
            raise ServiceError(f"Use /show with one of: {', '.join(_SHOW_PARTS)}.")
        if what == "system" and self.session.system:
            printing.print_out(self.session.system)
            return
        card = self.service.post("/api/show", {"model": self.session.model})
        if what == "info":
            printing.print_out(model_tables.model_card(card))
        else:
            printing.print_out(str(card.get(what) or f"The model has no {what}."))
        if what == "parameters" and self.session.options:
            own = (f"{name:<30} {value}" for name, value in self.session.options.items())
            printing.print_out("\n".join(("Set here:", *own)))

    def _set(self, setting: str) -> None:
        name, _, value = setting.partition(" ")
        change = self._settings().get(name)
        if change is None:
            printing.print_err(
                SLASH_SETTINGS if not name else f"There is no setting '{name}'.\n{SLASH_SETTINGS}"
            )
            return
        change(value.strip())

    def _settings(self) -> dict[str, Callable[[str], None]]:
        session = self.session

        def fixed(field: str, value: object, words: str) -> Callable[[str], None]:
            def change(_: str) -> None:
                setattr(session, field, value)
                printing.print_err(words)

            return change

        return {
            "parameter": self._parameter,
            "system": self._system,
            "format": self._format,
            "noformat": fixed("format", None, "Answers have no fixed format."),
            "think": self._think,
            "nothink": fixed("think", False, "The model answers without reasoning first."),
            "verbose": fixed("is_verbose", True, "Timings are shown after each answer."),
            "quiet": fixed("is_verbose", False, "Timings are not shown."),
            "history": lambda _: self._history(is_kept=True),
            "nohistory": lambda _: self._history(is_kept=False),
        }

    def _parameter(self, value: str) -> None:
        name, *words = value.split() or [""]
        if not name or not words:
            raise ServiceError("Write it as /set parameter temperature 0.2.")
        try:
            read = [parse_parameter(name, word) for word in words]
        except ValueError as error:
            raise ServiceError(str(error)) from None
        self.session.options[name] = read if name == "stop" else read[0]
        printing.print_err(f"{name} is {' '.join(words)}.")

    def _system(self, text: str) -> None:
        self.session.system = text
        printing.print_err("The system message is set." if text else "There is no system message.")

    def _format(self, value: str) -> None:
        try:
            self.session.format = answer_format(value or "json")
        except BadAnswerFormat as error:
            raise ServiceError(str(error)) from None
        printing.print_err(
            "Answers are JSON." if value in ("", "json") else f"Answers match {value}."
        )

    def _think(self, level: str) -> None:
        if level and level not in THINK_LEVELS:
            raise ServiceError(f"'{level}' is not a level. Known: {', '.join(THINK_LEVELS)}.")
        if "thinking" not in self.session.abilities:
            raise ServiceError(f"'{self.session.model}' does not reason before it answers.")
        self.session.think = level or True
        printing.print_err("The model reasons before it answers.")

    def _history(self, *, is_kept: bool) -> None:
        if self.keyboard is not None:
            self.keyboard.keeps_history = is_kept
        printing.print_err("Input lines are saved." if is_kept else "Input lines are not saved.")


NOT_FOUND = 404
HOW_TO_LEAVE = "Ctrl-D or /bye leaves."


class AnswerInterrupted(Exception):
    """The user stopped the answer."""


def open_conversation(service: ServiceClient, model: str, **options: Any) -> ChatConversation:
    """Begin a conversation with a model.

    Raises:
        ServiceError: there is no such model.
    """
    return ChatConversation(model, model_capabilities(service, model), **options)


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
        last = _show_chunks(service, session, out, texts, thinking)
    except KeyboardInterrupt:
        raise AnswerInterrupted from None
    finally:
        out.end()
        if texts or thinking:
            session.add_answer("".join(texts), "".join(thinking))
        else:
            session.drop_question()
    _print_answer_notes(last, session)


def _show_chunks(
    service: ServiceClient,
    session: ChatConversation,
    out: PlainAnswer | TerminalAnswer,
    texts: list[str],
    thinking: list[str],
) -> Mapping[str, Any]:
    """Show chunks as they come; return the last object."""
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
                return chunk
    return {}


def _print_answer_notes(last: Mapping[str, Any], session: ChatConversation) -> None:
    """Print warnings about an answer that was cut, and timings if they are on."""
    if last.get("truncated"):
        printing.print_err(
            f"(The conversation has {last.get('prompt_tokens_original', 0):,} tokens, more than "
            f"the context holds: its oldest turns were left out. /clear starts a new one.)"
        )
    if last.get("done_reason") == "length":
        printing.print_err("(The answer reached its limit; /set parameter num_predict changes it.)")
    if session.is_verbose:
        printing.print_err(timings_text(last))


def converse(
    service: ServiceClient, session: ChatConversation, history: Path, *, keeps_history: bool = True
) -> None:
    """Read questions and commands until the user leaves."""
    commands = SlashCommands(service, session)
    keyboard = LineInput(history, keeps_history=keeps_history)
    commands.keyboard = keyboard
    printing.print_err(f"{session.model}. /? shows the commands, {HOW_TO_LEAVE}")
    with keyboard, _ended_by_sigterm():
        while not commands.is_over:
            try:
                text = keyboard.ask()
            except EOFError:
                printing.print_err("")
                return
            except KeyboardInterrupt:
                printing.print_err(f"\n{HOW_TO_LEAVE}")
                continue
            if text.strip():
                _handle_input(service, session, commands, text)


def _handle_input(
    service: ServiceClient, session: ChatConversation, commands: SlashCommands, text: str
) -> None:
    """Execute a command or answer a question; print errors and continue."""
    try:
        if is_slash_command(text):
            commands.execute(text)
        else:
            add_question(session, text)
            with echo_disabled():
                stream_answer(service, session, answer_view())
    except (AnswerInterrupted, KeyboardInterrupt):
        printing.print_err("(Stopped.)")
    except (ServiceError, CommandError, NotAnImage) as error:
        printing.print_err(str(error))


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End the whole chat on SIGTERM, not only an answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end: Callable[..., Any] = lambda *_: sys.exit(128 + signal.SIGTERM)  # noqa: E731
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
