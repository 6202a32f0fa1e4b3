"""`paddock models`, `pull`, `push` and `create`: what fits here, progress, and a warning.

A running service does the work, otherwise this process. Progress goes to stderr, as bars on a
terminal and as plain lines in a pipe. Control characters in a registry's status texts are escaped.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.engine.errors import EngineError, ModelNotFound
from paddock.engine.memory.device_memory import confirmed_device
from paddock.engine.memory.model_layout import LayoutRequest, layouts
from paddock.engine.model_file_parts import split_file_names
from paddock.engine.models.model_creation import create_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_recipe import ModelRecipe, read_recipe
from paddock.engine.models.modelfile import parse_modelfile
from paddock.engine.models.pull import pull as pull_model
from paddock.engine.models.pull_sources import FileSource, parse_source
from paddock.engine.models.push import push as push_model
from paddock.engine.models.transfer import TransferOptions
from paddock.engine.models.well_known import Machine, measure_speed, propose
from paddock.engine.settings import PoolSettings
from paddock.engine.system import hardware, units
from paddock.engine.system.records import Struct
from paddock.engine.system.text import shell_command
from paddock.runner.cli import model_tables
from paddock.runner.cli.arguments import JsonOption, argument, option
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError
from paddock.runner.cli.model_arguments import decoded_input, model_argument, read_stdin
from paddock.runner.daemon import service_client, service_lookup
from paddock.runner.daemon.service_client import create_in_service
from paddock.runner.daemon.service_lookup import is_this_machine
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings

if TYPE_CHECKING:
    from paddock.engine.models.transfer import ProgressLine
    from paddock.runner.daemon.service_client import ServiceClient
    from paddock.runner.progress.live_displays import TransferBars
    from paddock.runner.settings import Settings

LINE_EVERY_S = 5.0  # keeps logs readable
MODELFILE = "Modelfile"


def transfer_progress(environ: Mapping[str, str] = os.environ) -> TransferBars | TransferLines:
    """Return bars for a terminal, else lines."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not is_terminal or environ.get("TERM") == "dumb":
        return TransferLines()
    from paddock.runner.progress.live_displays import TransferBars

    return TransferBars()


