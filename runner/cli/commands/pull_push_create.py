"""Commands that move and make models: `paddock pull`, `push`, `create`.

With progress, and a warning if a model will not fit. A running service does the work, otherwise
this process. Progress goes to stderr, as bars on a terminal and as plain lines in a pipe. Status
texts come from a registry and are made harmless first.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from paddock.engine.settings import PoolSettings
from paddock.engine.system import units
from paddock.runner.cli.completion import complete_model_names
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError, with_exit_status
from paddock.runner.progress import console

from .init_schema_steps import JsonOption

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from paddock.engine.models.modelfile import ModelRecipe
    from paddock.engine.models.transfer import ProgressLine, TransferOptions
    from paddock.runner.daemon.service_client import ServiceClient
    from paddock.runner.settings import Settings

LINE_EVERY_S = 5.0  # a plain line so often: logs stay readable
REFRESH_PER_S = 8
_BAR_WIDTH = 24


class TransferProgress(Protocol):
    """Is told how far it is."""

    def __enter__(self) -> TransferProgress:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture."""
        ...

    def tell(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Take one line of progress; sizes are bytes."""
        ...


def transfer_progress(environ: Mapping[str, str] | None = None) -> TransferProgress:
    """Return the one that suits where we are."""
    environ = os.environ if environ is None else environ
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return TransferBars() if is_terminal and environ.get("TERM") != "dumb" else TransferLines()


class TransferLines:
    """Plain lines: what is new at once, how far it is now and then."""

    def __init__(
        self,
        write: Callable[[str], None] = console.print_err,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._last = ""
        self._told_at = 0.0
        self._is_whole = False

    def __enter__(self) -> TransferLines:
        """Say nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Say nothing more."""

    def tell(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Write what is new."""
        status, now = console.printable_line(status), self._clock()
        is_new = status != self._last
        is_whole = bool(total) and completed == total
        is_due = now - self._told_at >= LINE_EVERY_S or (is_whole and not self._is_whole)
        if is_new or (total and is_due):
            self._write(f"{status}{_amount_text(total, completed)}")
            self._told_at = now
            self._is_whole = is_whole
        self._last = status


def _amount_text(total: int | None, completed: int | None) -> str:
    """Write what is done of how much.

    >>> _amount_text(2_000_000, 500_000), _amount_text(None, None)
    (': 25 % of 2 MB', '')
    """
    if not total:
        return ""
    return f": {100 * (completed or 0) // total} % of {units.size(total)}"


@dataclass
class _TransferStep:
    """One line of the picture."""

    since: float
    before: int
    """Bytes that were there already when it was first told of."""
    total: int | None = None
    completed: int = 0
    is_over: bool = False


class TransferBars:
    """A line for each step, with a bar where its size is known."""

    def __init__(
        self, console_: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console_ or Console(stderr=True, highlight=False)
        self._clock = clock
        self._steps: dict[str, _TransferStep] = {}
        self._live = Live(
            console=self._console,
            refresh_per_second=REFRESH_PER_S,
            get_renderable=self.picture,
            redirect_stderr=True,
        )

    def __enter__(self) -> TransferBars:
        """Begin to draw."""
        self._live.start()
        # A pull that is killed could not bring a hidden cursor back.
        self._console.show_cursor(True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture on the screen."""
        if error is None:
            for step in self._steps.values():
                step.is_over = True
        self._live.stop()

    def tell(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Note it; the next picture shows it."""
        status = console.printable_line(status)
        step = self._steps.get(status)
        if step is None:
            for other in self._steps.values():
                # What has no size is done when the next one begins.
                other.is_over = other.is_over or not other.total
            step = self._steps[status] = _TransferStep(self._clock(), completed or 0)
        step.total, step.completed = total, completed or 0
        step.is_over = bool(total) and step.completed >= (total or 0)

    def picture(self) -> RenderableType:
        """Draw what is known now."""
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(width=_BAR_WIDTH)
        table.add_column(no_wrap=True)
        for status, step in tuple(self._steps.items()):
            table.add_row(_step_heading(status, step), *self._how_far(step))
        return table

    def _how_far(self, step: _TransferStep) -> tuple[RenderableType, str]:
        from rich.progress_bar import ProgressBar

        if not step.total:
            return "", ""
        words = f"{units.size(step.completed)} of {units.size(step.total)}"
        seconds, n_bytes = self._clock() - step.since, step.completed - step.before
        if not step.is_over and seconds > 1 and n_bytes > 0:
            per_s = n_bytes / seconds
            to_go = units.duration((step.total - step.completed) / per_s)
            words += f", {units.size(round(per_s))}/s, {to_go} to go"
        return ProgressBar(step.total, step.completed, width=_BAR_WIDTH), words


def _step_heading(status: str, step: _TransferStep) -> RenderableType:
    from rich.text import Text

    mark, style = ("✓", "green") if step.is_over else ("·", "cyan")
    return Text.assemble((f"{mark} ", style), status)


# Beside the weights: a short context, buffers, the process. Found at loads of small models.
_OVERHEAD_FACTOR = 1.1


class FitWarning:
    """Looks at one pull: at its size while it comes, and at the model when it is there."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._most_bytes = 0
        self._has_warned = False

    def coming(self, n_bytes: int) -> None:
        """Warn as soon as a layer shows that the model is larger than the machine."""
        if n_bytes <= self._most_bytes or self._has_warned:
            return
        self._most_bytes = n_bytes
        total_bytes, what = _largest_memory()
        if n_bytes * _OVERHEAD_FACTOR > total_bytes:
            self._has_warned = True
            console.print_err(
                f"WARNING: it has {units.size(n_bytes)}, and {what} has "
                f"{units.size(total_bytes)}: it will not fit. Ctrl-C stops."
            )

    def look_at(self, ref: str) -> None:
        """Warn where not even one short conversation fits what is free now."""
        if self._has_warned:
            return
        from paddock.engine.errors import EngineError

        try:
            words = fit_warning(ref, self._settings)
        except EngineError:
            return  # it was pulled elsewhere, or is no model that can be looked at
        if words:
            console.print_err(f"WARNING: {words}")


def fit_warning(ref: str, settings: PoolSettings) -> str | None:
    """Return why a model cannot be loaded with what is free now; None: it can.

    Raises:
        EngineError: it is not in the store, or is broken.
    """
    from pathlib import Path

    from paddock.engine.memory.device_memory import this_device
    from paddock.engine.memory.model_layout import LayoutRequest, layouts
    from paddock.engine.models.model_finder import ModelFinder

    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    facts = finder.find(ref, settings.n_ctx_tokens)
    device = this_device()
    wanted = LayoutRequest(facts, facts.n_ctx_tokens)
    header = finder.files.header(Path(facts.path), [Path(part) for part in facts.parts])
    ways = layouts(wanted, header, settings, device)
    if any(device.free.holds(way.room) for way in ways):
        return None
    least = min(way.room.total_bytes for way in ways)
    free = device.free.total_bytes if device.gpus else device.free_bytes
    return (
        f"{facts.name} needs about {units.size(least)} with its context, and "
        f"{units.size(free)} are free now."
    )


def _largest_memory() -> tuple[int, str]:
    """Return the memory that a model would have to fit, and whose it is."""
    from paddock.engine.memory.device_memory import this_device
    from paddock.engine.system import hardware

    gpus = this_device().gpus
    if gpus:
        return sum(gpu.total_bytes for gpu in gpus), "the graphics memory"
    return hardware.read_memory().total_bytes, "this machine's memory"


_InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Speak to registries by plain HTTP.")
]
_ProgressCallback = Callable[[str, int | None, int | None], None]
"""Takes a status, and how much of how much."""


@dataclass(frozen=True, slots=True)
class _TransferRequest:
    """What is to be moved, as the person wrote it."""

    verb: str
    model: str
    insecure: bool = False
    as_name: str | None = None

    def body(self) -> dict[str, object]:
        """Return the request to a service."""
        named = {"as": self.as_name} if self.as_name else {}
        return {"model": self.model, "insecure": self.insecure, **named}


def register_transfers(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pull")(with_exit_status(pull))
    app.command("push")(with_exit_status(push))


def pull(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A name, hf:OWNER/REPO[:QUANT], an URL or a file."),
    ],
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What it is to be called here.")
    ] = None,
    insecure: _InsecureOption = False,
    as_json: JsonOption = False,
) -> int:
    """Bring a model; what was begun before is continued."""
    from paddock.engine.models.model_names import parse_source
    from paddock.runner.daemon.service_client import is_this_machine
    from paddock.runner.settings import read_settings

    source = parse_source(model, as_name)
    settings = read_settings(Path.cwd())
    watch = FitWarning(settings.pool) if is_this_machine(settings.address) else None
    console.print_err(f"{source.name.short} from {source}")
    status = _transfer(
        _TransferRequest("pull", model, insecure, as_name),
        settings,
        watch.coming if watch else None,
    )
    if status == DONE and watch is not None:
        watch.look_at(source.name.short)
    if as_json:
        console.print_json({"ok": status == DONE, "model": source.name.short})
    return status


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Where to: HOST/NAMESPACE/MODEL[:TAG].",
            autocompletion=complete_model_names,
        ),
    ],
    insecure: _InsecureOption = False,
    as_json: JsonOption = False,
) -> int:
    """Bring a model to a registry."""
    from paddock.runner.settings import read_settings

    status = _transfer(_TransferRequest("push", model, insecure), read_settings(Path.cwd()), None)
    if as_json:
        console.print_json({"ok": status == DONE, "model": model})
    return status


def _transfer(
    wish: _TransferRequest, settings: Settings, heed: Callable[[int], None] | None
) -> int:
    """Show how far it is until it is done; `heed` is told the sizes of what comes."""
    from paddock.runner.daemon import service_client

    client = service_client.find_service(settings)
    try:
        with transfer_progress() as teller:

            def tell(status: str, total: int | None, completed: int | None) -> None:
                teller.tell(status, total, completed)
                if heed is not None and total:
                    heed(total)

            if client is not None:
                with client:
                    _transfer_by_service(client, wish, tell)
            else:
                import asyncio

                asyncio.run(_transfer_in_process(settings, wish, tell))
    except KeyboardInterrupt:
        console.print_err(
            f"Interrupted. `paddock {wish.verb} {wish.model}` goes on where it stopped."
        )
        return INTERRUPTED
    return DONE


def _transfer_by_service(
    client: ServiceClient, wish: _TransferRequest, tell: _ProgressCallback
) -> None:
    from contextlib import closing

    from paddock.engine.models.model_names import FileSource, parse_source

    source = parse_source(wish.model, wish.as_name) if wish.verb == "pull" else None
    if isinstance(source, FileSource):
        # A service takes no paths: what lies here is sent to it.
        from paddock.engine.gguf import split_file_names
        from paddock.engine.models.modelfile import ModelRecipe
        from paddock.runner.daemon.service_client import create_in_service

        path = source.path.expanduser()
        files: dict[str, str | Path] = {
            name: path.with_name(name) for name in split_file_names(path.name)
        }
        create_in_service(client, ModelRecipe(source.name.short, files=files), tell)
        return
    with closing(client.stream(f"/api/{wish.verb}", wish.body())) as lines:
        for line in lines:
            tell(str(line.get("status", "")), line.get("total"), line.get("completed"))


async def _transfer_in_process(
    settings: Settings, wish: _TransferRequest, tell: _ProgressCallback
) -> None:
    async for one in _transfer_events(settings, wish):
        tell(one.status, one.total, one.completed)


def _transfer_events(settings: Settings, wish: _TransferRequest) -> AsyncIterator[ProgressLine]:
    from paddock.engine.models.model_finder import ModelFinder
    from paddock.engine.models.pull import pull
    from paddock.engine.models.push import push

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    options = transfer_options(settings, finder.needed_digests(), insecure=wish.insecure)
    if wish.verb == "push":
        return push(finder.store, wish.model, options=options)
    return pull(finder.store, wish.model, options=options, as_name=wish.as_name)


def transfer_options(
    settings: Settings, kept: set[str], *, insecure: bool = False
) -> TransferOptions:
    """Return what holds for every transfer that somebody at this machine asks for."""
    from paddock.engine.models.transfer import TransferOptions

    return TransferOptions(
        insecure=insecure,
        trusted_hosts=settings.service.trusted_hosts,
        accepts_paths=True,
        keep=tuple(kept),
    )


MODELFILE = "Modelfile"


def register_create(app: typer.Typer) -> None:
    """Add the command."""
    app.command("create")(with_exit_status(create))


def create(
    model: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="MODELFILE", help="./Modelfile by default."),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "--quantise", "-q", metavar="FORMAT", help="Such as Q4_K_M."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Make a model by a Modelfile."""
    from paddock.engine.models.model_names import parse_name
    from paddock.runner.daemon import service_client
    from paddock.runner.settings import read_settings

    name = parse_name(model).short
    recipe = _read_recipe(name, file, quantize or "")
    settings = read_settings(Path.cwd())
    client = service_client.find_service(settings)
    with transfer_progress() as teller:
        if client is not None:
            with client:
                service_client.create_in_service(client, recipe, teller.tell)
        else:
            _create_in_process(settings, recipe, teller)
    if as_json:
        console.print_json({"ok": True, "model": name})
    else:
        console.print_out(f"Made '{name}'.\nNext: paddock chat {name}")
    return DONE


def _read_recipe(name: str, file: str | None, quantize: str) -> ModelRecipe:
    """Read the Modelfile.

    Raises:
        CommandError: there is none.
        ModelfileError: with every fault and its line.
    """
    from paddock.engine.models.modelfile import parse_modelfile, read_recipe
    from paddock.runner.cli.arguments import read_stdin

    if file == "-":
        text, folder, shown = read_stdin(), Path.cwd(), "standard input"
    else:
        path = Path(file or MODELFILE).expanduser()
        if path.is_dir():
            path /= MODELFILE
        if not path.is_file():
            remedy = "Name it: `paddock create NEW -f FILE`."
            raise CommandError(f"There is no file '{path}'.\n  {remedy}")
        text, folder, shown = path.read_text("utf-8", "replace"), path.parent, str(path)
    modelfile = parse_modelfile(text, shown)
    return read_recipe(name, modelfile, folder, path=shown, quantize=quantize)


def _create_in_process(settings: Settings, recipe: ModelRecipe, teller: TransferProgress) -> None:
    """Make it in this process; a base that is not here is brought first."""
    import asyncio

    from paddock.engine.errors import ModelNotFound
    from paddock.engine.models.model_creation import create_model as make
    from paddock.engine.models.model_finder import ModelFinder
    from paddock.engine.models.pull import pull

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)

    def report(one: ProgressLine) -> None:
        teller.tell(one.status, one.total, one.completed)

    async def bring(base: str) -> None:
        options = transfer_options(settings, finder.needed_digests())
        async for one in pull(finder.store, base, options=options):
            report(one)

    try:
        make(finder.store, finder, recipe, report)
    except ModelNotFound:
        if recipe.base is None:
            raise
        asyncio.run(bring(recipe.base))
        make(finder.store, finder, recipe, report)
