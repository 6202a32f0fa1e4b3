"""Let a service make a model by a recipe: it is sent the files that it lacks, never a path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddock.engine.store.recipe import Recipe

    from .client import Client

Tell = Callable[[str, int | None, int | None], None]
"""Takes a status, and how much of how much."""


def make_by_service(client: Client, recipe: Recipe, tell: Tell) -> None:
    """Send what the service lacks, and let it make the model."""
    body = as_body(recipe) | {
        "files": {name: _sent(client, source, tell) for name, source in recipe.files.items()},
        "adapters": {name: _sent(client, source, tell) for name, source in recipe.adapters.items()},
    }
    wanted = {name: value for name, value in body.items() if value}
    with closing(client.stream("/api/create", wanted)) as lines:
        for line in lines:
            tell(str(line.get("status", "")), line.get("total"), line.get("completed"))


def _sent(client: Client, source: str | Path, tell: Tell) -> str:
    """Give a file's digest, once the service has its content."""
    if isinstance(source, str):
        return source
    tell(f"reading {source.name}", None, None)
    with source.open("rb") as content:
        digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    if not client.has_blob(digest):
        tell(f"sending {source.name}", None, None)
        client.upload(digest, source)
    return digest


def as_body(recipe: Recipe) -> dict[str, Any]:
    """Give what `/api/create` takes, files aside."""
    return {
        "model": recipe.name,
        "from": recipe.base,
        "template": recipe.template,
        "system": recipe.system,
        "license": list(recipe.licenses),
        "parameters": dict(recipe.parameters),
        "messages": [{"role": one.role, "content": one.content} for one in recipe.messages],
        "quantize": recipe.quantize,
        "renderer": recipe.renderer,
        "parser": recipe.parser,
        "requires": recipe.requires,
    }