class TransferLines:
    """Plain lines: a new status at once, progress every few seconds."""

    def __init__(
        self,
        write: Callable[[str], None] = printing.print_err,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._last = ""
        self._shown_at = 0.0
        self._is_whole = False

    def __enter__(self) -> TransferLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Write a new status, or progress if it is due; sizes are bytes."""
        status, now = printing.printable_line(status), self._clock()
        is_new = status != self._last
        is_whole = bool(total) and completed == total
        is_due = now - self._shown_at >= LINE_EVERY_S or (is_whole and not self._is_whole)
        if is_new or (total and is_due):
            share = 100 * (completed or 0) // total if total else 0
            amount = f": {share} % of {units.size(total)}" if total else ""
            self._write(f"{status}{amount}")
            self._shown_at = now
            self._is_whole = is_whole
        self._last = status


# Weights plus a short context, buffers and the process; measured with small models.
_OVERHEAD_FACTOR = 1.1


class FitWarning:
    """Warns about one pull: by its size while it downloads, by the model afterwards."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._most_bytes = 0
        self._has_warned = False

    def on_size(self, n_bytes: int) -> None:
        """Warn as soon as a layer is larger than the memory."""
        if n_bytes <= self._most_bytes or self._has_warned:
            return
        self._most_bytes = n_bytes
        total_bytes, what = _largest_memory()
        if n_bytes * _OVERHEAD_FACTOR > total_bytes:
            self._has_warned = True
            printing.print_err(
                f"WARNING: the model has {units.size(n_bytes)}, and {what} has "
                f"{units.size(total_bytes)}: it will not fit. Ctrl-C stops."
            )

    def on_pulled(self, ref: str) -> None:
        """Warn if not even one short conversation fits the free memory."""
        if self._has_warned:
            return
        finder = ModelFinder(self._settings.models_dir, self._settings.cache_dir)
        try:
            facts = finder.find(ref, self._settings.n_ctx_tokens)
            device = confirmed_device()
            request = LayoutRequest(facts, facts.n_ctx_tokens)
            header = finder.files.header(Path(facts.path), [Path(part) for part in facts.parts])
            ways = layouts(request, header, self._settings, device)
        except EngineError:
            return  # pulled on another machine, or not loadable at all
        if not any(device.free.holds(way.room) for way in ways):
            least = min(way.room.total_bytes for way in ways)
            free = device.free.total_bytes if device.gpus else device.free_bytes
            printing.print_err(
                f"WARNING: {facts.name} needs about {units.size(least)} with its context, and "
                f"{units.size(free)} are free now."
            )


def _largest_memory() -> tuple[int, str]:
    gpus = confirmed_device().gpus
    if gpus:
        return sum(gpu.total_bytes for gpu in gpus), "the graphics memory"
    return hardware.read_memory().total_bytes, "this machine's memory"


_InsecureOption = Annotated[bool, typer.Option("--insecure", help="Use plain HTTP for registries.")]
_ProgressCallback = Callable[[str, int | None, int | None], None]
"""Takes a status, the total and the completed bytes."""


class _TransferRequest(Struct, frozen=True):
    verb: str
    model: str
    insecure: bool = False
    as_name: str | None = None


def _this_machine() -> Machine:
    memory_bytes, _ = _largest_memory()
    device = confirmed_device()
    if device.is_gpu:
        return Machine(memory_bytes, bool(device.gpus), None)
    speed = measure_speed(device.n_threads)
    return Machine(memory_bytes, False, speed, why_no_device=device.why_no_gpu)


def models(as_json: JsonOption = False) -> int:
    machine = _this_machine()
    proposed = propose(machine)
    here = model_tables.models_here(read_settings(Path.cwd()).pool)
    fitting = model_tables.proposal_text(machine, proposed, _largest_memory()[1])
    printing.print_result(
        {**model_tables.proposal_json(machine, proposed), "here": here},
        "\n\n".join([model_tables.abilities_text(here), fitting] if here else [fitting]),
        as_json=as_json,
    )
    return DONE


def pull(
    model: str | None = argument(
        "A name, hf:OWNER/REPO[:QUANT], an URL or a file; "
        "by default what `paddock models` proposes.",
        metavar="MODEL",
    ),
    as_name: str | None = option("Its name here.", "--as", metavar="NAME"),
    insecure: _InsecureOption = False,
    as_json: JsonOption = False,
) -> int:
    if not model:
        proposed = propose(_this_machine())
        if proposed is None:
            raise CommandError(
                "No well-known model fits this machine.\n  Name one: `paddock pull MODEL`."
            )
        model, size = proposed.name, units.size(proposed.size_bytes)
        printing.print_err(f"{model} fits this machine: {size}, licence {proposed.licence}.")
        if sys.stdin.isatty() and not typer.confirm("Download it?", default=True, err=True):
            raise CommandError("Nothing was downloaded.\n  `paddock models` shows the others.")
    source = parse_source(model, as_name)
    settings = read_settings(Path.cwd())
    watch = FitWarning(settings.pool) if is_this_machine(settings.address) else None
    printing.print_err(f"{source.name.short} from {source}")
    status = _transfer(
        _TransferRequest("pull", model, insecure, as_name),
        settings,
        watch.on_size if watch else None,
    )
    if status == DONE and watch is not None:
        watch.on_pulled(source.name.short)
    if as_json:
        printing.print_json({"ok": status == DONE, "model": source.name.short})
    return status


def push(
    model: Annotated[str, model_argument("The target: HOST/NAMESPACE/MODEL[:TAG].")],
    insecure: _InsecureOption = False,
    as_json: JsonOption = False,
) -> int:
    status = _transfer(_TransferRequest("push", model, insecure), read_settings(Path.cwd()), None)
    if as_json:
        printing.print_json({"ok": status == DONE, "model": model})
    return status


def _transfer(
    request: _TransferRequest, settings: Settings, on_size: Callable[[int], None] | None
) -> int:
    """Transfer with progress; `on_size` receives the sizes of layers."""
    client = service_lookup.find_service(settings)
    try:
        with transfer_progress() as progress:

            def show(status: str, total: int | None, completed: int | None) -> None:
                progress.show(status, total, completed)
                if on_size is not None and total:
                    on_size(total)

            if client is not None:
                with client:
                    _transfer_by_service(client, request, show)
            else:
                asyncio.run(_transfer_in_process(settings, request, show))
    except KeyboardInterrupt:
        printing.print_err(
            f"Interrupted. `{shell_command('paddock', request.verb, request.model)}` continues "
            "where it stopped."
        )
        return INTERRUPTED
    return DONE


def _transfer_by_service(
    client: ServiceClient, request: _TransferRequest, show: _ProgressCallback
) -> None:
    source = parse_source(request.model, request.as_name) if request.verb == "pull" else None
    if isinstance(source, FileSource):
        # A service takes no paths: send it the file.
        path = source.path.expanduser()
        files: dict[str, str | Path] = {
            name: path.with_name(name) for name in split_file_names(path.name)
        }
        create_in_service(client, ModelRecipe(source.name.short, files=files), show)
        return
    named = {"as": request.as_name} if request.as_name else {}
    body = {"model": request.model, "insecure": request.insecure, **named}
    with closing(client.stream(f"/api/{request.verb}", body)) as lines:
        for line in lines:
            show(str(line.get("status", "")), line.get("total"), line.get("completed"))


async def _transfer_in_process(
    settings: Settings, request: _TransferRequest, show: _ProgressCallback
) -> None:
    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    options = TransferOptions(
        insecure=request.insecure,
        trusted_hosts=settings.service.trusted_hosts,
        accepts_paths=True,
        keep=tuple(finder.needed_digests()),
    )
    if request.verb == "push":
        events = push_model(finder.store, request.model, options=options)
    else:
        events = pull_model(finder.store, request.model, options=options, as_name=request.as_name)
    async for event in events:
        show(event.status, event.total, event.completed)


def create(
    model: Annotated[str, typer.Argument(metavar="NEW", help="The new model's name.")],
    file: str | None = option("./Modelfile by default.", "--file", "-f", metavar="MODELFILE"),
    quantize: str | None = option(
        "Such as Q4_K_M.", "--quantize", "--quantise", "-q", metavar="FORMAT"
    ),
    as_json: JsonOption = False,
) -> int:
    name = parse_name(model).short
    if file == "-":
        text = read_stdin()
        folder = Path.cwd()
        shown = "standard input"
    else:
        path = Path(file or MODELFILE).expanduser()
        if path.is_dir():
            path /= MODELFILE
        if not path.is_file():
            remedy = "Name it: `paddock create NEW -f FILE`."
            raise CommandError(f"There is no file '{path}'.\n  {remedy}")
        text = decoded_input(path.read_bytes(), f"'{path}'")
        folder = path.parent
        shown = str(path)
    modelfile = parse_modelfile(text, shown)
    recipe = read_recipe(name, modelfile, folder, path=shown, quantize=quantize or "")
    settings = read_settings(Path.cwd())
    client = service_lookup.find_service(settings)
    with transfer_progress() as progress:
        if client is not None:
            with client:
                service_client.create_in_service(client, recipe, progress.show)
        else:
            finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)

            def report(line: ProgressLine) -> None:
                progress.show(line.status, line.total, line.completed)

            try:
                create_model(finder.store, finder, recipe, report)
            except ModelNotFound:
                if recipe.base is None:
                    raise
                request = _TransferRequest("pull", recipe.base)
                asyncio.run(_transfer_in_process(settings, request, progress.show))
                create_model(finder.store, finder, recipe, report)
    printing.print_result(
        {"ok": True, "model": name}, f"Made '{name}'.\nNext: paddock chat {name}", as_json=as_json
    )
    return DONE
