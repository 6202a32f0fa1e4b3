"""Terminal chat: the conversation, images named in a question, slash commands, streaming an answer.

`ChatConversation` is pure: its model, its messages, what the person has set, and the next request.
`converse` is the loop. Only a path that exists as a file is an image, so a sentence that merely
looks like a path stays text.
"""

from __future__ import annotations

import base64
import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from paddock.engine.errors import EngineError
from paddock.engine.gguf import check_file
from paddock.engine.models.model_names import is_path
from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.daemon.service_client import ServiceError
from paddock.runner.progress import console

from . import model_tables
from .chat_terminal import AnswerView, LineInput, answer_view, echo_disabled

ChatMessage = dict[str, Any]
"""As `/api/chat` takes it: role, content, perhaps images."""


@dataclass(slots=True)
class ChatConversation:
    """What the next request is made of."""

    model: str
    abilities: frozenset[str] = frozenset()
    """Of completion, tools, insert, vision, embedding, thinking."""
    turns: list[ChatMessage] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    format: str | Mapping[str, Any] | None = None
    think: bool | str | None = None
    """None: as the model has it."""
    keep_alive_s: float | None = None
    is_verbose: bool = False
    shows_thinking: bool = True
    draws_markdown: bool = True

    @property
    def sees(self) -> bool:
        """Whether its model takes images."""
        return "vision" in self.abilities

    def asked(self, text: str, images: Sequence[str] = ()) -> None:
        """Add what the person says; images are base64."""
        self.turns.append({"role": "user", "content": text, **_without_empty(images=list(images))})

    def answered(self, text: str, thinking: str = "") -> None:
        """Add what the model said, whole or as far as it came."""
        self.turns.append(
            {"role": "assistant", "content": text, **_without_empty(thinking=thinking)}
        )

    def take_back(self) -> None:
        """Forget the last question, which got no answer."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns.pop()

    def change_model(self, model: str, abilities: frozenset[str]) -> None:
        """Go on with another model, from the beginning."""
        self.model, self.abilities = model, abilities
        self.turns.clear()
        self.think = None

    def body(self) -> dict[str, Any]:
        """Return the request of the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*system, *self.turns],
            **_without_empty(options=dict(self.options), format=self.format),
            **({} if self.think is None else {"think": self.think}),
            **({} if self.keep_alive_s is None else {"keep_alive": self.keep_alive_s}),
        }

    def recipe(self, name: str) -> dict[str, Any]:
        """Return the request that makes a model of this conversation."""
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
    """Leave out what is empty."""
    return {name: value for name, value in fields.items() if value}


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
MAX_IMAGE_BYTES = 100 * 1024 * 1024

_IMAGE_SUFFIX = r"\.(?:png|jpe?g|webp|gif|bmp)"
# In quotes; or without, where spaces have backslashes as shells and terminals write them.
_IMAGE_PATH = re.compile(
    rf"'([^'\n]+{_IMAGE_SUFFIX})'|\"([^\"\n]+{_IMAGE_SUFFIX})\"|((?:[^\s\\'\"]|\\.)+{_IMAGE_SUFFIX})(?![\w/]|\.\w)",
    re.IGNORECASE,
)


class NotAnImage(Exception):
    """A file that cannot be shown to a model."""


def find_images(text: str) -> tuple[str, tuple[Path, ...]]:
    """Part a question from the images that it names; gives the text without them."""
    found: list[Path] = []

    def taken(match: re.Match[str]) -> str:
        quoted = match[1] or match[2]
        path = Path(quoted or re.sub(r"\\(.)", r"\1", match[3])).expanduser()
        if not _is_existing_file(path):
            return match[0]
        found.append(path)
        return ""

    rest = _IMAGE_PATH.sub(taken, text)
    return (re.sub(r"[ \t]{2,}", " ", rest).strip() if found else text), tuple(found)


