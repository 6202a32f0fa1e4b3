"""POST /api/pull and /api/push: models brought from elsewhere, and sent there.

Knows no registry's protocol: `paddock.engine.store.transfer` speaks it.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import flag_of, text_of
from paddock.engine.api.service import Service, service_of
from paddock.engine.errors import InvalidName
from paddock.engine.store.names import parse_name
from paddock.engine.store.transfer.options import TransferOptions
from paddock.engine.store.transfer.pull import pull as brought
from paddock.engine.store.transfer.push import push as sent
from paddock.engine.store.transfer.sources import FromFile, read_source

from .asking import fields_of
from .models import wanted_name
from .progress import tell_progress


async def pull(request: Request) -> Response:
    """Bring a model; `as` gives it another name than its source's, where it is no registry's."""
    body = await fields_of(request)
    service = service_of(request)
    source = text_of(body, "model") or text_of(body, "name")
    options = await options_of(service, insecure=flag_of(body, "insecure"))
    own_name = text_of(body, "as") or None
    if isinstance(read_source(source, own_name), FromFile):
        raise InvalidName(source, "it is the path of a file")  # of ours, not of who asks
    lines = brought(service.store, source, options=options, as_name=own_name)
    return await tell_progress(request, lines, streams=flag_of(body, "stream", True))


async def push(request: Request) -> Response:
    """Send a model to the registry that its name says."""
    body = await fields_of(request)
    service = service_of(request)
    name = parse_name(wanted_name(body))
    options = await options_of(service, insecure=flag_of(body, "insecure"))
    lines = sent(service.store, name, options=options)
    return await tell_progress(request, lines, streams=flag_of(body, "stream", True))


async def options_of(service: Service, *, insecure: bool = False) -> TransferOptions:
    """Give the service's settings for a pull or a push."""
    kept = await asyncio.to_thread(service.finder.kept)
    return TransferOptions(
        insecure=insecure, trusted_hosts=service.settings.trusted_hosts, keep=tuple(kept)
    )
