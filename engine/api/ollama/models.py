"""Models in Ollama's API: /api/tags, show, ps, copy and delete.

`paddock.engine.store.cards` reads the model files; file work runs in threads. /api/ps adds fields
of ours to Ollama's: queue depth, tokens per second, cache use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import flag_of, text_of
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import dumps, json_response
from paddock.engine.api.time_formats import expires_at, rfc3339
from paddock.engine.backends.metrics import ModelMetrics
from paddock.engine.errors import EngineError, InvalidName, ModelNotFound
from paddock.engine.memory.pool_stats import ModelStats
from paddock.engine.models.model_cards import (
    ModelCard,
    ModelDetails,
    TensorInfo,
    describe_model,
    list_cards,
)
from paddock.engine.models.model_creation import copy_model as make_copy
from paddock.engine.models.model_names import ModelName, parse_name
from paddock.engine.request import Message

from .requests import model_not_found, read_fields


async def list_tags(request: Request) -> Response:
    """List every model, the newest first."""
    listed = await asyncio.to_thread(list_cards, service_of(request).finder)
    return json_response({"models": [_tag_value(card) for card in listed]})


def _tag_value(card: ModelCard) -> dict[str, Any]:
    return {
        **name_fields(card.name),
        "modified_at": rfc3339(card.modified_at),
        "size": card.size_bytes,
        "digest": card.digest,
        "details": details_value(card.details),
        "capabilities": list(card.capabilities),
    }


def name_fields(name: str) -> dict[str, str]:
    """Return both members by which clients read a name, always with its tag."""
    try:
        shown = parse_name(name).short
    except InvalidName:  # the path of a file
        shown = name
    return {"name": shown, "model": shown}


def details_value(details: ModelDetails) -> dict[str, Any]:
    """Write a model's few words; lengths only where they are known."""
    told: dict[str, Any] = {
        "parent_model": details.parent_model,
        "format": details.format,
        "family": details.family,
        "families": list(details.families) or None,
        "parameter_size": details.parameter_size,
        "quantization_level": details.quantization_level,
    }
    if details.context_length:
        told["context_length"] = details.context_length
    if details.embedding_length:
        told["embedding_length"] = details.embedding_length
    return told


# Show


async def show_model(request: Request) -> Response:
    """Tell everything of one model."""
    body = await read_fields(request)
    model = text_of(body, "model") or text_of(body, "name")
    if not model:
        raise ApiError(400, "model is required")
    system, is_verbose = text_of(body, "system"), flag_of(body, "verbose")
    finder, ref = service_of(request).finder, service_of(request).ref(model)

    def look() -> bytes:  # a vocabulary takes a quarter of a second to read and to write
        return dumps(_show_value(describe_model(finder, ref, is_verbose=is_verbose), system))

    try:
        told = await asyncio.to_thread(look)
    except ModelNotFound:
        raise model_not_found(model) from None
    return Response(told, media_type="application/json; charset=utf-8")


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
    told: dict[str, Any] = {name: text for name, text in texts.items() if text}
    told["details"] = details_value(card.details)
    if card.messages:
        told["messages"] = [_message_value(one) for one in card.messages]
    told["model_info"] = dict(card.model_info)
    if card.projector_info is not None:
        told["projector_info"] = dict(card.projector_info)
    told["tensors"] = [_tensor_value(one) for one in card.tensors]
    told["capabilities"] = list(card.capabilities)
    told["modified_at"] = rfc3339(card.modified_at)
    return told


def _message_value(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _tensor_value(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


# Copy and delete


async def copy_model(request: Request) -> Response:
    """Return a model a second name."""
    body = await read_fields(request)
    source, destination = text_of(body, "source"), text_of(body, "destination")
    from_name = _valid_name(source, f'source "{source}" is invalid')
    to_name = _valid_name(destination, f'destination "{destination}" is invalid')
    try:
        service = service_of(request)
        await asyncio.to_thread(make_copy, service.store, service.finder, from_name, to_name)
    except ModelNotFound:
        raise ApiError(404, f'model "{source}" not found') from None
    return Response(status_code=200)


async def delete_model(request: Request) -> Response:
    """Take a model's name away, and the blobs that no other name needs."""
    body = await read_fields(request)
    model = required_name(body)
    name = _valid_name(model, f'name "{model}" is invalid')
    try:
        await asyncio.to_thread(_delete_files, service_of(request), name)
    except ModelNotFound:
        raise model_not_found(model) from None
    return Response(status_code=200)


def _delete_files(service: Service, name: ModelName) -> None:
    try:
        service.finder.delete(name.short)
    except ModelNotFound:
        found = service.finder.named(name)
        why = f"model '{name.short}' is not in the store, but in {found.path}: remove it there"
        raise ApiError(400, why) from None


def required_name(body: Mapping[str, Any]) -> str:
    """Return the name that a request is about.

    Raises:
        ApiError: 400, there is none.
    """
    model = text_of(body, "model") or text_of(body, "name")
    if not model:
        raise ApiError(400, "model is required")
    return model


def _valid_name(text: str, message: str) -> ModelName:
    try:
        return parse_name(text)
    except InvalidName:
        raise ApiError(400, message) from None


async def list_loaded(request: Request) -> Response:
    """List what is in memory, that which stays longest first."""
    service = service_of(request)
    stats = service.pool.stats()
    metrics = service.pool.metrics.snapshot().models
    known = await asyncio.to_thread(_known_cards, service, [one.name for one in stats.resident])
    listed = [
        (_remaining_s(one), _loaded_value(one, known.get(one.name), metrics.get(one.name)))
        for one in stats.resident
    ]
    listed.sort(key=lambda pair: float("inf") if pair[0] is None else pair[0], reverse=True)
    return json_response({"models": [row for _, row in listed], "queue_depth": stats.n_waiting})


def _known_cards(service: Service, names: list[str]) -> dict[str, ModelCard]:
    """Describe those that are still on disk."""
    known = {}
    for name in names:
        try:
            known[name] = describe_model(service.finder, name)
        except (EngineError, OSError):
            continue
    return known


def _remaining_s(one: ModelStats) -> float | None:
    """Tell for how long it stays if nobody asks from now on; None: for ever."""
    if one.is_pinned or one.keep_alive_s < 0:
        return None
    return one.keep_alive_s if one.expires_s is None else one.expires_s


def _loaded_value(
    one: ModelStats, card: ModelCard | None, metrics: ModelMetrics | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        **name_fields(one.name),
        "size": one.host_bytes + one.device_bytes,
        "digest": card.digest if card else one.digest,
        "details": details_value(card.details) if card else {},
        "expires_at": expires_at(_remaining_s(one)),
        "size_vram": one.device_bytes,
        "context_length": one.n_ctx_tokens,
        "state": one.state,
        "placed": one.placed,
        "parallel": one.n_parallel,
        "running": one.n_running,
        "queue_depth": one.n_waiting,
    }
    if one.fallback:
        told["fallback"] = one.fallback
    if metrics is not None:
        told["tokens_per_second"] = round(_tokens_per_s(one, metrics), 1)
        told["cache"] = {
            "used_tokens": metrics.cells_used,
            "shared_tokens": metrics.cells_shared,
            "prompt_tokens": metrics.prompt_tokens,
            "cached_tokens": metrics.prompt_reused_tokens,
        }
    return told


def _tokens_per_s(one: ModelStats, metrics: ModelMetrics) -> float:
    """Return how fast the tokens of all running answers come, by the mean of those that came."""
    mean_s = metrics.between_tokens_s.mean
    return one.n_running / mean_s if mean_s else 0.0