def _is_existing_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def encode_image(path: Path) -> str:
    """Read an image as base64.

    Raises:
        NotAnImage: it cannot be read, or is no image.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_IMAGE_BYTES else b""
    except OSError as error:
        raise NotAnImage(f"'{path}' cannot be read: {error.strerror}.") from None
    if size > MAX_IMAGE_BYTES:
        raise NotAnImage(f"'{path}' has more than {MAX_IMAGE_BYTES // 1024**2} MiB.")
    if not _is_image(raw):
        raise NotAnImage(f"'{path}' is no image: PNG, JPEG, WebP, GIF and BMP are known.")
    return base64.b64encode(raw).decode("ascii")


def _is_image(raw: bytes) -> bool:
    marks = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
    return raw.startswith(marks) or (raw[:4] == b"RIFF" and raw[8:12] == b"WEBP")


_NS_PER_S = 1e9


def timings_text(last: Mapping[str, Any]) -> str:
    """Lay out the numbers of an answer's last object; what it does not tell is left out."""
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
    words = _rate_rows(
        last, "prompt_eval_count", "prompt_eval_duration", last.get("cached_tokens") or 0
    )
    n_known = last.get("cached_tokens")
    return f"{words}, {n_known:,} known before" if words and n_known else words


def _rate_rows(last: Mapping[str, Any], count: str, duration: str, n_free: int = 0) -> str:
    """Write tokens, their time, and how many in a second; `n_free` of them took none."""
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
  /show [what]        the model: info, license, modelfile, parameters, system, template
  /load MODEL         talk to another model
  /save MODEL         make a model of this one, its settings and this conversation
  /clear              forget the conversation
  /bye                leave (or Ctrl-D)
  \"\"\"                 begins and ends a text of several lines
