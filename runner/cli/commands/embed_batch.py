"""`paddock embed` prints vectors of texts; `paddock batch` answers a file of requests."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.engine.system.text import counted
from paddock.runner.cli import model_arguments
from paddock.runner.cli.arguments import JsonOption, KeepAliveOption
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError, with_exit_status
from paddock.runner.cli.model_arguments import (
    ModelArgument,
    parse_keep_alive,
    read_document_text,
    read_stdin,
)
from paddock.runner.daemon.service_client import READ_TIMEOUT_S, service_for_command
from paddock.runner.progress import console
from paddock.runner.settings import read_settings

if TYPE_CHECKING:
    from paddock.engine.api.openai.batch_lines import BatchProgress


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("embed")(with_exit_status(embed))
    app.command("batch")(with_exit_status(batch))


def embed(
    model: ModelArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT...]", help="Without any: standard input.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", "-f", metavar="FILE", help="Embed a file's text.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Embed each line separately.")] = False,
    dimensions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep this many numbers of each vector.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long instead of failing.")
    ] = False,
    keep_alive: KeepAliveOption = None,
    as_json: JsonOption = False,
) -> int:
    """Print the vector of each text as a line of JSON."""
    model = model_arguments.resolve_model_ref(model)
    wanted = gather_texts(texts or [], files or [], is_by_lines=lines)
    body: dict[str, Any] = {"model": model, "input": wanted, "truncate": truncate}
    if dimensions is not None:
        body["dimensions"] = dimensions
    if keep_alive is not None:
        body["keep_alive"] = parse_keep_alive(keep_alive)
    with service_for_command(read_settings(Path.cwd()), model) as client:
        answer = client.post("/api/embed", body, READ_TIMEOUT_S)
    if as_json:
        console.print_json(answer)
    else:
        for vector in answer.get("embeddings", []):
            console.print_out(json.dumps(vector))
    return DONE


def gather_texts(texts: list[str], files: list[str], *, is_by_lines: bool) -> list[str]:
    """Return the texts of the arguments, files and stdin.

    Raises:
        CommandError: there are none, or one is not text.
    """
    whole = [read_document_text(file) for file in files]
    if not texts and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise CommandError("Name a text: `paddock embed MODEL 'a text'`, or pipe one in.")
        whole.append(read_stdin())
    if is_by_lines:
        whole = [line for text in whole for line in text.splitlines() if line.strip()]
    if not texts and not whole:
        raise CommandError("There is no text.")
    return [*texts, *whole]


EXIT_SOME_FAILED = 3  # as for a run: finished, but some requests failed
TALLY_EVERY_S = 5.0
_REFRESH_PER_S = 4


def batch(
    source: Annotated[
        str, typer.Argument(metavar="IN.jsonl", help="Requests in the form of OpenAI's batches.")
    ],
    results: Annotated[
        str, typer.Argument(metavar="OUT.jsonl", help="Gets a line for each request.")
    ],
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=512, help="Concurrent requests.")
    ] = 64,
    as_json: JsonOption = False,
) -> int:
    """Answer a file of requests; the same command again continues."""
    if not Path(source).is_file():
        raise CommandError(f"There is no file '{source}'.")
    if not Path(results).absolute().parent.is_dir():
        raise CommandError(f"There is no folder '{Path(results).parent}'.")
    if Path(source).resolve() == Path(results).resolve():
        raise CommandError("The results would be written over the requests: name another file.")
    from paddock.runner.cli import request_file

    settings = read_settings(Path.cwd())
    try:
        with _tally_display() as follow:
            tally = request_file.answer_requests(
                settings, Path(source), Path(results), at_once, follow
            )
    except KeyboardInterrupt:
        console.print_err(
            f"Interrupted. `paddock batch {source} {results}` continues where it stopped."
        )
        return INTERRUPTED
    if as_json:
        counts = {"total": tally.total, "completed": tally.completed, "failed": tally.failed}
        console.print_json({"ok": not tally.failed, **counts})
    else:
        console.print_out(f"{tally_text(tally)}: {results}")
    return EXIT_SOME_FAILED if tally.failed else DONE


def tally_text(tally: BatchProgress) -> str:
    """Return the progress as text."""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    done = tally.completed + tally.failed
    return f"{done:,} of {counted(tally.total, 'request')} answered{failed}"


@contextmanager
def _tally_display() -> Iterator[Callable[[BatchProgress], None]]:
    """Yield a callback that shows progress: a bar on a terminal, else a line every few seconds."""
    if not (sys.stderr is not None and sys.stderr.isatty()):
        yield _TallyLines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(24), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    screen = Console(stderr=True, highlight=False)
    with Progress(*columns, console=screen, refresh_per_second=_REFRESH_PER_S) as progress:
        screen.show_cursor(True)
        task = progress.add_task("", total=None)

        def show(tally: BatchProgress) -> None:
            done = tally.completed + tally.failed
            progress.update(task, description=tally_text(tally), total=tally.total, completed=done)

        yield show


class _TallyLines:
    def __init__(self) -> None:
        self._shown_at = -TALLY_EVERY_S

    def show(self, tally: BatchProgress) -> None:
        now = time.monotonic()
        if tally.n_left and now - self._shown_at >= TALLY_EVERY_S:
            self._shown_at = now
            console.print_err(tally_text(tally))
