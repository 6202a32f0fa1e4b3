"""Models as text and JSON: the list, the card of one model, tuned copies.

`model_card` is pure and takes the answer of `/api/show`. `local_models` reads the model store,
`service_models` asks a service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.backends.token_counting import LocalTokenizer
from paddock.engine.errors import ModelBroken
from paddock.engine.gguf import FILE_SAMPLING, SAMPLING_KEYS, SUPPRESSED
from paddock.engine.models.model_cards import list_cards
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.well_known import MEASURED, WELL_KNOWN, Machine, WellKnownModel
from paddock.engine.settings import PoolSettings
from paddock.engine.system import units
from paddock.engine.system.distribution import own_version
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import counted
from paddock.pipelines.checking.cldr import script_samples
from paddock.runner.progress import printing

if TYPE_CHECKING:
    from paddock.runner.daemon.service_client import ServiceClient

_LICENCE_LINES = 2  # of a licence, as `ollama show` has it
_FACTS_HERE = {"greedy_answers": "greedy answers", "tuned": "tuned copy", "path": "file"}
"""Facts of a model on this machine, and their names in its card."""
_ID_CHARS = 12  # of the digest, as `ollama list` has it


def model_card(card: Mapping[str, Any], *, is_verbose: bool = False) -> str:
    details, info = card.get("details") or {}, card.get("model_info") or {}
    architecture = str(info.get("general.architecture") or details.get("family") or "")
    facts = {"parameters": details.get("parameter_size")}
    for name in ("context_length", "embedding_length"):
        facts[name.replace("_", " ")] = info.get(f"{architecture}.{name}") or details.get(name)
    facts["quantization"] = details.get("quantization_level")
    facts["size"] = units.size(int(card["size"])) if card.get("size") else ""
    facts |= {words: card.get(name) for name, words in _FACTS_HERE.items()}
    model = [("architecture", architecture)]
    model += ((label, str(fact)) for label, fact in facts.items() if fact)
    sight = card.get("projector_info") or {}
    eyes = str(sight.get("general.architecture") or "")
    projector = [("architecture", eyes)] if eyes else []
    for name in ("vision.embedding_length", "vision.projection_dim"):
        if eyes and sight.get(f"{eyes}.{name}"):
            words = name.partition(".")[2].replace("_", " ")
            projector.append((words, str(sight[f"{eyes}.{name}"])))
    lines = {
        name: [line for line in str(card.get(name) or "").splitlines() if line.strip()]
        for name in ("parameters", "system", "license")
    }
    suppressed = info.get(SUPPRESSED)
    pairs = (line.partition(" ") for line in lines["parameters"])
    parts = {
        "Model": model,
        "Projector": projector,
        "Capabilities": [(str(name), "") for name in card.get("capabilities") or ()],
        "Parameters": [(name, value.strip()) for name, _, value in pairs],
        "Never said": [("tokens", _short_value(suppressed))] if suppressed else [],
        "Not obeyed": [
            (name, _short_value(value))
            for name, value in sorted(info.items())
            if name.startswith(SAMPLING_KEYS) and name not in FILE_SAMPLING
        ],
        "System": [(line, "") for line in lines["system"]],
        "License": [(line, "") for line in lines["license"][:_LICENCE_LINES]],
    }
    if is_verbose:
        parts["Metadata"] = [(name, _short_value(value)) for name, value in sorted(info.items())]
        tensors = card.get("tensors") or ()
        parts["Tensors"] = [(row["name"], f"{row['type']}  {row['shape']}") for row in tensors]
    return "\n\n".join(_card_part(title, rows) for title, rows in parts.items() if rows)


def _short_value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"[{', '.join(map(str, value[:3]))}, ... {len(value):,} in all]"
    return str(value)


def _card_part(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) if any(value for _, value in rows) else 0
    lines = (
        f"    {printing.printable_line(name).ljust(width)}  {printing.printable_line(value)}"
        for name, value in rows
    )
    return "\n".join((f"  {title}", *(line.rstrip() for line in lines)))


class ModelRow(Struct, frozen=True):
    name: str
    digest: str
    """Of its manifest, as with Ollama; else of its file."""
    size_bytes: int
    capabilities: tuple[str, ...]
    modified_at: datetime | None = None
    origin: str = ""
    path: str = ""
    """Empty for a model of a service."""
    tuned: str = ""
    of_file: Mapping[str, Any] = field(default_factory=dict)
    """What the file says of decoding."""

    @property
    def role(self) -> str:
        return "embed" if "embedding" in self.capabilities else "chat"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": self.digest,
            "size": self.size_bytes,
            **({"modified": self.modified_at.isoformat()} if self.modified_at else {}),
            "role": self.role,
            "capabilities": list(self.capabilities),
            **({"from": self.origin, "path": self.path} if self.path else {}),
            **({"tuned": self.tuned} if self.tuned else {}),
            **({"of_file": dict(self.of_file)} if self.of_file else {}),
        }


def local_models(pool: PoolSettings) -> tuple[ModelRow, ...]:
    """Return the models of this machine; for a name that occurs twice, the one that is used."""
    finder = ModelFinder(pool.models_dir, pool.cache_dir)
    rows = []
    for card in list_cards(finder):
        copy = finder.tuned.find(finder.files.digest(Path(card.path)))
        tuned = copy.format if copy is not None else ""
        row = ModelRow(card.name, card.digest, card.size_bytes, card.capabilities, card.modified_at)
        row = replace(row, origin=card.origin, path=card.path, tuned=tuned, of_file=card.of_file)
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: row.name))


def service_models(client: ServiceClient) -> tuple[ModelRow, ...]:
    with client:
        models = client.get("/api/tags").get("models") or []
    rows = []
    for model in models:
        name, digest = str(model.get("name", "")), str(model.get("digest", ""))
        abilities = tuple(map(str, model.get("capabilities") or ()))
        decoding = (model.get("of_file") or {}).items()
        of_file = {key: value for key, value in decoding if isinstance(value, int | float)}
        row = ModelRow(name, digest, int(model.get("size") or 0), abilities, of_file=of_file)
        with suppress(ValueError):
            row = replace(row, modified_at=datetime.fromisoformat(str(model.get("modified_at"))))
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: row.name))


def model_table(rows: Sequence[ModelRow]) -> str:
    now = datetime.now(UTC)
    head = ("NAME", "ID", "SIZE", "MODIFIED", "ROLE", "FROM")
    body = [
        (
            row.name,
            row.digest[:_ID_CHARS],
            units.size(row.size_bytes),
            units.ago((now - row.modified_at).total_seconds()) if row.modified_at else "",
            row.role,
            _origin_text(row),
        )
        for row in rows
    ]
    n = len(head) if any(row.path or row.of_file for row in rows) else len(head) - 1
    return printing.table([row[:n] for row in (head, *body)])


def models_here(pool: PoolSettings) -> list[dict[str, Any]]:
    """Return names, capabilities and, of embedding models, known shares of scripts' letters."""
    finder = ModelFinder(pool.models_dir, pool.cache_dir)
    here = []
    for row in local_models(pool):
        model: dict[str, Any] = {"name": row.name, "capabilities": list(row.capabilities)}
        if row.of_file:
            model["of_file"] = dict(row.of_file)
        if row.role == "embed":
            with suppress(ModelBroken):  # `paddock doctor` names it
                model["scripts"] = _script_shares(finder, row)
        here.append(model)
    return here


