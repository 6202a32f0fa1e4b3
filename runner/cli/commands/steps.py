"""The installed steps, tools, check functions and readers: `paddock steps`."""

from __future__ import annotations

from paddock.runner.cli import step_catalogue
from paddock.runner.cli.arguments import JsonOption, argument
from paddock.runner.cli.exit_status import DONE
from paddock.runner.progress import printing


def steps(
    name: str | None = argument("Show all of this step.", metavar="NAME"),
    as_json: JsonOption = False,
) -> int:
    if name is not None:
        described = step_catalogue.step_description(name)
        printing.print_result(described.as_json(), described.text(), as_json=as_json)
        return DONE
    found = step_catalogue.list_installed()
    for sentence in found.broken:
        printing.print_err(sentence)
    printing.print_result(found.as_json(), step_catalogue.catalogue_text(found), as_json=as_json)
    return DONE
