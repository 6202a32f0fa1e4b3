"""Who may use the review page: a token or an API key, and no page of another origin.

The page shows documents and takes decisions, so it is closed even on an address of this machine,
which every local user reaches. The address that is printed carries a token, as Jupyter's does; it
becomes a cookie that scripts cannot read and other sites do not get. Where the service has API
keys, a key does as well, and its name is the reviewer's.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from paddock.engine.api.api_keys import KeyRing, given_keys, key_name_of, read_keys
from paddock.engine.api.cors import has_own_host_name

PAGE_PATH = "/review"
_MISSING = "This page needs a token."
_UNKNOWN = "This token is not known: it has expired, or is another page's."
_ASIDE = ("same-origin", "none", "")
"""Values of `Sec-Fetch-Site` of the page's own requests, and of clients that send none."""


class AccessRefused(Exception):
    """A request that may not use the page: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class PageAccess:
    """Decides who a request is from."""

    def __init__(
        self,
        token: str,
        owner: str,
        remedy: str,
        *,
        keys: Path | None = None,
        is_open: bool = False,
    ) -> None:
        """Read the keys once, so that a file that cannot be used is found at the start.

        Args:
            token: the secret of the printed address.
            owner: who decides by it.
            remedy: a sentence that says where the token is.
            keys: the file of API keys.
            is_open: other machines reach the address; without keys it is closed to all.

        Raises:
            InvalidKeyFile: the keys cannot be used.
        """
        self._token = token.encode()
        self._owner = owner
        self._remedy = remedy
        self._is_closed = is_open and keys is None
        self._ring = None
        if keys is not None:
            read_keys(keys)
            self._ring = KeyRing(keys)

    def reviewer(self, request: Request) -> str:
        """Return the name of the person that a request is from.

        Raises:
            AccessRefused: it names no one who may review, or is from a page of another origin.
        """
        self._refuse_strangers(request)
        if name := key_name_of(request.scope):  # checked by the service's middleware
            return name
        cookie = request.cookies.get(_cookie_name(request), "").encode("utf-8", "replace")
        given = (*given_keys(request.headers), *filter(None, [cookie]))
        for one in given:
            if hmac.compare_digest(one, self._token):
                return self._owner
            found = self._ring.find(one) if self._ring else None
            if found is not None:
                return found.name
        raise AccessRefused(401, f"{_UNKNOWN if given else _MISSING} {self._remedy}")

    def entered(self, request: Request) -> Response | None:
        """Return the answer to a page address with a token: its cookie; None without a token."""
        given = request.query_params.get("token")
        if given is None:
            return None
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            return PlainTextResponse(f"{_UNKNOWN} {self._remedy}\n", 403)
        answer = RedirectResponse(PAGE_PATH, 303, {"Cache-Control": "no-store"})
        answer.set_cookie(
            _cookie_name(request), given, path=PAGE_PATH, httponly=True, samesite="strict"
        )
        return answer

    def _refuse_strangers(self, request: Request) -> None:
        if not has_own_host_name(request.headers):
            raise AccessRefused(403, "Use 'localhost' or this machine's address.")
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        is_own = origin in ("", f"http://{host}", f"https://{host}")
        # Ports do not count for `SameSite`: another local page's requests have the cookie.
        if not is_own or request.headers.get("sec-fetch-site", "") not in _ASIDE:
            raise AccessRefused(403, "Pages of other origins may not use the review page.")
        if self._is_closed:
            raise AccessRefused(
                403, "Other machines reach this address: set `api_keys` to a file of keys."
            )


def _cookie_name(request: Request) -> str:
    """Return the cookie's name: browsers share cookies between the ports of a host."""
    server = request.scope.get("server") or ("", 0)
    return f"paddock-review-{server[1]}"
