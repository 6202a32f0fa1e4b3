"""`paddock chat`: talk to a model at the terminal, or ask it once from a script."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from paddock.engine.models.modelfile import parse_parameter
from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.cli import chat_images, conversation, model_arguments, slash_commands
from paddock.runner.cli.arguments import KeepAliveOption, argument, flag, option
from paddock.runner.cli.chat_terminal import answer_view
from paddock.runner.cli.conversation import NOT_FOUND
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError
from paddock.runner.cli.model_arguments import (
    ModelArgument,
    parse_keep_alive,
    read_document_text,
    read_stdin,
)
from paddock.runner.config.format_option import BadAnswerFormat, answer_format
from paddock.runner.daemon.service_client import ServiceError, service_for_command
from paddock.runner.settings import read_settings

if TYPE_CHECKING:
    from paddock.runner.daemon.service_client import ServiceClient


class Command(TyperCommand):
    """Parser of its arguments: accepts `--think` with and without a level, as `ollama run` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_think_option(arg) for arg in args])


def _think_option(arg: str) -> str:
    """Return our option for `--think=LEVEL`; Typer options cannot have an optional value.

    >>> _think_option("--think=high"), _think_option("--think=false"), _think_option("--think")
    ('--effort=high', '--no-think', '--think')
    """
    name, equals, value = arg.partition("=")
    if name != "--think" or not equals:
        return arg
    plain = {"true": "--think", "false": "--no-think", "none": "--no-think"}
    return plain.get(value.lower(), f"--effort={value}")


@dataclass(frozen=True, slots=True)
class ChatFlags:
    """Arguments and options of `paddock chat`."""

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
    keep_alive: KeepAliveOption = None
    pull: bool | None = option("", "--pull/--no-pull", hidden=True)
    insecure: bool = flag("", "--insecure", hidden=True)
    verbose: bool = flag("Show timings.", "--verbose")

    def conversation_options(self) -> dict[str, Any]:
        """Return what a `ChatConversation` takes besides its model."""
        keep_alive = self.keep_alive
        options: dict[str, Any] = {}
        for pair in self.parameters or []:
            name, equals, value = pair.partition("=")
            if not equals:
                raise CommandError(
                    f"'-p {pair}' is not a parameter.\n  Write it as `-p name=value`."
                )
            try:
                read = parse_parameter(name.strip(), value)
            except ValueError as error:
                raise CommandError(f"-p: {error}") from None
            options[name.strip()] = [*options.get("stop", []), read] if name == "stop" else read
        try:
            form = None if self.format_ is None else answer_format(self.format_)
        except BadAnswerFormat as error:
            raise CommandError(f"--format: {error}") from None
        levels = slash_commands.THINK_LEVELS
        if self.effort is not None and self.effort not in levels:
            what = f"'{self.effort}' is not a level. Known: {', '.join(levels)}."
            raise CommandError(f"--think: {what}")
        return {
            "system": self.system or "",
            "format": form,
            "think": self.think if self.effort is None else self.effort,
            "options": options,
            "keep_alive_s": None if keep_alive is None else parse_keep_alive(keep_alive),
            "is_verbose": self.verbose,
            "shows_thinking": not self.hide_thinking,
        }


def chat(flags: ChatFlags) -> int:
    """Chat with a model; or ask it once, with a prompt or piped text."""
    options = flags.conversation_options()
    model = model_arguments.resolve_model_ref(flags.model)
    # The prompt: the arguments, then documents, then piped text.
    parts = [" ".join(flags.prompt or ()), *map(read_document_text, flags.files or ())]
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if not is_terminal and sys.stdin is not None and not (flags.prompt and _is_idle_stdin()):
        parts.append(read_stdin())
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    settings = read_settings(Path.cwd())
    with service_for_command(settings, model) as client:
        if flags.pull is not None:
            _require_model(client, model, flags.pull, flags.insecure)
        if not text and not is_terminal:
            raise CommandError("There is no prompt: the input is empty.")
        abilities = conversation.model_capabilities(client, model)
        session = conversation.ChatConversation(model, abilities, **options)
        if not text:
            if flags.images:
                raise CommandError(
                    "Ask something about the image: `paddock chat MODEL 'what is this?' ...`"
                )
            history, keeps = settings.state_dir / "chat-history", not settings.keeps_no_history
            slash_commands.converse(client, session, history, keeps_history=keeps)
            return DONE
        images = flags.images or []
        try:
            conversation.add_question(session, text, [Path(image) for image in images])
            conversation.stream_answer(client, session, answer_view())
        except conversation.AnswerInterrupted:
            return INTERRUPTED
        except chat_images.NotAnImage as error:
            raise CommandError(str(error)) from None
        return DONE


def _require_model(client: ServiceClient, model: str, pulls: bool, is_insecure: bool) -> None:
    """Check that the model of `run MODEL` exists; with `pulls`, pull a missing one."""
    try:
        client.post("/api/show", {"model": model})
    except ServiceError as error:
        if error.status != NOT_FOUND:
            raise
        if pulls:
            from .pull_push_create import pull

            if pull(model, as_name=None, insecure=is_insecure) != DONE:
                raise typer.Exit(INTERRUPTED) from None
            return
        raise CommandError(
            f"There is no pipeline '{model}' and no model of that name here.\n"
            f"  Name a file or a folder with a pipeline, or pull the model: `paddock pull {model}`"
        ) from None


def _is_idle_stdin() -> bool:
    """Return whether stdin is neither a pipe, a file nor a socket, so that reading it may hang."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return True
    return not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode))
