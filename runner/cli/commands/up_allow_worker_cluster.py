"""Unattended operation: `paddock up`, `allow`, `worker`, `cluster`.

`up` runs what pipelines ask for (schedules, watches, webhooks), `allow` consents to what a file
may reach, `worker` takes runs from a work pool, `cluster` prepares several machines and runs a
pipeline on their workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.cli.exit_status import DONE, FAILED, CommandError, with_exit_status
from paddock.runner.progress import console

from .init_schema_steps import JsonOption

if TYPE_CHECKING:
    from paddock.runner.progress.report import Report
    from paddock.runner.settings import Settings


def register_allow(app: typer.Typer) -> None:
    """Add the command."""
    app.command("allow")(with_exit_status(allow))


def allow(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pipeline files.")],
) -> int:
    """Let `paddock up` carry out what pipeline files ask for, as they are now.

    Shows what that is. `--allow` of `paddock up`, or the settings, say what may be asked for.
    """
    from paddock.runner.bind.bind import bind_without_inputs, read_plan
    from paddock.runner.bind.permissions import consent_digests, needs, permission_names
    from paddock.runner.schedule.consents import Consents
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    consents, own = Consents(settings.state_dir), settings.address.url
    bounds = [
        (file, bind_without_inputs(read_plan(file))) for file in files
    ]  # all are read before one counts
    for file, bound in bounds:
        wanted = needs(bound, own)
        if not wanted:
            console.print_out(f"{file} asks for nothing that needs consent.")
            continue
        consents.agree(file, consent_digests(bound, own))
        words = dict.fromkeys(f"  {one.what}" for one in wanted)
        console.print_out(
            "\n".join([f"{file} may, where `{permission_names(wanted)}` is allowed:", *words])
        )
    return DONE


_RUN_FLAGS = ("allow", "debug", "log_json")


def register_up(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(with_exit_status(up))


def up(
    folders: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR]...", help="Here, by default.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST[:PORT]", help="127.0.0.1:11436 by default.")
    ] = None,
    max_runs: Annotated[
        int | None, typer.Option("--max-runs", min=1, help="Runs at a time.")
    ] = None,
    allow: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="What pipelines may reach besides.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(metavar="URL,...", help="Ask these servers in place of this machine's pool."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log loads and evictions of models, too.")
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line, runs' items too.")
    ] = False,
) -> int:
    """Carry out what the pipelines below DIR ask for: schedules, watches, webhooks."""
    from paddock.runner.progress import events
    from paddock.runner.settings import read_settings

    places = [_require_folder(text) for text in folders or ["."]]
    given: dict[str, object] = {
        "up_host": listen, "max_runs": max_runs, "allow": allow, "pool": pool,
        "debug": debug or None, "log_json": log_json or None,
    }  # fmt: skip
    flags = {name: value for name, value in given.items() if value is not None}
    settings = read_settings(Path.cwd(), flags=flags)
    events.prepare_logging(settings)
    return _run_until_stopped(places, settings, flags)


def _require_folder(text: str) -> Path:
    """Return a folder that can be looked at.

    Raises:
        CommandError: it is none.
    """
    path = Path(text)
    if path.is_dir():
        return path.absolute()
    if path.exists():
        raise CommandError(f"'{text}' is a file; `paddock up` takes folders.\n"
                           f"  paddock up {path.parent}")  # fmt: skip
    raise CommandError(f"There is no folder '{text}'.")


def _run_until_stopped(places: list[Path], settings: Settings, flags: dict[str, object]) -> int:
    import asyncio
    import os
    import signal
    import sys

    from paddock.runner.progress import events
    from paddock.runner.schedule.up import Up, UpOptions

    tell = events.message_writer(settings)
    # These are ours alone: settings beside a pipeline hold for its runs.
    own = {name: value for name, value in flags.items() if name in _RUN_FLAGS}
    wishes = UpOptions(places, settings, own, tell, is_attended=sys.stdin.isatty())

    async def main() -> None:
        one = Up(wishes)
        loop = asyncio.get_running_loop()

        def end() -> None:
            if one.stop.is_set():
                one.abandon()
                os._exit(130)
            tell("Ending; once more ends at once.")
            one.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, one.reload.set)
        await one.run()

    asyncio.run(main())
    tell("Stopped.")
    return DONE


def register_worker(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(with_exit_status(worker))


def worker(
    name: Annotated[
        str | None, typer.Option(help="What this machine is called; its host's name by default.")
    ] = None,
    work_pool: Annotated[
        str | None, typer.Option("--work-pool", help="Where runs come from: PADDOCK_WORK_POOL.")
    ] = None,
    max_runs: Annotated[
        int | None, typer.Option("--max-runs", min=1, help="Runs at a time.")
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="What pipelines may reach on this machine."),
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line, runs' items too.")
    ] = False,
) -> int:
    """Take runs from a work pool, with models of this machine, until it is asked to end."""
    import asyncio
    import socket

    from paddock.runner.progress import events
    from paddock.runner.settings import read_settings
    from paddock.runner.workers.cluster_worker import serve_work_pool

    given: dict[str, object] = {"work_pool": work_pool, "max_runs": max_runs, "allow": allow}
    given["log_json"] = log_json or None
    flags = {key: value for key, value in given.items() if value is not None}
    settings = read_settings(Path.cwd(), flags=flags)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    if not api_url:
        raise CommandError("Set PREFECT_API_URL to the Prefect server from which runs come.")
    if not settings.unattended.work_pool:
        raise CommandError("Set PADDOCK_WORK_POOL, or use `--work-pool`; `paddock cluster init`.")
    if not settings.ledger_url:
        raise CommandError(
            "The ledger is a file, which one machine at a time can work with. Set PADDOCK_LEDGER "
            "to a PostgreSQL that all machines reach; `paddock cluster init` checks it."
        )
    events.prepare_logging(settings)
    if allow is not None:
        os.environ["PADDOCK_ALLOW"] = allow  # for the processes of its runs
    if settings.service.is_log_json:
        os.environ["PADDOCK_LOG_JSON"] = "1"  # for the processes of its runs
    return asyncio.run(serve_work_pool(settings, name or socket.gethostname(), api_url))


FolderArgument = Annotated[
    Path, typer.Argument(metavar="[DIR]", help="The shared folder of the pipelines.")
]


def register_cluster(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="cluster",
        help="Several machines on the same pipelines.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("init")(with_exit_status(cluster_init))
    group.command("run")(with_exit_status(cluster_run))
    app.add_typer(group)


def cluster_init(folder: FolderArgument = Path(), as_json: JsonOption = False) -> int:
    """Check what several machines need, and make what lacks; run it on each of them.

    PostgreSQL for the ledger, Prefect's work pool, what tells of lost machines, the shared folder,
    clocks. Ends with 1 where something is in the way.
    """
    import asyncio

    from paddock.runner.settings import read_settings
    from paddock.runner.workers.preflight import is_cluster_ready, prepare_cluster

    if not folder.is_dir():
        raise CommandError(f"{folder}: there is no such folder.")
    settings = read_settings(folder)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    found = asyncio.run(prepare_cluster(folder.resolve(), settings, api_url))
    if as_json:
        said = {
            "ready": is_cluster_ready(found),
            "findings": [finding.as_json() for finding in found],
        }
        console.print_json(said)
    else:
        console.print_out("\n".join(finding.as_text() for finding in found))
        if is_cluster_ready(found):
            console.print_out("\nReady. On each machine, with the same settings: paddock worker")
    return DONE if is_cluster_ready(found) else FAILED


def cluster_run(
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
    as_json: JsonOption = False,
) -> int:
    """Have the workers carry out a pipeline, and wait for the end; Ctrl-C stops them."""
    import asyncio

    from paddock.runner.cli.arguments import pipeline_file
    from paddock.runner.core.session import new_run_name
    from paddock.runner.daemon.prefect_auth import headers_from, signer_for
    from paddock.runner.progress.drain import stop_on_signals
    from paddock.runner.settings import read_settings
    from paddock.runner.workers.delegation import SharedJob, absolute_inputs, delegate_job

    from .validate_plan_run import parse_inputs

    path = pipeline_file(file, "cluster run").resolve()
    settings = read_settings(path.parent)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    if not (api_url and settings.unattended.work_pool and settings.ledger_url):
        raise CommandError(
            "Several machines need PREFECT_API_URL, PADDOCK_WORK_POOL and PADDOCK_LEDGER.\n"
            "  `paddock cluster init` says what lacks."
        )
    job = SharedJob(
        f"{new_run_name(())}-{os.getpid()}",
        path,
        absolute_inputs(path, parse_inputs(inputs), settings),
        settings.unattended.work_pool,
        retry_failed=retry_failed,
        n_shares=shares,
        max_restarts=settings.unattended.max_restarts,
    )

    signer = signer_for(settings.state_dir, settings.ledger_url)

    async def main() -> Report:
        stop = asyncio.Event()
        with stop_on_signals(stop):
            headers = headers_from(os.environ)
            note = _without_repeats(console.print_err)
            return await delegate_job(job, api_url, signer, headers, stop=stop, note=note)

    report = asyncio.run(main())
    if as_json:
        console.print_json({"job": job.name, "status": report.status, "message": report.message})
    else:
        console.print_out(f"{report.status}: {report.message or path.name}")
    return report.exit_status("never")


def _without_repeats(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return the same line once."""
    said: set[str] = set()

    def note(text: str) -> None:
        if text and text not in said:
            said.add(text)
            tell(text)

    return note
