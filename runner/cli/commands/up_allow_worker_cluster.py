"""Unattended operation: `paddock up`, `allow`, `worker`, `cluster`.

`up` runs schedules, watches and webhooks, `allow` records consent to what a file may reach,
`worker` takes runs from a work pool, `cluster` prepares several machines and runs a pipeline on
their workers.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.engine.system import http
from paddock.engine.system.light_dataclasses import asdict, dataclass
from paddock.engine.system.private_files import private_folder
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_written_starts
from paddock.runner.bind.trust.consent import consent_words, digests_to_agree
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.bind.trust.permissions import permission_names, permission_needs
from paddock.runner.cli.arguments import (
    FailOnOption,
    InputsOption,
    JsonOption,
    LogOption,
    MaxRunsOption,
    PermissionsOption,
    PoolOption,
    RetryFailedOption,
    argument,
    existing_folder,
    flag,
    given_settings,
    option,
    parse_inputs,
    pipeline_file,
)
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError, command_group
from paddock.runner.daemon.prefect_client import client_options
from paddock.runner.progress import command_logs, printing
from paddock.runner.progress.drain import stop_on_signals
from paddock.runner.settings import read_settings

if TYPE_CHECKING:
    from paddock.runner.progress.report import Report
    from paddock.runner.settings import Settings


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


_RUN_FLAGS = ("allow", "debug", "log_json")


@dataclass(frozen=True, slots=True)
class UpFlags:
    """Arguments and options of `paddock up`."""

    folders: list[str] | None = argument("Folders; the current one by default.", metavar="DIR")
    up_host: str | None = option("127.0.0.1:11436 by default.", "--listen", metavar="HOST[:PORT]")
    max_runs: MaxRunsOption = None
    allow: PermissionsOption = None
    pool: PoolOption = None
    debug: bool = flag("Also log loads and evictions of models.", "--debug")
    log_json: LogOption = False


def up(flags: UpFlags) -> int:
    """Run the schedules, watches and webhooks of the pipelines below DIR."""
    places = [existing_folder(text, "up").absolute() for text in flags.folders or ["."]]
    own = asdict(flags)
    del own["folders"]  # the options have the names of their settings
    own = given_settings(**own)
    settings = read_settings(Path.cwd(), flags=own)
    return _run_until_stopped(places, settings, own)


def _run_until_stopped(places: list[Path], settings: Settings, flags: dict[str, object]) -> int:
    # Only these flags reach runs: their other settings come from next to the pipeline.
    own = {name: value for name, value in flags.items() if name in _RUN_FLAGS}
    # Set what runs and Prefect read when they are imported
    if not os.environ.get("PREFECT_HOME"):
        os.environ["PREFECT_HOME"] = str(private_folder(settings.state_dir / "prefect"))
    os.environ.pop("CI", None)  # our runs use our pool, also in CI
    gc.disable()  # until all is imported: looking through that takes a tenth of the time
    importlib.import_module("paddock.runner.prefect.client_settings")
    early = None
    if not os.environ.get("PREFECT_API_URL", "").strip():
        prefect_server = importlib.import_module("paddock.runner.daemon.prefect_server")
        early = prefect_server.EarlyServer(prefect_server.TUNED)
    console_module = importlib.import_module("paddock.runner.cli.console_serving")  # half a second
    pages = console_module.pages_of_up(places, settings, own)
    from paddock.runner.schedule.up import Up, UpOptions, start_run_processes

    start_run_processes()
    logging.root.handlers.clear()  # Prefect's, which is for runs
    command_logs.prepare_logging(settings)
    tell = command_logs.message_writer(settings)
    is_attended = sys.stdin.isatty()
    options = UpOptions(
        places, settings, own, tell, pages=pages, early=early, is_attended=is_attended
    )

    tell("Starting; this takes some seconds.")

    async def main() -> None:
        up = Up(options)
        loop = asyncio.get_running_loop()

        def end() -> None:
            if up.stop.is_set():
                up.abandon()
                os._exit(130)
            tell("Stopping; once more stops at once.")
            up.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)

        def hang_up() -> None:
            is_closed = is_attended and not sys.stdin.isatty()  # the terminal, with its window
            (up.stop if is_closed else up.reload).set()

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        await up.run()

    asyncio.run(main())
    tell("Stopped.")
    return DONE


def worker(
    name: str | None = option("Name of this machine; its host name by default."),
    work_pool: str | None = option(
        "Prefect work pool; PADDOCK_WORK_POOL by default.", "--work-pool"
    ),
    max_runs: MaxRunsOption = None,
    allow: list[str] | None = option(
        "Permissions of pipelines on this machine.", metavar="NAME,..."
    ),
    log_json: LogOption = False,
) -> int:
    """Take runs from a work pool, with this machine's models, until it is stopped."""
    flags = given_settings(work_pool=work_pool, max_runs=max_runs, allow=allow, log_json=log_json)
    settings = read_settings(Path.cwd(), flags=flags)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    if not api_url:
        raise CommandError("Set PREFECT_API_URL to the Prefect server from which runs come.")
    if not settings.unattended.work_pool:
        raise CommandError("Set PADDOCK_WORK_POOL, or use `--work-pool`; `paddock cluster init`.")
    if not settings.ledger_url:
        raise CommandError(
            "The ledger is a file, which only one machine can use. Set PADDOCK_LEDGER to a "
            "PostgreSQL database that all machines reach; `paddock cluster init` checks it."
        )
    command_logs.prepare_logging(settings)
    if "allow" in flags:
        os.environ["PADDOCK_ALLOW"] = str(flags["allow"])  # inherited by the processes of runs
    if settings.service.is_log_json:
        os.environ["PADDOCK_LOG_JSON"] = "1"  # inherited by the processes of runs
    machine = importlib.import_module(_CLUSTER_MACHINE)
    status: int = asyncio.run(
        machine.serve_work_pool(settings, name or socket.gethostname(), api_url)
    )
    return status