Ctrl-C stops an answer."""

SLASH_SETTINGS = """\
  /set parameter NAME VALUE...     a parameter of the model, such as temperature 0.2
  /set system TEXT                 what the model is to be
  /set format json | FILE          answer as JSON, or by a JSON Schema;  /set noformat
  /set think [low|medium|high]     reason before answering;              /set nothink
  /set verbose                     tell times after each answer;         /set quiet
  /set markdown                    draw Markdown;                        /set nomarkdown
  /set history                     keep what is typed;                   /set nohistory"""

_SHOW_PARTS = ("info", "license", "modelfile", "parameters", "system", "template")
_THINK_LEVELS = ("low", "medium", "high", "max")


class ChatClient(Protocol):
    """What is asked."""

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an object, get one."""
        ...

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send an object, get one after the other."""
        ...


def is_slash_command(text: str) -> bool:
    """Return a command from a question that begins with a path.

    >>> is_slash_command("/bye"), is_slash_command("/etc/hosts is what?"), is_slash_command("Hello")
    (True, False, False)
    """
    word = text.split(None, 1)[0] if text.strip() else ""
    return word.startswith("/") and "/" not in word[1:]


@dataclass
class SlashCommands:
    """Who carries commands out; what goes wrong is raised as `ServiceError` and told by others."""

    service: ChatClient
    session: ChatConversation
    abilities_of: Callable[[Any, str], frozenset[str]]
    keyboard: LineInput | None = None
    is_over: bool = False

    def words(self) -> tuple[str, ...]:
        """Return what the tab key completes."""
        return tuple(f"/{name}" for name in self._commands())

    def carry_out(self, text: str) -> None:
        """Do what is said."""
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
        console.print_err(SLASH_SETTINGS if about.lstrip("/") == "set" else SLASH_HELP)

    def _leave(self, _: str) -> None:
        self.is_over = True

    def _clear(self, _: str) -> None:
        self.session.turns.clear()
        console.print_err("The conversation is forgotten.")

    def _load(self, model: str) -> None:
        if not model:
            raise ServiceError("Say which: /load MODEL.")
        model = _absolute_ref(model)
        self.session.change_model(model, self.abilities_of(self.service, model))
        console.print_err(f"{model}. The conversation begins anew.")

    def _save(self, name: str) -> None:
        if not name:
            raise ServiceError("Say how it is to be called: /save MODEL.")
        if is_path(self.session.model):
            file = self.session.model
            raise ServiceError(
                f"'{file}' is a file, and only a model of the store can be saved anew.\n"
                f"  Bring it in first: paddock pull {file}"
            )
        for _ in self.service.stream("/api/create", self.session.recipe(name)):
            pass
        console.print_err(f"Made '{name}'.")

    def _show(self, what: str) -> None:
        what = what or "info"
        if what not in _SHOW_PARTS:
            raise ServiceError(f"/show knows {', '.join(_SHOW_PARTS)}.")
        if what == "system" and self.session.system:
            console.print_out(self.session.system)
            return
        told = self.service.post("/api/show", {"model": self.session.model})
        if what == "info":
            console.print_out(model_tables.model_card(told))
        else:
            console.print_out(str(told.get(what) or f"The model has no {what}."))
        if what == "parameters" and self.session.options:
            own = (f"{name:<30} {value}" for name, value in self.session.options.items())
            console.print_out("\n".join(("Set here:", *own)))

    def _set(self, wish: str) -> None:
        name, _, value = wish.partition(" ")
        change = self._settings().get(name)
        if change is None:
            console.print_err(
                SLASH_SETTINGS if not name else f"There is no setting '{name}'.\n{SLASH_SETTINGS}"
            )
            return
        change(value.strip())

    def _settings(self) -> dict[str, Callable[[str], None]]:
        session = self.session

        def fixed(field: str, value: object, words: str) -> Callable[[str], None]:
            def change(_: str) -> None:
                setattr(session, field, value)
                console.print_err(words)

            return change

        return {
            "parameter": self._parameter,
            "system": self._system,
            "format": self._format,
            "noformat": fixed("format", None, "Answers are free."),
            "think": self._think,
            "nothink": fixed("think", False, "It answers without reasoning first."),
            "verbose": fixed("is_verbose", True, "Times are told after each answer."),
            "quiet": fixed("is_verbose", False, "Times are not told."),
            "markdown": fixed("draws_markdown", True, "Markdown is drawn."),
            "nomarkdown": fixed("draws_markdown", False, "Answers are shown as they come."),
            "history": lambda _: self._history(is_kept=True),
            "nohistory": lambda _: self._history(is_kept=False),
        }

    def _parameter(self, value: str) -> None:
        from paddock.engine.models.modelfile import parse_parameter

        name, *words = value.split() or [""]
        if not name or not words:
            raise ServiceError("Write it as /set parameter temperature 0.2.")
        try:
            read = [parse_parameter(name, word) for word in words]
        except ValueError as error:
            raise ServiceError(str(error)) from None
        self.session.options[name] = read if name == "stop" else read[0]
        console.print_err(f"{name} is {' '.join(words)}.")

    def _system(self, text: str) -> None:
        self.session.system = text
        console.print_err("The system message is set." if text else "There is no system message.")

    def _format(self, value: str) -> None:
        from paddock.runner.config.setting_values import BadAnswerFormat, answer_format

        try:
            self.session.format = answer_format(value or "json")
        except BadAnswerFormat as error:
            raise ServiceError(str(error)) from None
        console.print_err(
            "Answers are JSON." if value in ("", "json") else f"Answers match {value}."
        )

    def _think(self, level: str) -> None:
        if level and level not in _THINK_LEVELS:
            raise ServiceError(f"'{level}' is not how much: {', '.join(_THINK_LEVELS)}.")
        if "thinking" not in self.session.abilities:
            raise ServiceError(f"'{self.session.model}' does not reason before it answers.")
        self.session.think = level or True
        console.print_err("It reasons before it answers.")

    def _history(self, *, is_kept: bool) -> None:
        if self.keyboard is not None:
            self.keyboard.keeps_history = is_kept
        console.print_err("What is typed is kept." if is_kept else "What is typed is not kept.")


def history_file(state_dir: Path) -> Path:
    """Return where what is typed is kept."""
    return state_dir / "chat-history"


def _absolute_ref(model: str) -> str:
    """Return a model's name, or the whole path of a file: a service works in another folder.

    Raises:
        ServiceError: the path leads to no GGUF file.
    """
    if not is_path(model):
        return model
    path = Path(model).expanduser().resolve()
    try:
        check_file(path, model)
    except EngineError as error:
        raise ServiceError(str(error)) from None
    return str(path)


NOT_FOUND = 404
HOW_TO_LEAVE = "Ctrl-D or /bye leaves."


class AnswerInterrupted(Exception):
    """The person stopped the answer."""


def open_conversation(service: ChatClient, model: str, **wishes: Any) -> ChatConversation:
    """Begin a conversation with a model.

    Raises:
        ServiceError: there is none of this name.
    """
    return ChatConversation(model, model_capabilities(service, model), **wishes)


def model_capabilities(service: ChatClient, model: str) -> frozenset[str]:
    """Ask what a model can.

    Raises:
        ServiceError: there is none of this name, or it cannot chat.
    """
    try:
        told = service.post("/api/show", {"model": model})
    except ServiceError as error:
        if error.status != NOT_FOUND:
            raise
        raise ServiceError(
            f"There is no model '{model}' here.\n  paddock pull {model}", NOT_FOUND
        ) from None
    abilities = frozenset(map(str, told.get("capabilities") or ()))
    if abilities and "completion" not in abilities:
        raise ServiceError(
            f"'{model}' does not chat.\n  For vectors of texts: paddock embed {model} 'a text'"
        )
    return abilities


def add_question(session: ChatConversation, text: str, images: Sequence[Path] = ()) -> None:
    """Add what the person says, with the images that it names where the model sees.

    Raises:
        NotAnImage: one cannot be read.
        ServiceError: images are given to a model that sees none.
    """
    if images and not session.sees:
        raise ServiceError(f"'{session.model}' sees no images.")
    if session.sees:
        text, named = find_images(text)
        for path in named:
            console.print_err(f"Image: {path}")
        images = (*images, *named)
    session.asked(text, [encode_image(path) for path in images])


def stream_answer(service: ChatClient, session: ChatConversation, out: AnswerView) -> None:
    """Get the next answer and show it; what came stays in the conversation.

    Raises:
        ServiceError: it could not be had; the question is forgotten.
        Interrupted: the person stopped it.
    """
    said: list[str] = []
    thought: list[str] = []
    last: Mapping[str, Any] = {}
    try:
        out.wait(f"{session.model} ...")
        last = _show_chunks(service, session, out, said, thought)
    except KeyboardInterrupt:
        raise AnswerInterrupted from None
    finally:
        out.end()
        if said or thought:
            session.answered("".join(said), "".join(thought))
        else:
            session.take_back()
    _print_answer_notes(last, session)


def _show_chunks(
    service: ChatClient,
    session: ChatConversation,
    out: AnswerView,
    said: list[str],
    thought: list[str],
) -> Mapping[str, Any]:
    """Show the pieces as they come; give the last object."""
    with closing(service.stream("/api/chat", session.body())) as pieces:
        for piece in pieces:
            message = piece.get("message") or {}
            text, thinking = message.get("content") or "", message.get("thinking") or ""
            is_read = True
            if thinking:
                thought.append(thinking)
                is_read = not session.shows_thinking or out.think(thinking)
            if text:
                said.append(text)
                is_read = out.say(text)
            if piece.get("done") or not is_read:
                return piece
    return {}


def _print_answer_notes(last: Mapping[str, Any], session: ChatConversation) -> None:
    """Say what a person should know of an answer: that something was cut; its times, if wanted."""
    if last.get("truncated"):
        console.print_err(
            f"(The conversation has {last.get('prompt_tokens_original', 0):,} tokens, more than "
            f"the context holds: its oldest turns were left out. /clear begins anew.)"
        )
    if last.get("done_reason") == "length":
        console.print_err("(The answer reached its limit; /set parameter num_predict changes it.)")
    if session.is_verbose:
        console.print_err(timings_text(last))


def converse(
    service: ChatClient, session: ChatConversation, history: Path, *, keeps_history: bool = True
) -> None:
    """Take questions and commands until the person leaves."""
    desk = SlashCommands(service, session, model_capabilities)
    keyboard = LineInput(history, desk.words(), keeps_history=keeps_history)
    desk.keyboard = keyboard
    console.print_err(f"{session.model}. /? shows the commands, {HOW_TO_LEAVE}")
    with keyboard, _ended_by_sigterm():
        while not desk.is_over:
            try:
                text = keyboard.ask()
            except EOFError:
                console.print_err("")
                return
            except KeyboardInterrupt:
                console.print_err(f"\n{HOW_TO_LEAVE}")
                continue
            if text.strip():
                _handle_input(service, session, desk, text)


def _handle_input(
    service: ChatClient, session: ChatConversation, desk: SlashCommands, text: str
) -> None:
    """Carry out a command, or answer a question; what goes wrong is told, and the chat goes on."""
    try:
        if is_slash_command(text):
            desk.carry_out(text)
        else:
            add_question(session, text)
            with echo_disabled():
                stream_answer(service, session, answer_view(draws_markdown=session.draws_markdown))
    except AnswerInterrupted:
        console.print_err("(Stopped.)")
    except (ServiceError, NotAnImage) as error:
        console.print_err(str(error))
    except KeyboardInterrupt:
        console.print_err("(Stopped.)")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the chat, not only an answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end: Callable[..., Any] = lambda *_: sys.exit(128 + signal.SIGTERM)  # noqa: E731
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
