"""`paddock embed`: vectors of texts; `paddock batch`.

A file of requests answered into another file, none of them twice.
"""

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
from paddock.runner.cli import arguments
from paddock.runner.cli.completion import complete_model_names
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError, with_exit_status
from paddock.runner.progress import console

from .init_schema_steps import JsonOption

if TYPE_CHECKING:
    from paddock.engine.api.openai.batch_lines import BatchProgress


def register_embed(app: typer.Typer) -> None:
    """Add the command."""
    app.command("embed")(with_exit_status(embed))


def embed(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=arguments.MODEL_HELP,
            autocompletion=complete_model_names,
        ),
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT...]", help="Without any: standard input.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", "-f", metavar="FILE", help="Embed a file's text.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of files or input is a text of its own.")
    ] = False,
    dimensions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep so many numbers of each vector.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long, rather than fail.")
    ] = False,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            "--keepalive", "--keep-alive", metavar="TIME", help="How long the model stays."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Print the vector of each text as a line of JSON."""
    from paddock.runner.cli.arguments import parse_keep_alive

    model = arguments.resolve_model_ref(model)
    wanted = gather_texts(texts or [], files or [], is_by_lines=lines)
    body: dict[str, Any] = {"model": model, "input": wanted, "truncate": truncate}
    if dimensions is not None:
        body["dimensions"] = dimensions
    if keep_alive is not None:
        body["keep_alive"] = parse_keep_alive(keep_alive)
    from paddock.runner.daemon.service_client import READ_TIMEOUT_S, service_for_command
    from paddock.runner.settings import read_settings

    with service_for_command(read_settings(Path.cwd()), model) as client:
        answer = client.post("/api/embed", body, READ_TIMEOUT_S)
    if as_json:
        console.print_json(answer)
    else:
        for vector in answer.get("embeddings", []):
            console.print_out(json.dumps(vector))
    return DONE


def gather_texts(texts: list[str], files: list[str], *, is_by_lines: bool) -> list[str]:
    """Return the texts that are meant.

    Raises:
        CommandError: there are none, or one is not text.
    """
    from paddock.runner.cli.arguments import read_document_text, read_stdin

    whole = [read_document_text(file) for file in files]
    if not texts and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise CommandError("Say which text: `paddock embed MODEL 'a text'`, or pipe one in.")
        whole.append(read_stdin())
    if is_by_lines:
        whole = [line for text in whole for line in text.splitlines() if line.strip()]
    if not texts and not whole:
        raise CommandError("There is no text.")
    return [*texts, *whole]


EXIT_SOME_FAILED = 3  # as for a run: done, but not all of it well
TALLY_EVERY_S = 5.0
_REFRESH_PER_S = 4


def register_batch(app: typer.Typer) -> None:
    """Add the command."""
    app.command("batch")(with_exit_status(batch))


def batch(
    source: Annotated[
        str, typer.Argument(metavar="IN.jsonl", help="Requests in the form of OpenAI's batches.")
    ],
    results: Annotated[str, typer.Argument(metavar="OUT.jsonl", help="Gets a line for each.")],
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=512, help="Requests under way at a time.")
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
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    try:
        with _tally_display() as follow:
            tally = request_file.answer_requests(
                settings, Path(source), Path(results), at_once, follow
            )
    except KeyboardInterrupt:
        console.print_err(
            f"Interrupted. `paddock batch {source} {results}` goes on where it stopped."
        )
        return INTERRUPTED
    if as_json:
        told = {"total": tally.total, "completed": tally.completed, "failed": tally.failed}
        console.print_json({"ok": not tally.failed, **told})
    else:
        console.print_out(f"{tally_text(tally)}: {results}")
    return EXIT_SOME_FAILED if tally.failed else DONE


def tally_text(tally: BatchProgress) -> str:
    """Return how far it is."""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    done = tally.completed + tally.failed
    return f"{done:,} of {counted(tally.total, 'request')} answered{failed}"


@contextmanager
def _tally_display() -> Iterator[Callable[[BatchProgress], None]]:
    """Yield what is told each tally: a bar on a terminal, a line now and then elsewhere."""
    if not (sys.stderr is not None and sys.stderr.isatty()):
        yield _TallyLines().tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(24), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    screen = Console(stderr=True, highlight=False)
    with Progress(*columns, console=screen, refresh_per_second=_REFRESH_PER_S) as progress:
        screen.show_cursor(True)
        task = progress.add_task("", total=None)

        def tell(tally: BatchProgress) -> None:
            done = tally.completed + tally.failed
            progress.update(task, description=tally_text(tally), total=tally.total, completed=done)

        yield tell


class _TallyLines:
    """Says how far it is, at first and then now and then."""

    def __init__(self) -> None:
        self._told_at = -TALLY_EVERY_S

    def tell(self, tally: BatchProgress) -> None:
        """Take a tally."""
        now = time.monotonic()
        if tally.n_left and now - self._told_at >= TALLY_EVERY_S:
            self._told_at = now
            console.print_err(tally_text(tally))