_CLUSTER_MACHINE = "paddock.runner.workers.cluster_machine"
"""Brings psycopg and Prefect, without which `up` begins."""


FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The shared folder of the pipelines.")
]


def cluster_init(folder: FolderArgument = Path(), as_json: JsonOption = False) -> int:
    """Check what several machines need, and create what is missing; run it on each of them.

    Checks PostgreSQL for the ledger, Prefect's work pool, the automation for lost machines, the
    shared folder, and clocks. Exits with 1 if a check fails.
    """
    if not folder.is_dir():
        raise CommandError(f"{folder}: there is no such folder.")
    settings = read_settings(folder)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    machine = importlib.import_module(_CLUSTER_MACHINE)
    found = asyncio.run(machine.prepare_cluster(folder.resolve(), settings, api_url))
    is_ready = all(finding.state != "wrong" for finding in found)
    lines = [finding.as_text() for finding in found]
    if is_ready:
        lines.append("\nReady. On each machine, with the same settings: paddock worker")
    facts = {"ready": is_ready, "findings": [finding.as_json() for finding in found]}
    printing.print_result(facts, "\n".join(lines), as_json=as_json)
    return DONE if is_ready else FAILED


def cluster_run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A pipeline on the shared folder.")],
    inputs: InputsOption = None,
    shares: int | None = option("Number of machines; all by default.", min=1),
    retry_failed: RetryFailedOption = False,
    fail_on: FailOnOption = "new",
    as_json: JsonOption = False,
) -> int:
    """Run a pipeline on the workers, and wait for the end; Ctrl-C stops them."""
    from paddock.runner.workers import cluster_checks, delegation

    path = pipeline_file(file, "cluster run").resolve()
    settings = read_settings(path.parent)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    if not (api_url and settings.unattended.work_pool and settings.ledger_url):
        raise CommandError(
            "Several machines need PREFECT_API_URL, PADDOCK_WORK_POOL and PADDOCK_LEDGER.\n"
            "  `paddock cluster init` shows what is missing."
        )
    job = delegation.SharedJob.of(
        path, parse_inputs(inputs), settings,
        retry_failed=retry_failed, n_shares=shares, help_after_s=0.0,
    )  # fmt: skip

    async def main() -> Report:
        stop = asyncio.Event()
        with stop_on_signals(stop):
            reported: set[str] = set()

            def note(text: str) -> None:
                if text and text not in reported:
                    reported.add(text)
                    printing.print_err(text)

            async with http.client(**client_options(api_url, os.environ)) as api:
                if shares != 1 and await cluster_checks.is_on_sqlite(api):
                    note(f"{cluster_checks.SQLITE_WORDS}.")
                return await delegation.delegate_job(api, job, stop=stop, note=note)

    report = asyncio.run(main())
    facts = {"job": job.name, "status": report.status, "counts": report.counts}
    words = f"{report.status}: {report.message or path.name}"
    printing.print_result({**facts, "message": report.message}, words, as_json=as_json)
    return report.exit_status(fail_on)


cluster = command_group(
    "cluster", "Several machines on the same pipelines.", {"init": cluster_init, "run": cluster_run}
)
