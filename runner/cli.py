"""The command line's entrance: one Typer application, made of a module for each group.

Commands are thin: they read the settings, call a verb and say what came of it. What is slow to
import (Prefect, llama.cpp, SQLAlchemy, Rich) is imported by the command that needs it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from .commands import completion, like_ollama
from .commands.exits import INTERRUPTED
from .commands.helping import reads_well
from .display import console

# The modules of `commands`, and the commands of each: only the one that is asked for is imported,
# and only its options are laid out, which saves `validate` a quarter of its time.
GROUPS = {
    "pipelines": ("validate", "plan", "run"),
    "machine": ("init", "schema", "steps", "doctor"),
    "tools": ("tools",),
    "summarise": ("summarise", "summarize"),
    "config": ("config",),
    "test": ("test",),
    "chat": ("chat",),
    "embed": ("embed",),
    "batch": ("batch",),
    "transfers": ("pull", "push"),
    "store": ("list", "ls", "cp", "rm", "check", "prune"),
    "show": ("show",),
    "create": ("create",),
    "tune": ("tune",),
    "serve": ("serve",),
    "service": ("service",),
    "up": ("up",),
    "allow": ("allow",),
    "cluster": ("cluster",),
    "worker": ("worker",),
    "running": ("ps", "stop"),
    "history": ("runs", "logs"),
    "clean": ("clean",),
    "why": ("why",),
    "graph": ("graph",),
    "completion": ("completion",),
}


def application(command: str | None = None) -> typer.Typer:
    """Give the command line, or as much of it as this command needs."""
    app = typer.Typer(
        name="paddock",
        help="Declarative YAML pipelines for local language models.",
        add_completion=completion.is_asked(os.environ),
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: drawing it costs 0.15 s of imports
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    wanted = [name for name, commands in GROUPS.items() if command in commands]
    for name in wanted or GROUPS:
        importlib.import_module(f"paddock.runner.commands.{name}").register(app)
    if not wanted:
        app.command("help")(_help)
    reads_well(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from paddock.engine.system.distribution import OLLAMA_API, own_version

        own = f"paddock {own_version()}"
        called = like_ollama.is_ollama(sys.argv[0])
        console.say(f"ollama version is {OLLAMA_API} ({own})" if called else own)
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", "-v", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Declarative YAML pipelines for local language models."""


def _help(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND...]", help="The command.")
    ] = None,
) -> None:
    """Show what a command does; without one, list them all."""
    import typer.main

    words = command or []
    app = typer.main.get_command(application(words[0] if words else None))
    app.main([*words, "--help"], prog_name="paddock")


def _command() -> str | None:
    """Return the command that is run, or whose arguments a shell completes."""
    if completion.is_asked(os.environ):
        completion.without_markup()
        return completion.command_of(os.environ)
    return sys.argv[1] if len(sys.argv) > 1 else None


def main(begun: Callable[[], None] = lambda: None) -> None:
    """Run the command that the arguments name; ends the process with its status.

    `begun` is called when all that it needs is imported, and Ctrl-C ends it in order.
    """
    console.prepare()
    # Asked to end, a run ends as by Ctrl-C: at a border, resumable, status 130. Not by sending
    # ourselves that: in the background of a script it is ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What follows is a third of the time of `validate` (measured with 150 packages installed):
    # looking for garbage among what was imported, 7 %, and again at the end, 15 %; looking for
    # Pydantic's plug-ins in every installed package, 8 %. A run that has nothing to do makes some
    # 140,000 objects that stay; each 50,000 of them cost 10 ms where they are looked through.
    gc.set_threshold(200_000, 10, 10)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.argv[1:] = like_ollama.arguments(sys.argv[0], sys.argv[1:])
    try:
        app = application(_command())
        begun()
        app()
    except KeyboardInterrupt:  # before a command began: those end in order by themselves
        sys.exit(INTERRUPTED)
    except OSError as error:  # help that cannot be written; what commands do is told by `guarded`
        console.tell(f"standard output: {error.strerror or error}.")
        console.forget()
        sys.exit(1)
    finally:
        gc.freeze()