def _script_shares(finder: ModelFinder, row: ModelRow) -> Mapping[str, float]:
    """Return which share of each script's letters a model reads, the largest first.

    Found with its tokenizer, which may drop letters that its vocabulary has, and kept by its file.
    """

    async def ask(tokenizer: LocalTokenizer) -> dict[str, float]:
        samples = script_samples()
        try:
            shares = await tokenizer.unknown_shares([*samples.values()])
        finally:
            await tokenizer.aclose()
        known = {script: 1 - share for script, share in zip(samples, shares, strict=True)}
        return dict(sorted(known.items(), key=lambda item: (-item[1], item[0])))

    def read(path: Path) -> dict[str, float]:
        parts = map(str, finder.locate(row.name).own.parts)
        return asyncio.run(ask(LocalTokenizer(path, tuple(parts))))

    return dict(finder.files.kept(f"scripts-{own_version()}.json", Path(row.path), read))


def abilities_text(here: Sequence[Mapping[str, Any]]) -> str:
    """Return what models can do; of scripts, those of which they read a tenth."""
    body = []
    for model in here:
        known = model.get("scripts", {}).items()
        shares = [f"{script} {share:.0%}" for script, share in known if share >= 0.1]
        reads = f"; letters known: {', '.join(shares)}" if shares else ""
        says = _decoding_text(model.get("of_file", {}), "; says ")
        body.append((model["name"], ", ".join(model["capabilities"]) + reads + says))
    return printing.table([("MODELS HERE", "CAPABILITIES"), *body])


