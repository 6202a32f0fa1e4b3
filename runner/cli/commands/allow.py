"""Consent to what a pipeline file may reach under `paddock up`: `paddock allow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_written_starts
from paddock.runner.bind.trust.consent import consent_words, digests_to_agree
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.bind.trust.permissions import permission_names, permission_needs
from paddock.runner.cli.exit_status import DONE
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def allow(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pipeline files.")],
) -> int:
    """Allow pipeline files what they ask for, for `paddock up`.

    Prints what that is. A change of the file needs consent again. `--allow` of `paddock up`, or the
    settings, limit what can be allowed.
    """
    settings = read_settings(Path.cwd())
    consents, own = Consents(settings.state_dir), settings.address.url
    # Read all before recording any.
    all_starts = [(file, bind_written_starts(read_plan(file))) for file in files]
    for file, starts in all_starts:
        required = [need for bound in starts for need in permission_needs(bound, own)]
        if not required:
            printing.print_out(f"{file} asks for nothing that needs consent.")
            continue
        consents.agree(file, digests_to_agree(starts, own, consents))
        printing.print_out(f"{file} may, if `{permission_names(required)}` is allowed:")
        for words in consent_words(required, starts, consents):
            printing.print_out(f"  {words}")
    return DONE
