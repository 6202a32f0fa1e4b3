"""Discovery of what a server's models are: context, slots, identity.

All servers have `/v1/models`; which other endpoints tell a model's context, slots and identity
depends on the program (llama-server, vLLM, Ollama).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote

from paddock.engine.errors import BadRequest, EngineError, ModelBroken, NotServed
from paddock.engine.request import ModelFacts, ModelSpec
from paddock.engine.system.records import Struct, replace

from .openai_client import Json, ServerAway, ServerBusy, ServerConnection
from .openai_codec import ServerKind
from .option_wires import OptionWire

_T = TypeVar("_T", int, str)


class ServedModel(Struct, frozen=True):
    kind: ServerKind
    name: str
    facts: ModelFacts
    n_slots: int | None = None
    """Requests that it answers at a time; None: it does not say."""
    has_tokenizer: bool = False
    """Whether it can be asked how many tokens a text has."""
    option_wire: OptionWire | None = None
    """Where it compares given answers; None: nowhere."""


async def look_up_model(
    line: ServerConnection, spec: ModelSpec, usual_ctx_tokens: int | None = None
) -> ServedModel:
    """Ask a server about a model; `usual_ctx_tokens` counts where no one says its context.

    Raises:
        NotServed: it has no such model.
        ModelBroken: it is no server of OpenAI's API, refuses the key, or does not say how long a
            prompt may be.
        ServerAway, ServerBusy: it cannot be asked now.
    """
    try:
        listed = (await line.get("/v1/models")).get("data")
    except BadRequest:
        listed = None
    if not isinstance(listed, list):
        raise ModelBroken(line.url, "no server of OpenAI's API answers here (GET /v1/models)")
    listed = [entry for entry in listed if isinstance(entry, dict) and entry.get("id")]
    found = matching_model(spec.ref, listed)
    if found is None:
        raise NotServed(spec.ref, [_model_id(entry) for entry in listed], line.url)
    report = await _report(line, found)
    lengths = [n for n in (report.n_ctx, spec.n_ctx_tokens) if n is not None]
    lengths = lengths or [n for n in (usual_ctx_tokens,) if n is not None]
    if not lengths:
        raise ModelBroken(
            line.url,
            f"the server does not say how many tokens a request to '{report.name}' may fill",
            "Write it as the model's `ctx`, such as `ctx: 8k`, or set PADDOCK_CONTEXT_LENGTH",
        )
    fits = min(lengths)
    option_wire = await _find_option_wire(line) if spec.role == "chat" else None
    facts = ModelFacts(
        name=spec.ref,
        path=line.url,
        digest=model_identity(report.marks),
        size_bytes=report.size,
        architecture=report.kind,
        role=spec.role,
        n_ctx_train_tokens=max(report.n_train or 0, fits),
        n_ctx_tokens=fits,
        compares_answers=option_wire is not None or spec.role != "chat",
    )
    served = ServedModel(report.kind, report.name, facts, report.n_slots, option_wire=option_wire)
    if report.kind not in ("llama-server", "vllm"):
        return served
    # A gateway may pass nothing but /v1.
    text = "content" if report.kind == "llama-server" else "prompt"
    with suppress(EngineError, ServerAway):
        await line.post("/tokenize", {"model": report.name, text: "a"})
        return replace(served, has_tokenizer=True)
    return served


async def _find_option_wire(line: ServerConnection) -> OptionWire | None:
    with suppress(ServerAway, ServerBusy):
        for wire in OptionWire:
            if await line.status("POST", wire) not in (404, 405, 501):
                return wire
    return None


async def _report(line: ServerConnection, found: Json) -> _ModelReport:
    name = _model_id(found)
    if found.get("owned_by") == "llamacpp" or isinstance(found.get("meta"), dict):
        props = await line.find(f"/props?model={quote(name, safe='')}")
        if props is not None:
            meta = found.get("meta")
            meta = meta if isinstance(meta, dict) else {}
            path = _typed_value(props, "model_path", str) or _model_id(found)
            # What every version reports: more would make all answers stale at its next upgrade.
            marks = {name: meta.get(name) for name in ("n_params", "size", "n_vocab", "n_embd")}
            marks |= {"name": _file_name(path), "template": props.get("chat_template")}
            settings = props.get("default_generation_settings")
            return _ModelReport(
                "llama-server",
                _model_id(found),
                marks,
                n_ctx=_typed_value(settings, "n_ctx", int) if isinstance(settings, dict) else None,
                n_slots=_typed_value(props, "total_slots", int),
                n_train=_typed_value(meta, "n_ctx_train", int),
                size=_typed_value(meta, "size", int) or 0,
            )
    if isinstance(found.get("max_model_len"), int):
        # What vLLM reports: where the model was taken from
        root = _model_id(found)
        marks = {"name": root, "root": _typed_value(found, "root", str) or root}
        return _ModelReport("vllm", root, marks, _typed_value(found, "max_model_len", int))
    digest = await _ollama_digest(line, name)
    if digest:
        return _ModelReport("ollama", name, {"digest": digest})
    return _ModelReport("other", name, {"name": name})


def matching_model(ref: str, listed: Sequence[Json]) -> Json | None:
    """Find the model that is meant: by its name, an alias, or the name of its file.

    >>> matching_model("a.gguf", [{"id": "/models/a.gguf"}])
    {'id': '/models/a.gguf'}
    """
    # The settings may send a model to a server that its author names by a file near the YAML.
    for name, names_of in ((ref, _names), (ref, _short_names), (_file_name(ref), _short_names)):
        found = [entry for entry in listed if name in names_of(entry)]
        if found:
            return found[0]
    return None


def _names(entry: Json) -> set[str]:
    aliases = entry.get("aliases")
    return {
        _model_id(entry),
        *(str(alias) for alias in (aliases if isinstance(aliases, list) else ())),
    }


def _short_names(entry: Json) -> Iterator[str]:
    for name in _names(entry):
        file = _file_name(name)
        yield from (file, file.removesuffix(".gguf"), name.removesuffix(":latest"))


def _model_id(entry: Json) -> str:
    return str(entry["id"])


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


class _ModelReport(Struct, frozen=True):
    kind: ServerKind
    name: str
    marks: Mapping[str, Any]
    """What makes it another model when it changes."""
    n_ctx: int | None = None
    n_slots: int | None = None
    n_train: int | None = None
    size: int = 0


async def _ollama_digest(line: ServerConnection, name: str) -> str | None:
    try:
        answer = await line.find("/api/tags")
    except (ServerAway, ServerBusy):
        return None
    listed = answer.get("models") if answer else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and name in (entry.get("name"), entry.get("model")):
            return _typed_value(entry, "digest", str)
    return None


def model_identity(marks: Mapping[str, Any]) -> str:
    """Return a digest of what a model is, not of where it is."""
    text = json.dumps(dict(marks), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"elsewhere\n{text}".encode()).hexdigest()


def _typed_value(entry: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    value = entry.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) and value else None
