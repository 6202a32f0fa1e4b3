"""The command line: one Typer application, with one module for each group of commands.

Commands are thin: they read the settings, call the API and print the result. What is slow to
import (Prefect, llama.cpp, SQLAlchemy, Rich) is imported by the command that needs it.
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

from paddock.runner.progress import console

from . import arguments, completion
from .exit_status import INTERRUPTED
from .help import apply_help_layout

# The modules of `commands`, and the commands of each: only the one that is asked for is imported,
# and only its options are laid out, which saves `validate` a quarter of its time.
GROUPS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("commands.validate_plan_run", "register"): (
        "validate",
        "plan",
        "run",
    ),
    ("commands.init_schema_steps", "register"): (
        "init",
        "schema",
        "steps",
        "doctor",
    ),
    ("commands.graph_tools", "register_tools"): ("tools",),
    ("commands.summarise", "register"): (
        "summarise",
        "summarize",
    ),
    ("commands.config", "register"): ("config",),
    ("commands.test", "register"): ("test",),
    ("commands.chat", "register"): ("chat",),
    ("commands.embed_batch", "register_embed"): ("embed",),
    ("commands.embed_batch", "register_batch"): ("batch",),
    ("commands.pull_push_create", "register_transfers"): (
        "pull",
        "push",
    ),
    ("commands.model_commands", "register_store"): (
        "list",
        "ls",
        "cp",
        "rm",
        "check",
        "prune",
    ),
    ("commands.model_commands", "register_show"): ("show",),
    ("commands.pull_push_create", "register_create"): ("create",),
    ("commands.tune", "register"): ("tune",),
    ("commands.serve_service", "register_serve"): ("serve",),
    ("commands.serve_service", "register_service"): ("service",),
    ("commands.up_allow_worker_cluster", "register_up"): ("up",),
    ("commands.up_allow_worker_cluster", "register_allow"): ("allow",),
    ("commands.up_allow_worker_cluster", "register_cluster"): ("cluster",),
    ("commands.up_allow_worker_cluster", "register_worker"): ("worker",),
    ("commands.model_commands", "register_running"): (
        "ps",
        "stop",
    ),
    ("commands.runs_logs_why_clean", "register_history"): (
        "runs",
        "logs",
    ),
    ("commands.runs_logs_why_clean", "register_clean"): ("clean",),
    ("commands.runs_logs_why_clean", "register_why"): ("why",),
    ("commands.graph_tools", "register_graph"): ("graph",),
    ("completion", "register"): ("completion",),
}


def application(command: str | None = None) -> typer.Typer:
    """Return the command line, or as much of it as this command needs."""
    app = typer.Typer(
        name="paddock",
        help="Declarative YAML pipelines for local language models.",
        add_completion=completion.is_completion_request(os.environ),
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: drawing it costs 0.15 s of imports
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root_options)
    wanted = [group for group, commands in GROUPS.items() if command in commands]
    for module, function in wanted or GROUPS:
        getattr(importlib.import_module(f"paddock.runner.cli.{module}"), function)(app)
    if not wanted:
        app.command("help")(_help)
    apply_help_layout(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from paddock.engine.system.distribution import OLLAMA_API, own_version

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
    import typer.main

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
    """Run the command that the arguments name; ends the process with its status.

    `begun` is called when all that it needs is imported, and Ctrl-C ends it in order.
    """
    console.configure_streams()
    # Asked to end, a run ends as by Ctrl-C: at a border, resumable, status 130. Not by sending
    # ourselves that: in the background of a script it is ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What follows is a third of the time of `validate` (measured with 150 packages installed):
    # looking for garbage among what was imported, 7 %, and again at the end, 15 %; looking for
    # Pydantic's plug-ins in every installed package, 8 %. A run that has nothing to do makes some
    # 140,000 objects that stay; each 50,000 of them cost 10 ms where they are looked through.
    gc.set_threshold(200_000, 10, 10)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.argv[1:] = arguments.translate_ollama_run(sys.argv[0], sys.argv[1:])
    try:
        app = application(_command_asked_for())
        begun()
        app()
    except KeyboardInterrupt:  # before a command began: those end in order by themselves
        sys.exit(INTERRUPTED)
    except OSError as error:  # help that cannot be written; what commands do is told by `guarded`
        console.print_err(f"standard output: {error.strerror or error}.")
        console.discard_stdout()
        sys.exit(1)
    finally:
        gc.freeze()
