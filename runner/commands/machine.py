"""Commands about this machine: `init`, `schema`, `steps`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from paddock.runner.display import console

from .exits import DONE, CommandError, guarded

Prefix = Annotated[
    str, typer.Argument(metavar="[PREFIX]", help="Only models whose names begin so.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(guarded(init))
    app.command("schema")(guarded(schema))
    app.command("steps")(guarded(steps))
    app.command("doctor")(guarded(doctor))


def init(
    template: Annotated[
        str | None,
        typer.Argument(metavar="[TEMPLATE]", help="A name; `paddock init` alone lists them."),
    ] = None,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="The folder to make.")] = None,
) -> int:
    """Make a new pipeline folder from a template."""
    from . import init as templates

    known = templates.templates()
    if template is None:
        raise CommandError(_which_template(known))
    if folder is None:
        # One word is the folder; one that names a template is both.
        folder, template = template, template if template in {t.name for t in known} else None
    written = templates.make(template, Path(folder), schema_of_all())
    console.say(f"Made '{folder}' with {console.counted(len(written), 'file')}.")
    here = Path(folder) / templates.PIPELINE
    command = f"paddock run {quote(str(here))}"
    console.say(f"Next: {command if here.exists() else f'pip install -e {quote(folder)}'}")
    return DONE


def _which_template(known: tuple[Any, ...]) -> str:
    width = max(len(template.name) for template in known)
    listed = "\n".join(f"  {one.name:<{width}}  {one.description}" for one in known)
    return f"Say where: `paddock init [TEMPLATE] DIR`. The templates:\n{listed}"


def schema(
    write: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write it to DIR/.paddock/pipeline.schema.json instead."),
    ] = None,
    for_: Annotated[
        Literal["editor", "llm"],
        typer.Option("--for", help="llm: an annotated template in YAML, for a coding assistant."),
    ] = "editor",
) -> int:
    """Print the JSON Schema of pipelines, for editors; or a template for a coding assistant."""
    if for_ == "llm":
        from . import for_llm, installed

        found = installed.installed()
        for sentence in found.broken:
            console.tell(sentence)
        console.say(for_llm.text_of(found).rstrip("\n"))
        return DONE
    if write is None:
        console.say_json(schema_of_all())
        return DONE
    from .init import write_schema

    if not Path(write).is_dir():
        raise CommandError(f"There is no folder '{write}'.")
    console.say(f"Wrote {write_schema(Path(write), schema_of_all())}.")
    return DONE


def schema_of_all() -> dict[str, Any]:
    """Build the schema from the language's models and every installed step that can be used."""
    from paddock.pipelines.schema import schema as build
    from paddock.steps import registry

    kinds, broken = registry.load_all()
    for error in broken:
        console.tell(str(error))
    return build({name: kind.params for name, kind in kinds.items()})


def steps(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Tell all of this one.")
    ] = None,
    as_json: Json = False,
) -> int:
    """List the installed steps, tools, check functions and readers, and what they take."""
    from . import installed

    if name is not None:
        from .one_step import told

        console.say_json(told(name).as_json()) if as_json else console.say(told(name).text())
        return DONE
    found = installed.installed()
    for sentence in found.broken:
        console.tell(sentence)
    if as_json:
        console.say_json(found.as_json())
    else:
        console.say(installed.text_of(found))
    return DONE


def doctor(as_json: Json = False) -> int:
    """Say what this machine has, and what it lacks."""
    from paddock.runner.settings import read_settings

    from . import doctor as examination
    from . import findings

    found = examination.examine(read_settings(Path.cwd()))
    if as_json:
        console.say_json(findings.as_json(found))
    else:
        console.say(findings.text(found))
    return findings.exit_status(found)
