"""Layout of `--help`: commands in sections, whole sentences, arguments as people write them.

Subclasses Typer's command classes. Typer's own notation (`{FILE...}...`, `<int range>`) and its
messages are replaced by plain words. A new command goes under one of `SECTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

SECTIONS = {
    "Pipelines": (
        "init", "validate", "plan", "run", "test", "summarise", "graph", "why", "runs", "logs",
        "clean",
    ),
    "Unattended, on one machine or several": ("up", "allow", "service", "worker", "cluster"),
    "Models": (
        "chat", "embed", "batch", "list", "show", "pull", "push", "create", "cp", "rm", "tune",
        "check", "prune", "serve", "ps", "stop",
    ),
    "What there is": ("steps", "tools", "schema", "config", "doctor", "completion", "help"),
}  # fmt: skip
"""Heading → the commands below it, in this order."""

_TYPER_TYPE = re.compile(r" <([^<>]*)>")
_TYPE_NAMES = {"str": "TEXT", "int": "N", "int range": "N", "float": "NUMBER", "path": "PATH"}
_TYPER_RANGE = re.compile(r"(\d+)<=x<=(\d+)")
_PLAIN_USAGE_ERRORS = {
    r"^Value error, ": "",
    r"^Input should be greater than or equal to ": "it must be at least ",
    r"^Input should be less than or equal to ": "it must be at most ",
    r"^Input should be a valid integer, .*": "it must be a whole number",
    r"^Input should be a valid number, .*": "it must be a number",
    r"^Input should be ": "it must be ",
}
"""What Typer says of a value that it does not take → how we say it."""
_TYPER_MINIMUM = re.compile(r"x>=(\d+)")


class HelpCommand(TyperCommand):
    """A command whose help names arguments as they are written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; what is wrong with it is told in plain words."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = plain_usage_error(error.message)
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the command's name in the line of its usage."""
        return [
            "[OPTIONS]",
            *(_usage_piece(param) for param in _argument_params(self.get_params(ctx))),
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each with what it is for."""
        arguments, options = [], []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                arguments.append((_argument_name(param), _option_help(record[1])))
            else:
                options.append((_option_signature(record[0]), _option_help(record[1])))
        for heading, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class HelpGroup(TyperGroup):
    """A group whose help tells each command in whole."""

    sections: Mapping[str, Collection[str]] = {}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, under headings where there are some."""
        told = {
            name: " ".join((command.help or "").partition("\n\n")[0].split())
            for name, command in self.commands.items()
            if not command.hidden
        }
        for heading, names in (self.sections or {"Commands": told}).items():
            rows = [(name, told[name]) for name in names if name in told]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class RootGroup(HelpGroup):
    """All the commands there are."""

    sections = SECTIONS


def apply_help_layout(app: typer.Typer, kind: type[HelpGroup] = RootGroup) -> None:
    """Let an application, and the groups in it, tell their help so."""
    app.info.cls = kind
    for command in app.registered_commands:
        if command.cls in (None, TyperCommand):
            command.cls = HelpCommand
    for group in app.registered_groups:
        group.cls = HelpGroup
        if group.typer_instance is not None:
            apply_help_layout(group.typer_instance, HelpGroup)


def plain_usage_error(told: str) -> str:
    """Say without a program's words what is wrong with a value.

    >>> plain_usage_error("Input should be greater than or equal to 1")
    'it must be at least 1.'
    >>> plain_usage_error("Value error, 'x' is not one of 'new', 'any'.")
    "'x' is not one of 'new', 'any'."
    """
    for theirs, ours in _PLAIN_USAGE_ERRORS.items():
        told = re.sub(theirs, ours, told)
    return told if not told or told.endswith((".", "?")) else f"{told}."


def _argument_params(params: Iterable[Any]) -> Iterator[Any]:
    return (param for param in params if param.param_type_name == "argument")


def _argument_name(param: Any) -> str:
    return str(param.metavar or param.name.upper()).strip("[].")


def _usage_piece(param: Any) -> str:
    name = _argument_name(param) + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _option_signature(names: str) -> str:
    """Return an option's names and what it takes.

    >>> _option_signature("--words <int range>"), _option_signature("--for <editor|llm>")
    ('--words N', '--for editor|llm')
    """
    return _TYPER_TYPE.sub(lambda found: f" {_TYPE_NAMES.get(found[1], found[1])}", names)


def _option_help(text: str) -> str:
    """Return what an option is for, its bounds in words.

    >>> _option_help("How many.  [default: 80; 1<=x<=100]"), _option_help("How many.  [x>=1]")
    ('How many.  [default: 80; 1 to 100]', 'How many.  [1 or more]')
    """
    return _TYPER_MINIMUM.sub(r"\1 or more", _TYPER_RANGE.sub(r"\1 to \2", text))
