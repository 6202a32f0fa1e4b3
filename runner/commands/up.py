"""`paddock up`: look after folders of pipelines until it is asked to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import DONE, CommandError, guarded

if TYPE_CHECKING:
    from paddock.runner.settings import Settings


_OF_RUNS = ("allow", "debug", "log_json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(guarded(up))


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
    from paddock.runner import logs
    from paddock.runner.settings import read_settings

    places = [_folder(text) for text in folders or ["."]]
    given: dict[str, object] = {
        "up_host": listen, "max_runs": max_runs, "allow": allow, "pool": pool,
        "debug": debug or None, "log_json": log_json or None,
    }  # fmt: skip
    flags = {name: value for name, value in given.items() if value is not None}
    settings = read_settings(Path.cwd(), flags=flags)
    logs.prepare(settings)
    return _run(places, settings, flags)


def _folder(text: str) -> Path:
    """Give a folder that can be looked at.

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


def _run(places: list[Path], settings: Settings, flags: dict[str, object]) -> int:
    import asyncio
    import os
    import signal
    import sys

    from paddock.runner import logs
    from paddock.runner.unattended.up import Up, Wishes

    tell = logs.teller(settings)
    # These are ours alone: settings beside a pipeline hold for its runs.
    own = {name: value for name, value in flags.items() if name in _OF_RUNS}
    wishes = Wishes(places, settings, own, tell, is_attended=sys.stdin.isatty())

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
