"""`paddock chat`: talk to a model at the terminal, or ask it once from a script."""

from __future__ import annotations

import base64
import contextlib
import importlib
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from paddock.engine.models.modelfile import parse_parameter
from paddock.engine.system import private_files, units
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import counted, shell_command
from paddock.runner.cli import model_arguments
from paddock.runner.cli.arguments import argument, flag, keep_alive_option, option
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError
from paddock.runner.cli.model_arguments import ModelArgument, read_document_text
from paddock.runner.config.format_option import BadAnswerFormat, answer_format
from paddock.runner.daemon.service_client import ServiceClient, ServiceError
from paddock.runner.daemon.service_lookup import service_for_command
from paddock.runner.progress import printing
from paddock.runner.settings import Settings, read_settings
from paddock.steps.base import StepError

_LEVELS = ("low", "medium", "high", "max")
_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"))
_NOT_FOUND, _MARK = 404, '"""'
_HOW_TO_LEAVE = "Ctrl-D or /bye leaves."
_HELP = """\
  /file FILE     add a document's text, or an image, to the next question
  /system TEXT   set the system message
  /load MODEL    chat with another model
  /clear         start a new conversation
  /bye           leave (or Ctrl-D)
\"\"\" begins and ends a text of several lines. Ctrl-C stops an answer."""


