"""What a server tells of itself and of one of its models: kind, context, places, identity.

Servers of OpenAI's API share `/v1/models`; what else one can ask depends on the program.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.elsewhere.line import Json, Line
from paddock.engine.elsewhere.telling import Kind
from paddock.engine.errors import BadRequest, ModelBroken, NotServed
from paddock.engine.request import ModelFacts, ModelSpec

_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True)
class Looked:
    """One model on one server."""

    kind: Kind
    name: str
    """As the server calls it."""
    facts: ModelFacts
    n_slots: int | None = None
    """Requests that it answers at a time; None: it does not say."""
    says_only_its_name: bool = False
    """Nothing tells whether another model has come under the same name."""


async def look(line: Line, spec: ModelSpec) -> Looked:
    """Ask a server about a model.

    Raises:
        NotServed: it has no such model.
        ModelBroken: it is no server of OpenAI's API, refuses the key, or does not say how long a
            prompt may be.
        Away, Later: it cannot be asked now.
    """
    listed = await _listed(line)
    found = matching(spec.ref, listed)
    if found is None:
        raise NotServed(spec.ref, [_id(entry) for entry in listed], line.url)
    name = _id(found)
    if found.get("owned_by") == "llamacpp" or isinstance(found.get("meta"), dict):
        props = await line.find(f"/props?model={quote(name, safe='')}")
        if props is not None:
            return _llama_server(line.url, spec, found, props)
    if isinstance(found.get("max_model_len"), int):
        return _vllm(line.url, spec, found)
    digest = await _digest(line, name)
    if digest:
        return _made(line.url, spec, name, "ollama", {"digest": digest}, None)
    return _made(line.url, spec, name, "other", {"name": name}, None)


async def _listed(line: Line) -> list[Json]:
    try:
        listed = (await line.get("/v1/models")).get("data")
    except BadRequest:
        listed = None
    if not isinstance(listed, list):
        raise ModelBroken(line.url, "no server of OpenAI's API answers here (GET /v1/models)")
    return [entry for entry in listed if isinstance(entry, dict) and entry.get("id")]


def matching(ref: str, listed: Sequence[Json]) -> Json | None:
    """Find the model that is meant: by its name, an alias, or the name of its file.

    >>> matching("a.gguf", [{"id": "/models/a.gguf"}])
    {'id': '/models/a.gguf'}
    """
    # The settings may send a model elsewhere that its author names by a file beside the YAML.
    for wanted, names_of in ((ref, _names), (ref, _short_names), (_file_name(ref), _short_names)):
        found = [entry for entry in listed if wanted in names_of(entry)]
        if found:
            return found[0]
    return None


def _names(entry: Json) -> set[str]:
    aliases = entry.get("aliases")
    return {_id(entry), *(str(one) for one in (aliases if isinstance(aliases, list) else ()))}


def _short_names(entry: Json) -> Iterator[str]:
    for name in _names(entry):
        file = _file_name(name)
        yield from (file, file.removesuffix(".gguf"), name.removesuffix(":latest"))


def _id(entry: Json) -> str:
    return str(entry["id"])


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _llama_server(url: str, spec: ModelSpec, entry: Json, props: Json) -> Looked:
    """Read what llama-server tells: its file's name and measures, and the chat template."""
    meta = entry.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    path = _get(props, "model_path", str) or _id(entry)
    # What every version of it tells; more of it would make all answers old at its next upgrade.
    marks = {name: meta.get(name) for name in ("n_params", "size", "n_vocab", "n_embd")}
    marks |= {"name": _file_name(path), "template": props.get("chat_template")}
    settings = props.get("default_generation_settings")
    n_ctx = _get(settings, "n_ctx", int) if isinstance(settings, dict) else None
    n_slots = _get(props, "total_slots", int)
    n_train = _get(meta, "n_ctx_train", int)
    size = _get(meta, "size", int) or 0
    return _made(
        url, spec, _id(entry), "llama-server", marks, n_ctx,
        n_slots=n_slots, n_train=n_train, size=size,
    )  # fmt: skip


def _vllm(url: str, spec: ModelSpec, entry: Json) -> Looked:
    """Read what vLLM tells: where the model was taken from."""
    root = _get(entry, "root", str) or _id(entry)
    n_ctx = _get(entry, "max_model_len", int)
    return _made(url, spec, _id(entry), "vllm", {"name": _id(entry), "root": root}, n_ctx)


async def _digest(line: Line, name: str) -> str | None:
    """Ask for a model's digest, as Ollama and its like tell it."""
    try:
        told = await line.find("/api/tags")
    except (Away, Later):
        return None
    listed = told.get("models") if told else None
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and name in (one.get("name"), one.get("model")):
            return _get(one, "digest", str)
    return None


def _made(
    url: str,
    spec: ModelSpec,
    name: str,
    kind: Kind,
    marks: Mapping[str, Any],
    n_ctx: int | None,
    *,
    n_slots: int | None = None,
    n_train: int | None = None,
    size: int = 0,
) -> Looked:
    wanted = spec.n_ctx_tokens
    if n_ctx is None and wanted is None:
        why = (
            f"the server does not say how many tokens a request to '{name}' may fill. "
            "Write it as the model's `ctx`, such as `ctx: 8k`"
        )
        raise ModelBroken(url, why)
    fits = min(one for one in (n_ctx, wanted) if one is not None)
    facts = ModelFacts(
        name=spec.ref,
        path=url,
        digest=identity(marks),
        size_bytes=size,
        architecture=kind,
        role=spec.role,
        n_ctx_train_tokens=max(n_train or 0, fits),
        n_ctx_tokens=fits,
    )
    return Looked(kind, name, facts, n_slots, says_only_its_name=kind == "other")


def identity(marks: Mapping[str, Any]) -> str:
    """Give the digest by which answers are known: of what the model is, not of where it is."""
    told = json.dumps(dict(marks), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"elsewhere\n{told}".encode()).hexdigest()


def _get(told: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    value = told.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) and value else None
