"""Models in Ollama's API: /api/tags, show, ps, copy and delete.

`paddock.engine.models.model_cards` reads the model files, in threads. /api/ps adds our own fields
to Ollama's: queue depth, tokens per second, cache use.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import Body
from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import read_json
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import dumps, expires_at, json_response, rfc3339
from paddock.engine.backends.metrics import ModelMetrics
from paddock.engine.errors import EngineError, InvalidName, ModelNotFound, NotInStore
from paddock.engine.memory.pool_stats import ModelStats
from paddock.engine.models.model_cards import ModelCard, ModelDetails, describe_model, list_cards
from paddock.engine.models.model_creation import copy_model as make_copy
from paddock.engine.models.model_names import ModelName, parse_name, shown_name

from .requests import model_not_found


async def list_tags(request: Request) -> Response:
    listed = await asyncio.to_thread(list_cards, service_of(request).finder)
    models = [
        {
            **name_fields(card.name),
            "modified_at": rfc3339(card.modified_at),
            "size": card.size_bytes,
            "digest": card.digest,
            "details": details_value(card.details),
            "capabilities": list(card.capabilities),
            **({"of_file": dict(card.of_file)} if card.of_file else {}),
        }
        for card in listed
    ]
    return json_response({"models": models})


def name_fields(name: str) -> dict[str, str]:
    """Return a name with its tag, in both fields that clients read."""
    shown = shown_name(name)
    return {"name": shown, "model": shown}


def details_value(details: ModelDetails) -> dict[str, Any]:
    value: dict[str, Any] = {
        "parent_model": details.parent_model,
        "format": details.format,
        "family": details.family,
        "families": list(details.families) or None,
        "parameter_size": details.parameter_size,
        "quantization_level": details.quantization_level,
    }
    if details.context_length:
        value["context_length"] = details.context_length
    if details.embedding_length:
        value["embedding_length"] = details.embedding_length
    return value


class NamedModelBody(Body):
    """A request on one model; older clients name it by `name`."""

    model: str = ""
    name: str = ""

    @property
    def needed_name(self) -> str:
        """The model's name; raises ApiError (400) where there is none."""
        if not (self.model or self.name):
            raise ApiError(400, "model is required")
        return self.model or self.name


class _ShowBody(NamedModelBody):
    system: str = ""
    verbose: bool = False


async def show_model(request: Request) -> Response:
    body = _ShowBody.read(await read_json(request))
    model = body.needed_name
    finder, ref = service_of(request).finder, service_of(request).ref(model)

    def describe() -> bytes:  # a vocabulary takes a quarter of a second
        card = describe_model(finder, ref, is_verbose=body.verbose)
        return dumps(_show_value(card, body.system))

    try:
        value = await asyncio.to_thread(describe)
    except ModelNotFound:
        raise model_not_found(model) from None
    return json_response(value)


def _show_value(card: ModelCard, system: str) -> dict[str, Any]:
    texts = {
        "license": card.license,
        "modelfile": card.modelfile,
        "parameters": card.parameters,
        "template": card.template,
        "system": system or card.system,
        "renderer": card.renderer,
        "parser": card.parser,
        "requires": card.requires,
    }
    value: dict[str, Any] = {name: text for name, text in texts.items() if text}
    value["details"] = details_value(card.details)
    if card.messages:
        value["messages"] = [
            {"role": message.role, "content": message.content} for message in card.messages
        ]
    value["model_info"] = dict(card.model_info)
    if card.projector_info is not None:
        value["projector_info"] = dict(card.projector_info)
    value["tensors"] = [
        {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}
        for tensor in card.tensors
    ]
    value["capabilities"] = list(card.capabilities)
    value["modified_at"] = rfc3339(card.modified_at)
    return value


class _CopyBody(Body):
    source: str = ""
    destination: str = ""


async def copy_model(request: Request) -> Response:
    body = _CopyBody.read(await read_json(request))
    source, destination = body.source, body.destination
    from_name = _valid_name(source, f'source "{source}" is invalid')
    to_name = _valid_name(destination, f'destination "{destination}" is invalid')
    try:
        service = service_of(request)
        await asyncio.to_thread(make_copy, service.store, service.finder, from_name, to_name)
    except ModelNotFound:
        raise ApiError(404, f'model "{source}" not found') from None
    return Response(status_code=200)


async def delete_model(request: Request) -> Response:
    """Handle /api/delete: remove a model's name, and the blobs that no other name uses."""
    model = NamedModelBody.read(await read_json(request)).needed_name
    name = _valid_name(model, f'name "{model}" is invalid')
    try:
        await asyncio.to_thread(service_of(request).finder.delete, name.short)
    except NotInStore as error:
        raise ApiError(400, str(error)) from None
    except ModelNotFound:
        raise model_not_found(model) from None
    return Response(status_code=200)


def _valid_name(text: str, message: str) -> ModelName:
    try:
        return parse_name(text)
    except InvalidName:
        raise ApiError(400, message) from None


async def list_loaded(request: Request) -> Response:
    """Handle GET /api/ps: loaded models, the one that expires last first."""
    service = service_of(request)
    stats = service.pool.stats()
    metrics = service.pool.metrics.snapshot()
    known = await asyncio.to_thread(_known_cards, service, [model.name for model in stats.resident])
    listed = [
        (_remaining_s(model), _loaded_value(model, known.get(model.name), metrics.get(model.name)))
        for model in stats.resident
    ]
    listed.sort(key=lambda pair: float("inf") if pair[0] is None else pair[0], reverse=True)
    return json_response({"models": [row for _, row in listed], "queue_depth": stats.n_waiting})


def _known_cards(service: Service, names: list[str]) -> dict[str, ModelCard]:
    known = {}
    for name in names:
        try:
            known[name] = describe_model(service.finder, name)
        except (EngineError, OSError):
            continue
    return known


def _remaining_s(model: ModelStats) -> float | None:
    """Return when an unused model expires; None: never."""
    if model.is_pinned or model.keep_alive_s < 0:
        return None
    return model.keep_alive_s if model.expires_s is None else model.expires_s


def _loaded_value(
    model: ModelStats, card: ModelCard | None, metrics: ModelMetrics | None
) -> dict[str, Any]:
    value: dict[str, Any] = {
        **name_fields(model.name),
        "size": model.host_layer_bytes + model.device_bytes,
        "digest": card.digest if card else model.digest,
        "details": details_value(card.details) if card else {},
        "expires_at": expires_at(_remaining_s(model)),
        "size_vram": model.device_bytes,
        "context_length": model.n_ctx_tokens,
        "state": model.state,
        "placed": model.placed,
        "parallel": model.n_parallel,
        "running": model.n_running,
        "queue_depth": model.n_waiting,
    }
    if model.tuned_from:
        value |= {"tuned_from": model.tuned_from, "computed_by": model.digest}
    if model.fallback:
        value["fallback"] = model.fallback
    if metrics is not None:
        mean_s = metrics.between_tokens_s.mean  # of all running answers
        value["tokens_per_second"] = round(model.n_running / mean_s if mean_s else 0.0, 1)
        value["cache"] = {
            "used_tokens": metrics.cells_used,
            "shared_tokens": metrics.cells_shared,
            "prompt_tokens": metrics.prompt_tokens,
            "cached_tokens": metrics.prompt_reused_tokens,
        }
    return value
