"""Command line: one Typer application, and the module of each command.

Commands are thin: they read the settings, call the API and print the result. Only the module of
the command that is asked for is imported; `paddock --help` needs none of them.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer
import typer.main

from paddock.engine.system.distribution import OLLAMA_API, own_version
from paddock.runner.progress import console

from . import arguments, completion
from .exit_status import INTERRUPTED
from .help import SECTIONS, apply_help_layout

GROUPS: Mapping[str, tuple[str, ...]] = {
    "commands.validate_plan_run": ("validate", "plan", "run"),
    "commands.init_schema_steps": ("init", "schema", "steps", "doctor"),
    "commands.graph_tools": ("graph", "tools"),
    "commands.summarise": ("summarise", "summarize"),
    "commands.config": ("config",),
    "commands.test": ("test",),
    "commands.chat": ("chat",),
    "commands.embed": ("embed",),
    "commands.batch": ("batch",),
    "commands.pull_push_create": ("pull", "push", "create"),
    "commands.model_commands": (
        *("list", "ls", "show", "cp", "rm", "check", "prune", "ps", "stop"),
    ),
    "commands.tune": ("tune",),
    "commands.serve_service": ("serve", "service"),
    "commands.up_allow_worker_cluster": ("up", "allow", "worker", "cluster"),
    "commands.runs_logs_why_clean": ("runs", "logs", "why", "clean"),
    "commands.review": ("review",),
    "completion": ("completion",),
}
"""Module whose `register` adds commands → those commands."""


def application(command: str | None = None) -> typer.Typer:
    """Return the application with this command's group; without one, only what help shows."""
    app = typer.Typer(
        name="paddock",
        help="Declarative YAML pipelines for local language models.",
        add_completion=completion.is_completion_request(os.environ),
        no_args_is_help=True,
        rich_markup_mode=None,  # importing Rich to draw the help takes 0.15 s
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root_options)
    group = next((group for group, names in GROUPS.items() if command in names), None)
    if group is not None:
        importlib.import_module(f"paddock.runner.cli.{group}").register(app)
    else:
        for summaries in SECTIONS.values():
            for name, summary in summaries.items():
                app.command(name, help=summary)(_help if name == "help" else _only_listed)
    apply_help_layout(app)
    return app


def _only_listed() -> None:
    """Stand for a command of which the help needs the summary alone."""


def _version(wanted: bool) -> None:
    if wanted:
        own = f"paddock {own_version()}"
        called = arguments.is_called_as_ollama(sys.argv[0])
        console.print_out(f"ollama version is {OLLAMA_API} ({own})" if called else own)
        raise typer.Exit


def _root_options(
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
    words = command or []
    app = typer.main.get_command(application(words[0] if words else None))
    app.main([*words, "--help"], prog_name="paddock")


def _command_asked_for() -> str | None:
    """Return the command that is run, or whose arguments a shell completes."""
    if completion.is_completion_request(os.environ):
        completion.disable_rich_markup()
        return completion.completed_command(os.environ)
    return sys.argv[1] if len(sys.argv) > 1 else None


def main(begun: Callable[[], None] = lambda: None) -> None:
    """Run the command of `sys.argv` and exit with its status.

    `begun` is called after the command's imports: from then on Ctrl-C ends it in order.
    """
    console.configure_streams()
    # SIGTERM ends a run like Ctrl-C: drained, resumable, status 130. We do not send ourselves
    # SIGINT, because a shell script starts background processes with SIGINT ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A third of the time of `validate`, measured with 150 packages installed: garbage collection
    # during imports 7 %, at exit 15 %, Pydantic's search for plug-ins in every package 8 %. A run
    # with nothing to do keeps some 140,000 objects; each collection of 50,000 costs 10 ms.
    gc.set_threshold(200_000, 10, 10)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.argv[1:] = arguments.translate_ollama_run(sys.argv[0], sys.argv[1:])
    try:
        app = application(_command_asked_for())
        begun()
        app()
    except KeyboardInterrupt:  # before a command began: `with_exit_status` handles later ones
        sys.exit(INTERRUPTED)
    except OSError as error:  # the help could not be written
        console.print_err(f"standard output: {error.strerror or error}.")
        console.discard_stdout()
        sys.exit(1)
    finally:
        gc.freeze()
