"""`paddock batch`: a file of requests, answered into another one, none of them twice."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, INTERRUPTED, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.engine.api.openai.batch.running import Tally

SOME_FAILED = 3  # as for a run: done, but not all of it well
EVERY_S = 5.0
_REFRESH_PER_S = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("batch")(guarded(batch))


def batch(
    source: Annotated[
        str, typer.Argument(metavar="IN.jsonl", help="Requests in the form of OpenAI's batches.")
    ],
    results: Annotated[str, typer.Argument(metavar="OUT.jsonl", help="Gets a line for each.")],
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=512, help="Requests under way at a time.")
    ] = 64,
    as_json: Json = False,
) -> int:
    """Answer a file of requests; the same command again continues."""
    if not Path(source).is_file():
        raise CommandError(f"There is no file '{source}'.")
    if not Path(results).absolute().parent.is_dir():
        raise CommandError(f"There is no folder '{Path(results).parent}'.")
    if Path(source).resolve() == Path(results).resolve():
        raise CommandError("The results would be written over the requests: name another file.")
    from paddock.runner import batches
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    try:
        with _following() as follow:
            tally = batches.answer(settings, Path(source), Path(results), at_once, follow)
    except KeyboardInterrupt:
        console.tell(f"Interrupted. `paddock batch {source} {results}` goes on where it stopped.")
        return INTERRUPTED
    if as_json:
        told = {"total": tally.total, "completed": tally.completed, "failed": tally.failed}
        console.say_json({"ok": not tally.failed, **told})
    else:
        console.say(f"{words(tally)}: {results}")
    return SOME_FAILED if tally.failed else DONE


def words(tally: Tally) -> str:
    """Say how far it is."""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    done = tally.completed + tally.failed
    return f"{done:,} of {console.counted(tally.total, 'request')} answered{failed}"


@contextmanager
def _following() -> Iterator[Callable[[Tally], None]]:
    """Give what is told each tally: a bar on a terminal, a line now and then elsewhere."""
    if not (sys.stderr is not None and sys.stderr.isatty()):
        yield _Lines().tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(24), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    screen = Console(stderr=True, highlight=False)
    with Progress(*columns, console=screen, refresh_per_second=_REFRESH_PER_S) as progress:
        screen.show_cursor(True)
        task = progress.add_task("", total=None)

        def tell(tally: Tally) -> None:
            done = tally.completed + tally.failed
            progress.update(task, description=words(tally), total=tally.total, completed=done)

        yield tell


class _Lines:
    """Says how far it is, at first and then now and then."""

    def __init__(self) -> None:
        self._told_at = -EVERY_S

    def tell(self, tally: Tally) -> None:
        """Take a tally."""
        now = time.monotonic()
        if tally.n_left and now - self._told_at >= EVERY_S:
            self._told_at = now
            console.tell(words(tally))