def _decoding_text(of_file: Mapping[str, Any], before: str) -> str:
    decoding = ", ".join(f"{name} {value:g}" for name, value in of_file.items())
    return f"{before}{decoding}" if decoding else ""


def _origin_text(row: ModelRow) -> str:
    is_plain = row.origin in ("store", "")
    origin = row.origin if is_plain else f"{row.origin} ({Path(row.path).name})"
    notes = (f"tuned: {row.tuned}" if row.tuned else "", _decoding_text(row.of_file, "says "))
    return ", ".join(filter(None, (origin, *notes)))


def proposal_text(machine: Machine, proposed: WellKnownModel | None, what: str) -> str:
    fitting = [model for model in WELL_KNOWN if machine.holds(model)]
    head = ("", "NAME", "SIZE", "WEIGHTS", "LICENCE", "TIME PER DOCUMENT")
    rows = [
        (
            "*" if model is proposed else "",
            model.name,
            units.size(model.size_bytes),
            f"{model.n_weights:.1f}B",
            model.licence,
            "?"
            if machine.speed is None
            else f"about {units.duration(machine.speed.document_s(model))}",
        )
        for model in fitting
    ]
    lines = [f"{what[0].upper()}{what[1:]}: {units.size(machine.memory_bytes)}."]
    if machine.why_no_device:
        lines.append(f"No graphics device: {machine.why_no_device}.")
    if machine.speed is not None:
        lines.append(
            "A document here is two pages, summarised in 150 words. Times are rough estimates for "
            "a machine that does nothing else."
        )
    if n_large := len(WELL_KNOWN) - len(fitting):
        lines.append(f"{counted(n_large, 'larger model')} would not fit.")
    if proposed is None:
        return "\n".join(lines)
    (tried,) = MEASURED.values()
    lines.append(
        f"The `demo` extra's smollm2:135m {tried}. These models were not tried so; "
        "`paddock compare` tries them with your documents."
    )
    lines.append(f"Next: `paddock pull` downloads {proposed.name}; `paddock pull NAME` another.")
    return "\n".join([printing.table([head, *rows]), *lines])


def proposal_json(machine: Machine, proposed: WellKnownModel | None) -> dict[str, Any]:
    speed = machine.speed
    return {
        "proposed": proposed.name if proposed else None,
        "memory": machine.memory_bytes,
        "is_gpu": machine.is_gpu,
        "why_no_device": machine.why_no_device,
        "models": [
            {
                "name": model.name,
                "size": model.size_bytes,
                "needed": model.needed_bytes,
                "licence": model.licence,
                "fits": machine.holds(model),
                "document_s": None if speed is None else round(speed.document_s(model), 1),
            }
            for model in WELL_KNOWN
        ],
    }
