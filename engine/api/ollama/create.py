"""POST /api/create: a model made from another one, or from files that were sent before.

Knows no manifest: `paddock.engine.store.creation` makes it. A base that is not here is pulled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import (
    fields,
    flag_of,
    object_of,
    objects_of,
    text_of,
    texts_of,
)
from paddock.engine.api.errors import ApiError
from paddock.engine.api.service import Service, service_of
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.request import Message
from paddock.engine.store.creation import create as make
from paddock.engine.store.names import parse_name
from paddock.engine.store.progress import Progress
from paddock.engine.store.recipe import Recipe
from paddock.engine.store.transfer.pull import pull

from .asking import fields_of
from .progress import from_thread, tell_progress
from .transfers import options_of


async def create(request: Request) -> Response:
    """Make a model, told line by line."""
    body = await fields_of(request)
    recipe = read_recipe(body)
    lines = _made(service_of(request), recipe)
    return await tell_progress(request, lines, streams=flag_of(body, "stream", True))


def read_recipe(body: Mapping[str, Any]) -> Recipe:
    """Read what is to be made.

    Raises:
        ApiError: 400, a name that cannot be one, or a member of the wrong type.
    """
    name, base = text_of(body, "model") or text_of(body, "name"), text_of(body, "from")
    for one in (name, base) if base else (name,):
        try:
            parse_name(one)
        except InvalidName:
            raise ApiError(400, "invalid model name") from None
    return Recipe(
        name=name,
        base=parse_name(base).short if base else None,
        files=_digests(body, "files"),
        adapters=_digests(body, "adapters"),
        template=text_of(body, "template"),
        system=text_of(body, "system"),
        licenses=_licenses(body),
        parameters=object_of(body, "parameters"),
        messages=tuple(_turn(fields(one)) for one in objects_of(body, "messages")),
        quantize=text_of(body, "quantize") or text_of(body, "quantization"),
        renderer=text_of(body, "renderer"),
        parser=text_of(body, "parser"),
        requires=text_of(body, "requires"),
    )


def _digests(body: Mapping[str, Any], name: str) -> dict[str, str]:
    """Give files' digests by their names: never a path of this machine."""
    files = object_of(body, name)
    return {file: text_of(files, file) for file in files}


def _licenses(body: Mapping[str, Any]) -> tuple[str, ...]:
    one = body.get("license")
    if isinstance(one, str):
        return (one,) if one else ()
    return tuple(texts_of(body, "license"))


def _turn(body: Mapping[str, Any]) -> Message:
    return Message(text_of(body, "role"), text_of(body, "content"))


async def _made(service: Service, recipe: Recipe) -> AsyncGenerator[Progress, None]:
    try:
        async for line in _tried(service, recipe):
            yield line
    except ModelNotFound:
        if not recipe.base:
            raise
    else:
        return
    options = await options_of(service)
    async with aclosing(pull(service.store, parse_name(recipe.base), options=options)) as lines:
        async for line in lines:
            if line.status != "success":
                yield line
    async for line in _tried(service, recipe):
        yield line


async def _tried(service: Service, recipe: Recipe) -> AsyncGenerator[Progress, None]:
    work = partial(make, service.store, service.finder, recipe)
    async with aclosing(from_thread(work)) as lines:
        async for line in lines:
            yield line
