"""Terminal chat: the loop over typed lines, and slash commands (/set, /show, /load, /bye)."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paddock.engine.models.model_names import is_path
from paddock.engine.models.modelfile import parse_parameter
from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.config.format_option import BadAnswerFormat, answer_format
from paddock.runner.daemon.service_client import ServiceClient, ServiceError
from paddock.runner.progress import printing

from . import model_tables
from .chat_images import NotAnImage
from .chat_terminal import LineInput, answer_view, echo_disabled
from .conversation import (
    AnswerInterrupted,
    ChatConversation,
    add_question,
    model_capabilities,
    stream_answer,
)
from .exit_status import CommandError
from .model_arguments import resolve_model_ref

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
HOW_TO_LEAVE = "Ctrl-D or /bye leaves."


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
        command = {
            "set": self._set,
            "show": self._show,
            "load": self._load,
            "save": self._save,
            "clear": self._clear,
            "bye": self._leave,
            "exit": self._leave,
            "help": self._help,
            "?": self._help,
        }.get(word[1:])
        if command is None:
            raise ServiceError(f"There is no command '{word}'. /? shows them.")
        command(rest.strip())

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


def converse(
    service: ServiceClient, session: ChatConversation, history: Path, *, keeps_history: bool = True
) -> None:
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
