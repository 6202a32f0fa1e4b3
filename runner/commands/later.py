"""Commands and options of the language's page that this version does not carry out yet.

They are known, so that nobody takes them for a typing error, and hidden from the help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import typer

from .exits import CommandError, guarded

COMMANDS = (
    "graph", "summarise", "summarize",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    for name in COMMANDS:
        app.command(name, hidden=True, context_settings=anything)(_later(name))


def _later(name: str) -> Callable[[], None]:
    def command() -> int:
        """Not in this version."""
        raise CommandError(f"`paddock {name}` is not in this version.")

    return guarded(command)


def refuse(options: Mapping[str, object]) -> None:
    """Refuse options that were given and belong to a later version.

    Raises:
        CommandError: names them.
    """
    given = [name for name, value in options.items() if value]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise CommandError(
            f"{' and '.join(f'`{name}`' for name in given)} {verb} not in this version."
        )
