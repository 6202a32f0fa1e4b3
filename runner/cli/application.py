"""Command line: one Typer application, the module of each command and help.

Commands are thin: they read the settings, call the API and print the result. Only the module of
the command that is asked for is imported; `paddock --help` needs none of them. A new command goes
into `GROUPS` and under one of `SECTIONS`; one that is not there is hidden. Help and messages about
options are Typer's.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from paddock.engine.system.distribution import OLLAMA_API, own_version
from paddock.runner.progress import printing

from . import pipeline_or_model
from .completion import LINE_VARIABLE, REQUEST_VARIABLE
from .exit_status import INTERRUPTED, with_exit_status

GROUPS: Mapping[str, tuple[str, ...]] = {
    **{
        f"commands.{name}": (name,)
        for name in (
            *("validate", "plan", "run", "init", "schema", "steps", "doctor", "graph", "tools"),
            *("config", "test", "compare", "chat", "embed", "batch", "up", "allow", "setup"),
            *("status", "why", "clean", "adopt", "ledger", "mcp"),
        )
    },
    "commands.summarise": ("summarise", "summarize"),
    "commands.model_transfers": ("models", "pull", "push", "create"),
    "commands.model_commands": (
        *("list", "ls", "show", "cp", "rm", "check", "prune", "ps", "stop"),
    ),
    "commands.service": ("serve", "service"),
    "commands.pauses": ("pause", "resume"),
    "commands.run_history": ("runs", "logs"),
    "commands.review": ("review", "console"),
    "completion": ("completion",),
}
"""Module → its commands, functions or groups of these names."""
_ALIASES = {"ls": "list", "summarize": "summarise"}
_FUNCTIONS = {"list": "list_", "compare": "compare_variants", "console": "show_console"}
"""Commands whose functions have other names."""

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Pipelines": {
        "init": "Make a new pipeline folder: from three questions, or from a template.",
        "validate": "Check pipelines and print every fault.",
        "plan": "Show what a run would do, and why.",
        "run": "Run a pipeline; the same command again continues.",
        "review": "Decide on the answers that wait for review.",
        "test": "Run a pipeline's tests; exit with 4 if one fails.",
        "compare": "Compare models, prompts and parameters on your documents; outputs stay as they "
        "are.",
        "summarise": "Summarise every document in a folder, or print the summary of one.",
        "graph": "Draw a pipeline as Mermaid text, with what its last run did.",
        "console": "Show pipelines, runs, what waits for review, models and settings as pages.",
        "why": "Show where an output came from, and what changed since.",
        "runs": "List past and present runs, newest first.",
        "logs": "Show what a run did: its items, failures and notes.",
        "clean": "Remove old runs, logs and cached replies; fresh items stay fresh.",
        "ledger": "Copy the ledger of a folder to PostgreSQL, or back into a file.",
        "adopt": "Take the ledger of a copy, a backup or a clone for one that was made here.",
    },
    "Unattended": {
        "up": "Run the schedules, watches and webhooks of the pipelines below DIR.",
        "status": "Show `paddock up` with its triggers and orders, the services, the last runs.",
        "pause": "Hold back the runs of a pipeline under `paddock up`, or those of one trigger.",
        "resume": "Resume the runs that `paddock pause` holds back.",
        "allow": "Allow pipeline files what they ask for, for `paddock up`.",
        "setup": "Print the unit that keeps `paddock up` running, and how to install it.",
        "mcp": "Serve the pipelines of FOLDER to agents as tools (Model Context Protocol).",
        "service": "Local service: one pool for all runs on this machine.",
    },
    "Models": {
        "chat": "Chat with a model; or ask it once, with a prompt or piped text.",
        "embed": "Print the vector of each text as a line of JSON.",
        "batch": "Answer a file of requests; the same command again continues.",
        "list": "List the models on this machine.",
        "show": "Show the details of a model.",
        "models": "Show what models here can do, and which well-known ones fit, and how fast.",
        "pull": "Download a model; an interrupted download continues.",
        "push": "Upload a model to a registry.",
        "create": "Make a model from a Modelfile.",
        "cp": "Copy a model to a second name.",
        "rm": "Remove models; blobs that other models use stay.",
        "check": "Verify the blobs of models, and name the faulty ones.",
        "prune": "Remove blobs that no model uses.",
        "serve": "Serve models over HTTP: Ollama's API and OpenAI's.",
        "ps": "List the loaded models, how busy they are, and which service holds them.",
        "stop": "Unload models after their current answers, in every service.",
    },
    "Installation": {
        "steps": "List the installed steps, tools, check functions and readers with parameters.",
        "tools": "List the tools that steps can call, with their arguments.",
        "schema": "Print the JSON Schema of pipelines, or what a coding assistant reads.",
        "config": "Show each setting, and where it came from.",
        "doctor": "Check this machine: llama.cpp, devices, models, disks, ports.",
        "completion": "Print the script that completes commands, options and models in a shell.",
        "help": "Show what a command does; without one, list them all.",
    },
}
"""Heading → command → the first paragraph of its help, in this order.

