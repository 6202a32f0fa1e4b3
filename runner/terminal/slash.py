"""Carry out what begins with a slash: settings of the conversation, other models, saving it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paddock.engine.errors import EngineError
from paddock.engine.gguf import check_file
from paddock.engine.store.names import is_path
from paddock.runner.client import ServiceError
from paddock.runner.display import card, console

from .keyboard import Keyboard
from .session import Session

HELP = """\
  /set ...            change a setting; alone, it lists them
  /show [what]        the model: info, license, modelfile, parameters, system, template
  /load MODEL         talk to another model
  /save MODEL         make a model of this one, its settings and this conversation
  /clear              forget the conversation
  /bye                leave (or Ctrl-D)
  \"\"\"                 begins and ends a text of several lines
Ctrl-C stops an answer."""

SETTINGS = """\
  /set parameter NAME VALUE...     a parameter of the model, such as temperature 0.2
  /set system TEXT                 what the model is to be
  /set format json | FILE          answer as JSON, or by a JSON Schema;  /set noformat
  /set think [low|medium|high]     reason before answering;              /set nothink
  /set verbose                     tell times after each answer;         /set quiet
  /set markdown                    draw Markdown;                        /set nomarkdown
  /set history                     keep what is typed;                   /set nohistory"""

_SHOWN = ("info", "license", "modelfile", "parameters", "system", "template")
_LEVELS = ("low", "medium", "high", "max")


class Service(Protocol):
    """What is asked."""

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an object, get one."""
        ...

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send an object, get one after the other."""
        ...


def is_command(text: str) -> bool:
    """Tell a command from a question that begins with a path.

    >>> is_command("/bye"), is_command("/etc/hosts is what?"), is_command("Hello")
    (True, False, False)
    """
    word = text.split(None, 1)[0] if text.strip() else ""
    return word.startswith("/") and "/" not in word[1:]


@dataclass
class Desk:
    """Who carries commands out; what goes wrong is raised as `ServiceError` and told by others."""

    service: Service
    session: Session
    abilities_of: Callable[[Any, str], frozenset[str]]
    keyboard: Keyboard | None = None
    is_over: bool = False

    def words(self) -> tuple[str, ...]:
        """Give what the tab key completes."""
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
        console.tell(SETTINGS if about.lstrip("/") == "set" else HELP)

    def _leave(self, _: str) -> None:
        self.is_over = True

    def _clear(self, _: str) -> None:
        self.session.turns.clear()
        console.tell("The conversation is forgotten.")

    def _load(self, model: str) -> None:
        if not model:
            raise ServiceError("Say which: /load MODEL.")
        model = _whole(model)
        self.session.change_model(model, self.abilities_of(self.service, model))
        console.tell(f"{model}. The conversation begins anew.")

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
        console.tell(f"Made '{name}'.")

    def _show(self, what: str) -> None:
        what = what or "info"
        if what not in _SHOWN:
            raise ServiceError(f"/show knows {', '.join(_SHOWN)}.")
        if what == "system" and self.session.system:
            console.say(self.session.system)
            return
        told = self.service.post("/api/show", {"model": self.session.model})
        if what == "info":
            console.say(card.text(told))
        else:
            console.say(str(told.get(what) or f"The model has no {what}."))
        if what == "parameters" and self.session.options:
            own = (f"{name:<30} {value}" for name, value in self.session.options.items())
            console.say("\n".join(("Set here:", *own)))

    def _set(self, wish: str) -> None:
        name, _, value = wish.partition(" ")
        change = self._settings().get(name)
        if change is None:
            console.tell(SETTINGS if not name else f"There is no setting '{name}'.\n{SETTINGS}")
            return
        change(value.strip())

    def _settings(self) -> dict[str, Callable[[str], None]]:
        session = self.session

        def fixed(field: str, value: object, words: str) -> Callable[[str], None]:
            def change(_: str) -> None:
                setattr(session, field, value)
                console.tell(words)

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
        from paddock.engine.store.parameters import read_parameter

        name, *words = value.split() or [""]
        if not name or not words:
            raise ServiceError("Write it as /set parameter temperature 0.2.")
        try:
            read = [read_parameter(name, word) for word in words]
        except ValueError as error:
            raise ServiceError(str(error)) from None
        self.session.options[name] = read if name == "stop" else read[0]
        console.tell(f"{name} is {' '.join(words)}.")

    def _system(self, text: str) -> None:
        self.session.system = text
        console.tell("The system message is set." if text else "There is no system message.")

    def _format(self, value: str) -> None:
        from paddock.runner.formats import BadFormat, read_format

        try:
            self.session.format = read_format(value or "json")
        except BadFormat as error:
            raise ServiceError(str(error)) from None
        console.tell("Answers are JSON." if value in ("", "json") else f"Answers match {value}.")

    def _think(self, level: str) -> None:
        if level and level not in _LEVELS:
            raise ServiceError(f"'{level}' is not how much: {', '.join(_LEVELS)}.")
        if "thinking" not in self.session.abilities:
            raise ServiceError(f"'{self.session.model}' does not reason before it answers.")
        self.session.think = level or True
        console.tell("It reasons before it answers.")

    def _history(self, *, is_kept: bool) -> None:
        if self.keyboard is not None:
            self.keyboard.keeps_history = is_kept
        console.tell("What is typed is kept." if is_kept else "What is typed is not kept.")


def history_file(state_dir: Path) -> Path:
    """Tell where what is typed is kept."""
    return state_dir / "chat-history"


def _whole(model: str) -> str:
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
