"""Who may use the review page and the console: tokens, API keys, tickets, sessions.

They show documents and take decisions, so they are closed even on an address of this machine,
which every local user reaches. What a person has (a token, an API key) or what their browser is
handed (a ticket) is exchanged for a session: a random value in a cookie that scripts cannot read
and other sites do not get. Sessions end with this process. So nothing of lasting value is in a
command line, or is sent by a page that stayed open to another program at the same port.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from paddock.engine.api.api_keys import KeyRing, digest_of, given_keys, key_name_of, read_keys
from paddock.engine.api.host_check import has_own_host_name
from paddock.engine.system.records import Struct, field

PAGE_PATH = "/review"
CONSOLE_PATH = "/ui"
TICKET_S = 120.0
"""How long a browser may take to start."""
_MISSING = "This page needs a token."
_UNKNOWN = "This token is not known: it has expired, or is another page's."
_USED = "This ticket was used, or is too old."
_FOREIGN_NAME = "Use 'localhost' or this machine's address."
_ASIDE = ("same-origin", "none", "")
"""Values of `Sec-Fetch-Site` of the page's own requests, and of clients that send none."""
_SECRET_BYTES = 24
_MOST_SESSIONS = 1000
_MOST_FORM_BYTES = 8192
_BODY_S = 30.0


class AccessRefused(Exception):
    def __init__(self, status: int, sentence: str, *, needs_token: bool = False) -> None:
        self.status = status
        self.needs_token = needs_token
        super().__init__(sentence)


class Ticket(Struct, frozen=True):
    """What opens the page once, for a short time, in the owner's name."""

    value: str
    until: float
    """By the monotonic clock."""
    is_used: asyncio.Event = field(default_factory=asyncio.Event)


class PageAccess:
    """Decides who a request is from. Lives in one loop."""

    def __init__(
        self,
        token: str | None,
        owner: str,
        remedy: str,
        *,
        keys: Path | None = None,
        is_open: bool = False,
    ) -> None:
        """Read the keys once, so that a file that cannot be used is found at the start.

        Args:
            token: the owner's; None: only keys open the page.
            owner: who decides by it.
            remedy: a sentence that says where the token is.
            keys: the file of API keys.
            is_open: other machines reach the address; without keys it is closed to all.

        Raises:
            InvalidKeyFile: the keys cannot be used.
        """
        self._token = None if token is None else token.encode()
        self._owner = owner
        self._remedy = remedy
        self._is_closed = is_open and keys is None
        self._ring = None
        self._tickets: dict[bytes, Ticket] = {}
        self._sessions: dict[bytes, bytes] = {}
        """Digest of a cookie → the token or key that it was given for, which is checked again."""
        if keys is not None:
            read_keys(keys)
            self._ring = KeyRing(keys)

    def reviewer(self, request: Request) -> str:
        """Return the name of the person that a request is from.

        Raises:
            AccessRefused: it names no one who may review, or is from a page of another origin.
        """
        if not has_own_host_name(request.headers):
            raise AccessRefused(403, _FOREIGN_NAME)
        # Ports do not count for `SameSite`: another local page's requests have the cookie.
        site = request.headers.get("sec-fetch-site", "")
        if not _is_own_origin(request) or site not in _ASIDE:
            raise AccessRefused(403, "Pages of other origins may not use the review page.")
        if self._is_closed:
            raise AccessRefused(
                403, "Other machines reach this address: set `api_keys` to a file of keys."
            )
        if name := key_name_of(request.scope):  # checked by the service's middleware
            return name
        cookie = request.cookies.get(_cookie_name(request), "").encode("utf-8", "replace")
        given = given_keys(request.headers)
        session = self._sessions.get(digest_of(cookie))
        for secret in (*given, *filter(None, [session])):
            if person := self._name_of(secret):
                return person
        what = _UNKNOWN if given or cookie else _MISSING
        raise AccessRefused(401, f"{what} {self._remedy}", needs_token=True)

    # --- from a token, a key or a ticket to a session

    def new_ticket(self) -> Ticket:
        assert self._token is not None
        ticket = Ticket(secrets.token_urlsafe(_SECRET_BYTES), time.monotonic() + TICKET_S)
        self._tickets[digest_of(ticket.value.encode())] = ticket
        return ticket

    async def entered(self, request: Request) -> Response | None:
        """Return the answer to a request that brings a secret: its cookie; None without one.

        Raises:
            AccessRefused: the secret is not known, or a page of another origin sent it.
        """
        if request.method == "POST":
            form = await read_form(request, _MOST_FORM_BYTES) or {}
            if "ticket" in form:  # of a file: it has no origin
                # Removed before it is looked at: of two requests with one ticket, one is refused.
                ticket = self._tickets.pop(
                    digest_of(form["ticket"].encode("utf-8", "replace")), None
                )
                if ticket is None or ticket.until < time.monotonic() or self._token is None:
                    raise AccessRefused(403, f"{_USED} {self._remedy}", needs_token=True)
                ticket.is_used.set()
                return self._admitted(request, self._token)
            site, origin = (request.headers.get(name, "") for name in ("sec-fetch-site", "origin"))
            is_aside = site in _ASIDE if site else origin == "null" or _is_own_origin(request)
            if not is_aside:  # it would sign a person in as someone else
                raise AccessRefused(403, "Pages of other origins may not sign in.")
            given = form.get("token", "")
        elif "token" in request.query_params:
            given = request.query_params["token"]
        else:
            return None
        secret = given.encode("utf-8", "replace")
        if not self._name_of(secret):
            raise AccessRefused(403, f"{_UNKNOWN} {self._remedy}", needs_token=True)
        return self._admitted(request, secret)

    def _admitted(self, request: Request, secret: bytes) -> Response:
        if not has_own_host_name(request.headers):
            raise AccessRefused(403, _FOREIGN_NAME)
        value = secrets.token_urlsafe(_SECRET_BYTES)
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[digest_of(value.encode())] = secret
        answer = RedirectResponse(PAGE_PATH, 303, {"Cache-Control": "no-store"})
        # Not for all paths: other programs' ports of this host would get it.
        for path in (PAGE_PATH, CONSOLE_PATH):
            answer.set_cookie(
                _cookie_name(request), value, path=path, httponly=True, samesite="strict"
            )
        return answer

    def _name_of(self, secret: bytes) -> str | None:
        if self._token is not None and hmac.compare_digest(secret, self._token):
            return self._owner
        key = self._ring.find(secret) if self._ring else None
        return None if key is None else key.name


def _is_own_origin(request: Request) -> bool:
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    return origin in ("", f"http://{host}", f"https://{host}")


async def request_body(request: Request, most_bytes: int) -> bytes | None:
    """Return a request's body; None where it is larger, too slow, or the client disconnected."""
    body = bytearray()
    with suppress(ClientDisconnect, TimeoutError):
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > most_bytes:
                    return None
        return bytes(body)
    return None


async def read_form(request: Request, most_bytes: int) -> dict[str, str] | None:
    """Return the first value of each field of a form; None of one that is not whole."""
    body = await request_body(request, most_bytes)
    if body is None:
        return None
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}


def _cookie_name(request: Request) -> str:
    """Return the cookie's name: browsers share cookies between the ports of a host."""
    server = request.scope.get("server") or ("", 0)
    return f"paddock-review-{server[1]}"
