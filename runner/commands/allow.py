"""`paddock allow`: agree to what pipeline files ask for, so that `paddock up` carries them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .exits import DONE, guarded


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("allow")(guarded(allow))


def allow(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pipeline files.")],
) -> int:
    """Let `paddock up` carry out what pipeline files ask for, as they are now.

    Shows what that is. `--allow` of `paddock up`, or the settings, say what may be asked for.
    """
    from paddock.runner.asks import asks_of
    from paddock.runner.binding.bind import checked, plan_of
    from paddock.runner.consent import names_of, needs
    from paddock.runner.display import console
    from paddock.runner.settings import read_settings
    from paddock.runner.unattended.consents import Consents

    settings = read_settings(Path.cwd())
    consents, own = Consents(settings.state_dir), settings.address.url
    bounds = [(file, checked(plan_of(file))) for file in files]  # all are read before one counts
    for file, bound in bounds:
        wanted = needs(bound, own)
        if not wanted:
            console.say(f"{file} asks for nothing that needs consent.")
            continue
        consents.agree(file, asks_of(bound, own))
        words = dict.fromkeys(f"  {one.what}" for one in wanted)
        console.say("\n".join([f"{file} may, where `{names_of(wanted)}` is allowed:", *words]))
    return DONE
