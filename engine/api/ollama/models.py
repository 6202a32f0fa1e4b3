"""What models there are, and what is known of one: tags and show; copy and delete.

Knows no model's file: `paddock.engine.store.cards` reads those. File work is done in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import flag_of, text_of
from paddock.engine.api.clock import rfc3339
from paddock.engine.api.errors import ApiError
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import dumps, json_response
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.request import Message
from paddock.engine.store.cards import Card, Details, TensorInfo, cards, describe
from paddock.engine.store.creation import copy as make_copy
from paddock.engine.store.names import ModelName, parse_name

from .asking import fields_of, missing


async def tags(request: Request) -> Response:
    """List every model, the newest first."""
    listed = await asyncio.to_thread(cards, service_of(request).finder)
    return json_response({"models": [_row(card) for card in listed]})


def _row(card: Card) -> dict[str, Any]:
    return {
        **named(card.name),
        "modified_at": rfc3339(card.modified_at),
        "size": card.size_bytes,
        "digest": card.digest,
        "details": detailed(card.details),
        "capabilities": list(card.capabilities),
    }


def named(name: str) -> dict[str, str]:
    """Give both members by which clients read a name, always with its tag."""
    try:
        shown = parse_name(name).short
    except InvalidName:  # the path of a file
        shown = name
    return {"name": shown, "model": shown}


def detailed(details: Details) -> dict[str, Any]:
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


async def show(request: Request) -> Response:
    """Tell everything of one model."""
    body = await fields_of(request)
    model = text_of(body, "model") or text_of(body, "name")
    if not model:
        raise ApiError(400, "model is required")
    system, is_verbose = text_of(body, "system"), flag_of(body, "verbose")
    finder, ref = service_of(request).finder, service_of(request).ref(model)

    def look() -> bytes:  # a vocabulary takes a quarter of a second to read and to write
        return dumps(_shown(describe(finder, ref, is_verbose=is_verbose), system))

    try:
        told = await asyncio.to_thread(look)
    except ModelNotFound:
        raise missing(model) from None
    return Response(told, media_type="application/json; charset=utf-8")


def _shown(card: Card, system: str) -> dict[str, Any]:
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
    told["details"] = detailed(card.details)
    if card.messages:
        told["messages"] = [_turn(one) for one in card.messages]
    told["model_info"] = dict(card.model_info)
    if card.projector_info is not None:
        told["projector_info"] = dict(card.projector_info)
    told["tensors"] = [_tensor(one) for one in card.tensors]
    told["capabilities"] = list(card.capabilities)
    told["modified_at"] = rfc3339(card.modified_at)
    return told


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


# Copy and delete


async def copy(request: Request) -> Response:
    """Give a model a second name."""
    body = await fields_of(request)
    source, destination = text_of(body, "source"), text_of(body, "destination")
    from_name = _checked(source, f'source "{source}" is invalid')
    to_name = _checked(destination, f'destination "{destination}" is invalid')
    try:
        service = service_of(request)
        await asyncio.to_thread(make_copy, service.store, service.finder, from_name, to_name)
    except ModelNotFound:
        raise ApiError(404, f'model "{source}" not found') from None
    return Response(status_code=200)


async def delete(request: Request) -> Response:
    """Take a model's name away, and the blobs that no other name needs."""
    body = await fields_of(request)
    model = wanted_name(body)
    name = _checked(model, f'name "{model}" is invalid')
    try:
        await asyncio.to_thread(_delete, service_of(request), name)
    except ModelNotFound:
        raise missing(model) from None
    return Response(status_code=200)


def _delete(service: Service, name: ModelName) -> None:
    try:
        service.finder.delete(name.short)
    except ModelNotFound:
        found = service.finder.named(name)
        why = f"model '{name.short}' is not in the store, but in {found.path}: remove it there"
        raise ApiError(400, why) from None


def wanted_name(body: Mapping[str, Any]) -> str:
    """Give the name that a request is about.

    Raises:
        ApiError: 400, there is none.
    """
    model = text_of(body, "model") or text_of(body, "name")
    if not model:
        raise ApiError(400, "model is required")
    return model


def _checked(text: str, message: str) -> ModelName:
    try:
        return parse_name(text)
    except InvalidName:
        raise ApiError(400, message) from None
