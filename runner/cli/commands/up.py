"""Unattended operation: `paddock up` runs schedules, watches and webhooks."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from paddock.engine.system.private_files import private_folder
from paddock.runner.cli.arguments import (
    PermissionsOption,
    PoolOption,
    argument,
    existing_folder,
    flag,
    given_settings,
    max_runs_option,
    option,
)
from paddock.runner.cli.exit_status import DONE
from paddock.runner.progress import command_logs
from paddock.runner.settings import read_settings

PYTHONS_GC_THRESHOLD = (700, 10, 10)
_RUN_FLAGS = ("allow", "debug", "log_json")


@dataclass(frozen=True, slots=True)
class UpFlags:
    folders: list[str] | None = argument("Folders; the current one by default.", metavar="DIR")
    up_host: str | None = option("127.0.0.1:11436 by default.", "--listen", metavar="HOST[:PORT]")
    max_runs: int | None = max_runs_option()
    allow: PermissionsOption = None
    pool: PoolOption = None
    debug: bool = flag("Also log loads and evictions of models.", "--debug")
    log_json: bool = flag("Log one JSON object per line, with the items of runs.", "--log-json")


def up(flags: UpFlags) -> int:
    places = [existing_folder(text, "up").absolute() for text in flags.folders or ["."]]
    own = asdict(flags)
    del own["folders"]  # the options have the names of their settings
    own = given_settings(**own)
    settings = read_settings(Path.cwd(), flags=own)
    # Only these flags reach runs: their other settings come from next to the pipeline.
    own = {name: value for name, value in own.items() if name in _RUN_FLAGS}
    # Set what runs and Prefect read when they are imported
    if not os.environ.get("PREFECT_HOME"):
        os.environ["PREFECT_HOME"] = str(private_folder(settings.state_dir / "prefect"))
    os.environ.pop("CI", None)  # our runs use our pool, also in CI
    gc.disable()  # until all is imported: looking through that takes a tenth of the time
    importlib.import_module("paddock.runner.prefect.client_settings")
    console_module = importlib.import_module("paddock.runner.cli.console_serving")  # half a second
    pages = console_module.pages_of_up(places, settings, own)
    from paddock.runner.schedule.up import Up, UpOptions
    from paddock.runner.workers.fork_server import ForkServer

    forks = ForkServer()
    forks.fork()  # before this process has threads or a loop
    # A run leaves 400 objects in cycles, 0.1 MB; what is imported is looked through no more.
    gc.set_threshold(*PYTHONS_GC_THRESHOLD)
    logging.root.handlers.clear()  # Prefect's, where something has imported it
    command_logs.prepare_logging(settings)
    tell = command_logs.message_writer(settings)
    is_attended = sys.stdin.isatty()
    options = UpOptions(places, settings, forks, own, tell, pages=pages, is_attended=is_attended)

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