`paddock --help` prints this without importing the commands. One of which there is more to say has
a docstring, whose first paragraph it is; a test compares them.
"""


def application(command: str | None = None) -> typer.Typer:
    """Return the application with this command's group; without one, only what help shows."""
    app = typer.Typer(
        name="paddock",
        cls=RootGroup,
        help="Declarative YAML pipelines for local language models.",
        add_completion=bool(os.environ.get(REQUEST_VARIABLE)),
        no_args_is_help=True,
        rich_markup_mode=None,  # importing Rich to draw the help takes 0.15 s
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root_options)
    group = next((group for group, names in GROUPS.items() if command in names), None)
    if group is not None:
        # A module's class `Command`, if there is one, parses the arguments of its commands.
        module: Any = importlib.import_module(f"paddock.runner.cli.{group}")
        summaries = {name: text for of in SECTIONS.values() for name, text in of.items()}
        for name in GROUPS[group]:
            own = _ALIASES.get(name, name)
            found = getattr(module, _FUNCTIONS.get(own, own))
            if isinstance(found, typer.Typer):
                app.add_typer(found, help=summaries[own])
            else:
                text = inspect.getdoc(found) or summaries[own]
                parser, is_hidden = getattr(module, "Command", None), name in _ALIASES
                command_of = app.command(name, cls=parser, help=text, hidden=is_hidden)
                command_of(with_exit_status(found))
    else:
        for section in SECTIONS.values():
            for name, summary in section.items():
                app.command(name, help=summary)(_help if name == "help" else lambda: None)
    for below in app.registered_groups:
        below.cls = HelpGroup
    return app


def _version(is_requested: bool) -> None:
    if is_requested:
        own = f"paddock {own_version()}"
        called = pipeline_or_model.is_called_as_ollama(sys.argv[0])
        printing.print_out(f"ollama version is {OLLAMA_API} ({own})" if called else own)
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
        list[str] | None, typer.Argument(metavar="COMMAND", help="The command.")
    ] = None,
) -> None:
    """Show what a command does; without one, list them all."""
    words = command or []
    app = typer.main.get_command(application(words[0] if words else None))
    app.main([*words, "--help"], prog_name="paddock")


def main(begun: Callable[[], None] = lambda: None) -> None:
    """Run the command of `sys.argv` and exit with its status.

    `begun` is called after the command's imports: from then on Ctrl-C ends it in order.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that it lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    # SIGTERM ends a run like Ctrl-C: drained, resumable, status 130. We do not send ourselves
    # SIGINT, because a shell script starts background processes with SIGINT ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A quarter of the time of `validate`, measured with 150 packages installed: garbage collection
    # at exit 15 %, Pydantic's search for plug-ins in every package 8 %.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Else NumPy's threads spin for 20 ms after each product: a search took three times the CPU time
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    sys.argv[1:] = pipeline_or_model.translate_ollama_run(sys.argv[0], sys.argv[1:])
    try:
        # The command that is run, or whose arguments a shell completes
        if os.environ.get(REQUEST_VARIABLE):
            # Keep Typer from importing Rich for help texts, which takes 0.15 s.
            sys.modules["rich"] = None  # type: ignore[assignment]
            words = os.environ.get(LINE_VARIABLE, "").lstrip().split(" ")[:-1]
        else:
            words = sys.argv
        app = application(words[1] if len(words) > 1 else None)
        begun()
        app()
    except SystemExit as ended:
        is_beside = any(thread.daemon for thread in threading.enumerate())
        if ended.code == INTERRUPTED and is_beside:
            # A thread at work while the interpreter is taken down ends the process by a signal
            for output in (sys.stdout, sys.stderr):
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    output.flush()
            os._exit(INTERRUPTED)
        raise
    except KeyboardInterrupt:  # before a command began: `with_exit_status` handles later ones
        sys.exit(INTERRUPTED)
    except OSError as error:  # the help could not be written
        printing.print_err(f"standard output: {error.strerror or error}.")
        printing.discard_stdout()
        sys.exit(1)
    finally:
        gc.freeze()


class HelpGroup(TyperGroup):
    """Group whose help shows each command's first paragraph uncut."""

    sections: Mapping[str, Collection[str]] = {}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        summaries = {
            name: " ".join((command.help or "").partition("\n\n")[0].split())
            for name, command in self.commands.items()
            if not command.hidden
        }
        for heading, names in (self.sections or {"Commands": summaries}).items():
            rows = [(name, summaries[name]) for name in names if name in summaries]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class RootGroup(HelpGroup):
    sections = SECTIONS