class Command(TyperCommand):
    """Parser of its arguments: accepts `--think` with and without a level, as `ollama run` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        plain = {f"--think={word}": "--no-think" for word in ("false", "none")}
        plain["--think=true"] = "--think"
        given = [plain.get(arg, arg.replace("--think=", "--effort=", 1)) for arg in args]
        return super().parse_args(ctx, given)


@dataclass(frozen=True, slots=True)
class ChatFlags:
    model: ModelArgument
    prompt: list[str] | None = argument(
        "Answer this once; without it: a conversation.", metavar="PROMPT"
    )
    files: list[str] | None = option(
        "Add a document's text to the prompt.", "--file", "-f", metavar="FILE"
    )
    images: list[str] | None = option("Show an image.", "--image", metavar="FILE")
    system: str | None = option("System message.", metavar="TEXT")
    format_: str | None = option(
        "Answer as JSON, or by a JSON Schema.", "--format", metavar="json|FILE"
    )
    think: bool | None = option(
        "Reason first; --think=low|medium|high sets how much.", "--think/--no-think"
    )
    effort: str | None = option("", "--effort", hidden=True)
    hide_thinking: bool = flag("Do not show the reasoning.", "--hidethinking", "--hide-thinking")
    parameters: list[str] | None = option(
        "Such as temperature=0.2.", "--param", "-p", metavar="NAME=VALUE"
    )
    keep_alive: str | None = keep_alive_option()
    pull: bool | None = option("", "--pull/--no-pull", hidden=True)
    insecure: bool = flag("", "--insecure", hidden=True)
    verbose: bool = flag("Show timings.", "--verbose")

    def request(self) -> dict[str, Any]:
        request: dict[str, Any] = {"options": (options := dict[str, Any]())}
        try:
            for pair in self.parameters or ():
                name, equals, value = pair.partition("=")
                if not equals:
                    what = f"'-p {pair}' is not a parameter."
                    raise CommandError(f"{what}\n  Write it as `-p name=value`.")
                read = parse_parameter(name.strip(), value)
                options[name.strip()] = [*options.get("stop", []), read] if name == "stop" else read
            if self.format_ is not None:
                request["format"] = answer_format(self.format_)
        except BadAnswerFormat as error:
            raise CommandError(f"--format: {error}") from None
        except ValueError as error:
            raise CommandError(f"-p: {error}") from None
        if self.effort not in (None, *_LEVELS):
            known = ", ".join(_LEVELS)
            raise CommandError(f"--think: '{self.effort}' is not a level. Known: {known}.")
        if (think := self.effort or self.think) is not None:
            request["think"] = think
        if self.keep_alive is not None:
            request["keep_alive"] = model_arguments.parse_keep_alive(self.keep_alive)
        return request


def chat(flags: ChatFlags) -> int:
    request, model = flags.request(), model_arguments.resolve_model_ref(flags.model)
    # The prompt: the arguments, then documents, then piped text
    parts = [" ".join(flags.prompt or ()), *map(read_document_text, flags.files or ())]
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    # With a prompt, what is neither a pipe, a file nor a socket may never end
    if sys.stdin is not None and not is_terminal:
        mode = 0
        with contextlib.suppress(OSError, ValueError):
            mode = stat.S_IFMT(os.fstat(sys.stdin.fileno()).st_mode)
        if not flags.prompt or mode in (stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK):
            parts.append(model_arguments.read_stdin())
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    settings = read_settings(Path.cwd())
    with service_for_command(settings, model) as client:
        conversation = Conversation(client, flags, request, flags.system or "")
        conversation.load(model)
        for image in flags.images or ():
            conversation.add_image(image)
        if is_terminal and not flags.prompt:
            conversation.documents += [text] if text else []
            with _line_history(settings):
                _converse(conversation)
        elif not text:
            raise CommandError("There is no prompt: the input is empty.")
        elif not conversation.ask(text):
            return INTERRUPTED
    return DONE


class Conversation(Struct):
    """A chat with one model; documents and images (base64) go with the next question."""

    service: ServiceClient
    flags: ChatFlags
    request: dict[str, Any]
    system: str
    turns: list[dict[str, Any]] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    takes_images: bool = False

    def load(self, model: str) -> None:
        """Begin with a model; pull one that is missing if we are called as `ollama run`."""
        try:
            card = self.service.post("/api/show", {"model": model})
        except ServiceError as error:
            if error.status != _NOT_FOUND:
                raise
            pull_it = shell_command("paddock", "pull", model)
            if self.flags.pull is None:
                what = f"There is no model '{model}' here.\n  {pull_it}"
                raise ServiceError(what, _NOT_FOUND) from None
            if not self.flags.pull:
                what = f"There is no pipeline '{model}' and no model of that name here."
                remedy = "Name a file or a folder with a pipeline, or pull the model"
                raise CommandError(f"{what}\n  {remedy}: `{pull_it}`") from None
            from .model_transfers import pull

            if pull(model, as_name=None, insecure=self.flags.insecure) != DONE:
                raise typer.Exit(INTERRUPTED) from None
            card = self.service.post("/api/show", {"model": model})
        abilities = card.get("capabilities") or ["completion"]
        if "completion" not in abilities:
            remedy = f"For vectors: paddock embed {model} 'a text'"
            raise ServiceError(f"'{model}' is not a chat model.\n  {remedy}")
        self.request["model"], self.takes_images = model, "vision" in abilities
        self.turns.clear()

    def add_image(self, file: str) -> None:
        if not self.takes_images:
            raise ServiceError(f"'{self.request['model']}' does not take images.")
        try:
            data = Path(file).expanduser().read_bytes()
        except OSError as error:
            raise CommandError(f"'{file}' cannot be read: {error.strerror}.") from None
        self.images.append(base64.b64encode(data).decode("ascii"))

    def ask(self, text: str) -> bool:
        """Stream the answer to stdout, and keep it even in part; return whether it was completed.

        Raises:
            ServiceError: there was no answer; the question is not kept.
        """
        question: dict[str, Any] = {"role": "user", "content": "\n\n".join((text, *self.documents))}
        question |= {"images": self.images} if self.images else {}
        system = [{"role": "system", "content": self.system}] if self.system else []
        request = {**self.request, "messages": [*system, *self.turns, question]}
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        hidden = () if is_terminal and not self.flags.hide_thinking else ("thinking",)
        parts = {"thinking": "", "content": ""}
        last = dict[str, Any]()
        try:
            with contextlib.closing(self.service.stream("/api/chat", request)) as chunks:
                with _spinner(request["model"]) if is_terminal else contextlib.nullcontext():
                    first = next(chunks, {})
                for last in chain([first], chunks):
                    for kind, piece in (last.get("message") or {}).items():
                        if kind not in parts or not piece:
                            continue
                        parts[kind] += piece
                        if kind in hidden:
                            continue
                        is_first = parts[kind] == piece
                        if kind == "thinking" and is_first:
                            piece = f"Thinking...\n{piece}"
                        elif is_first and parts["thinking"] and not hidden:
                            piece = f"\n...done thinking.\n\n{piece}"
                        if not printing.write_out(piece):
                            return True  # the reader is gone
        except KeyboardInterrupt:
            return False
        finally:
            if any(parts.values()):
                answer = {kind: text for kind, text in parts.items() if text or kind == "content"}
                self.turns += [question, {"role": "assistant", **answer}]
                self.documents, self.images = [], []
                if not parts["content"].endswith("\n"):
                    printing.write_out("\n")
        if last.get("truncated"):
            n = f"{last.get('prompt_tokens_original', 0):,} tokens"
            printing.print_err(
                f"(The conversation has {n}, more than the context holds: its oldest turns were "
                "left out. /clear starts a new one.)"
            )
        if last.get("done_reason") == "length":
            printing.print_err("(The answer reached its limit; `-p num_predict=N` changes it.)")
        if self.flags.verbose:
            printing.print_err(_timings_text(last))
        return True


def _spinner(model: str) -> contextlib.AbstractContextManager[Any]:
    from rich import console, text

    waiting = text.Text(f"{printing.printable_line(model)} ...", "dim")
    return console.Console().status(waiting)


def _timings_text(last: Mapping[str, Any]) -> str:
    r"""Return the times in an answer's last object.

    >>> _timings_text({"load_duration": 1e9, "eval_count": 50, "eval_duration": 1.25e9})
    'load 1.0 s\nanswer 50 tokens in 1.2 s, 40 tokens/s'
    """
    lines = []
    for name, key in (("total", "total"), ("load", "load"), ("queue", "queue"),
                      ("prompt", "prompt_eval"), ("answer", "eval")):  # fmt: skip
        seconds, n = (last.get(f"{key}_duration") or 0) / 1e9, last.get(f"{key}_count")
        words = (
            f"{counted(n, 'token')} in {units.duration(seconds)}" if n else units.duration(seconds)
        )
        if name == "answer" and seconds:
            words += f", {units.speed((n or 0) / seconds)} tokens/s"
        lines += [f"{name} {words}"] if n or seconds >= 0.01 else []
    return "\n".join(lines)


def _converse(conversation: Conversation) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # not an answer alone
    printing.print_err(f"{conversation.request['model']}. /? shows the commands, {_HOW_TO_LEAVE}")
    while True:
        try:
            text = input(">>> ")
            with contextlib.suppress(EOFError):
                while text.count(_MARK) % 2:
                    text += "\n" + input("... ")
            text = text.replace(_MARK, "").strip("\n")
            command, _, value = text.strip().partition(" ")
            if command in ("/bye", "/exit"):
                return
            if command.startswith("/") and "/" not in command[1:]:  # else it is a path
                printing.print_err(_carried_out(conversation, command, value.strip()))
            elif command and not conversation.ask(text):
                printing.print_err("(Stopped.)")
        except EOFError:
            printing.print_err("")
            return
        except KeyboardInterrupt:
            printing.print_err(f"\n{_HOW_TO_LEAVE}")
        except (ServiceError, StepError, CommandError) as error:
            printing.print_err(str(error))


def _carried_out(conversation: Conversation, command: str, value: str) -> str:
    if command == "/clear":
        conversation.turns.clear()
        return "The conversation starts from the beginning."
    if command == "/system":
        conversation.system = value
        return "The system message is set." if value else "There is no system message."
    if command == "/load" and value:
        conversation.load(model_arguments.resolve_model_ref(value))
        return f"{conversation.request['model']}. A new conversation begins."
    if command == "/file" and value:
        if Path(value).suffix.lower() in _IMAGE_SUFFIXES:
            conversation.add_image(value)
        else:
            conversation.documents.append(read_document_text(value))
        return f"{value} goes with the next question."
    return _HELP


@contextlib.contextmanager
def _line_history(settings: Settings) -> Iterator[None]:
    """Load the history of input lines, and save what is added to it."""
    try:
        readline = importlib.import_module("readline")
    except ImportError:
        yield
        return
    file = settings.state_dir / "chat-history"
    readline.set_history_length(2000)
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    n_before = readline.get_current_history_length()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not settings.keeps_no_history:
                private_files.private_folder(file.parent)
                private_files.open_private(file, "a").close()
                readline.append_history_file(readline.get_current_history_length() - n_before, file)
