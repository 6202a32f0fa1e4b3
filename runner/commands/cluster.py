"""`paddock cluster`: what several machines need to work on the same pipelines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, FAILED, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.runner.report import Report

Folder = Annotated[
    Path, typer.Argument(metavar="[DIR]", help="The shared folder of the pipelines.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="cluster",
        help="Several machines on the same pipelines.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("init")(guarded(init))
    group.command("run")(guarded(run))
    app.add_typer(group)


def init(folder: Folder = Path(), as_json: Json = False) -> int:
    """Check what several machines need, and make what lacks; run it on each of them.

    PostgreSQL for the ledger, Prefect's work pool, what tells of lost machines, the shared folder,
    clocks. Ends with 1 where something is in the way.
    """
    import asyncio

    from paddock.runner.cluster.findings import is_ready
    from paddock.runner.cluster.prepare import prepare
    from paddock.runner.settings import read_settings

    if not folder.is_dir():
        raise CommandError(f"{folder}: there is no such folder.")
    settings = read_settings(folder)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    found = asyncio.run(prepare(folder.resolve(), settings, api_url))
    if as_json:
        said = {"ready": is_ready(found), "findings": [finding.as_json() for finding in found]}
        console.say_json(said)
    else:
        console.say("\n".join(finding.as_text() for finding in found))
        if is_ready(found):
            console.say("\nReady. On each machine, with the same settings: paddock worker")
    return DONE if is_ready(found) else FAILED


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A pipeline on the shared folder.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", metavar="NAME=VALUE", help="Give an input."),
    ] = None,
    shares: Annotated[
        int | None, typer.Option(min=1, help="How many machines; as many as there are, by default.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what is quarantined.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Have the workers carry out a pipeline, and wait for the end; Ctrl-C stops them."""
    import asyncio

    from paddock.runner.cluster.delegate import Job, delegated
    from paddock.runner.cluster.given import absolute
    from paddock.runner.names import run_name
    from paddock.runner.prefect_auth import headers_from
    from paddock.runner.settings import read_settings
    from paddock.runner.signals import stopping
    from paddock.runner.signing import signer_for

    from .pipeline_files import pipeline_file
    from .pipelines import parse_inputs

    path = pipeline_file(file, "cluster run").resolve()
    settings = read_settings(path.parent)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    if not (api_url and settings.unattended.work_pool and settings.ledger_url):
        raise CommandError(
            "Several machines need PREFECT_API_URL, PADDOCK_WORK_POOL and PADDOCK_LEDGER.\n"
            "  `paddock cluster init` says what lacks."
        )
    job = Job(
        f"{run_name(())}-{os.getpid()}",
        path,
        absolute(path, parse_inputs(inputs), settings),
        settings.unattended.work_pool,
        retry_failed=retry_failed,
        n_shares=shares,
        max_restarts=settings.unattended.max_restarts,
    )

    signer = signer_for(settings.state_dir, settings.ledger_url)

    async def main() -> Report:
        stop = asyncio.Event()
        with stopping(stop):
            headers = headers_from(os.environ)
            note = _once(console.tell)
            return await delegated(job, api_url, signer, headers, stop=stop, note=note)

    report = asyncio.run(main())
    if as_json:
        console.say_json({"job": job.name, "status": report.status, "message": report.message})
    else:
        console.say(f"{report.status}: {report.message or path.name}")
    return report.exit_status("never")


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Say the same line once."""
    said: set[str] = set()

    def note(text: str) -> None:
        if text and text not in said:
            said.add(text)
            tell(text)

    return note
