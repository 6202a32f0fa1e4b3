"""The doors of the service, in the order in which a request goes through them. Decides nothing.

Each is an ASGI middleware of its own module; none of them reads a whole body or holds an answer
back, so that streams stay streams.
"""

from __future__ import annotations

from starlette.middleware import Middleware

from paddock.engine.settings import ServiceSettings

from . import access_log
from .hosts import HostCheck
from .journal import Journal
from .keys import KeyCheck, KeyRing, read_keys
from .limits import BodyLimit
from .origins import OriginCheck, Origins
from .rates import RateLimit
from .recording import Recording


def middleware(settings: ServiceSettings, journal: Journal) -> list[Middleware]:
    """Give the doors, the outermost first.

    Raises:
        KeysBroken: the file of API keys cannot be used.
    """
    written = access_log.writer(is_json=settings.is_log_json) if settings.access_log else None
    doors = [
        Middleware(Recording, journal=journal, written=written),
        Middleware(OriginCheck, origins=Origins(settings.origins), journal=journal),
    ]
    if settings.is_loopback:
        doors.append(Middleware(HostCheck, journal=journal))
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)
        ring = KeyRing(settings.api_keys_file)
        doors.append(Middleware(KeyCheck, ring=ring, journal=journal))
    if settings.rate_per_minute is not None:
        per_minute = settings.rate_per_minute
        doors.append(Middleware(RateLimit, per_minute=per_minute, journal=journal))
    limit, idle_s = settings.max_body_bytes, settings.idle_timeout_s
    doors.append(Middleware(BodyLimit, max_body_bytes=limit, idle_s=idle_s, journal=journal))
    return doors
