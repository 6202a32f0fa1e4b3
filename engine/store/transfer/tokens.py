"""Answer a registry's question who asks: a token for a challenge, or a name and a password.

The protocol is the registries' common one (distribution.github.io/distribution/spec/auth/token).
A token goes to the registry alone; a password to the token server that the registry names.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass

import httpx

from .answers import check_answer
from .connection import Connection, host_of, origin
from .credentials import places, read_credentials
from .errors import Refused
from .ollama_key import key_file, signed
from .options import Credentials

_PAIR = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for."""

    realm: str
    service: str
    scopes: tuple[str, ...]


class Tokens:
    """Who we are to one registry; see `connection.Auth`."""

    def __init__(self, connection: Connection, base: httpx.URL) -> None:
        self.header: str | None = None
        self.origin = origin(base)
        self._connection = connection
        self._base = base
        self._host = host_of(base)
        self._lock = asyncio.Lock()

    async def answer(self, response: httpx.Response) -> bool:
        """Get a token for this challenge; False: it asks for nothing that we have.

        Raises:
            Refused, Unreachable, Interrupted: the token server gave none.
        """
        async with self._lock:
            if response.request.headers.get("Authorization") != self.header:
                return True  # somebody else got a new one meanwhile
            asked = response.headers.get("www-authenticate", "")
            challenge = parse_challenge(asked)
            ours = await self._credentials()
            if challenge is not None:
                self.header = f"Bearer {await self._fetch(challenge, ours)}"
                return True
            if "basic" in asked.lower() and ours is not None and self.header is None:
                self.header = _basic(ours)
                return True
            return False

    async def _credentials(self) -> Credentials | None:
        known = self._connection.options.credentials
        if known is None:
            known = await asyncio.to_thread(lambda: read_credentials(places()))
        return known.get(self._host)

    async def _fetch(self, challenge: Challenge, ours: Credentials | None) -> str:
        query: dict[str, list[str]] = {"service": [challenge.service]} if challenge.service else {}
        query["scope"] = list(challenge.scopes)
        try:
            url = httpx.URL(challenge.realm).copy_merge_params(query)
        except httpx.InvalidURL as error:
            raise Refused(self._host, 401, f"its token server has no address: {error}") from error
        headers = {"Authorization": _basic(ours)} if ours is not None else {}
        options = self._connection.options
        if ours is None and self._host in options.ollama_hosts:
            file = options.ollama_key or key_file()
            url, signature = await asyncio.to_thread(signed, url, file) or (url, None)
            headers = {"Authorization": signature} if signature else {}
        response = await self._connection.read(
            "GET", str(url), headers=headers, named_by=self._base
        )
        check_answer(response, f"token of {self._host}")
        try:
            told = response.json()
            return str(told.get("token") or told["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise Refused(self._host, 401, "its token server gave no token") from error


def parse_challenge(header: str) -> Challenge | None:
    """Read `Bearer realm="…",service="…",scope="…"`; None: there is none.

    >>> parse_challenge('Bearer realm="https://a/t",service="r",scope="repository:x/y:pull"')
    Challenge(realm='https://a/t', service='r', scopes=('repository:x/y:pull',))
    >>> parse_challenge('Basic realm="x"')
    """
    at = header.lower().find("bearer ")
    if at < 0:
        return None
    told = dict(_PAIR.findall(header[at:]))
    if not told.get("realm"):
        return None
    return Challenge(told["realm"], told.get("service", ""), tuple(told.get("scope", "").split()))


def _basic(ours: Credentials) -> str:
    pair = f"{ours.user}:{ours.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
