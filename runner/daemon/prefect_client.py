"""HTTP clients of a Prefect API, with the settings that Prefect's own client has.

Its password or key, headers, certificates and CSRF tokens are sent to no other host: redirects are
not followed.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from paddock.engine.system import http
from paddock.engine.system.retry import Backoff

from .prefect_auth import CLIENT_VARIABLE, basic_auth_headers

if TYPE_CHECKING:
    import httpx

CUSTOM_HEADERS = "PREFECT_CLIENT_CUSTOM_HEADERS"
FORBIDDEN, NOT_FOUND, TOO_MANY = 403, 404, 429
TRIES = 4
BACKOFF = Backoff(0.5, 4.0)  # the server's database may be locked for a moment


class PrefectRefusal(Exception):
    def __init__(self, answer: httpx.Response) -> None:
        self.status = answer.status_code
        self.is_busy = self.status >= 500 or self.status == TOO_MANY
        to = f", a redirect to {answer.headers.get('location')}" if answer.is_redirect else ""
        super().__init__(f"{answer.url.path}: status {self.status}{to}: {answer.text[:300]}")


class TrackingError(Exception):
    """Prefect's API cannot be used; says how to go on without it."""


PREFECT_ERRORS = (http.HttpFailure, PrefectRefusal)


def is_passing(error: Exception) -> bool:
    """Return whether Prefect's server is away or busy, rather than refusing."""
    return isinstance(error, http.HttpFailure) or (
        isinstance(error, PrefectRefusal) and error.is_busy
    )


async def ask(api: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """Return the JSON that Prefect's API answers.

    Raises:
        HttpFailure: it does not answer.
        PrefectRefusal: it answers with an error.
    """
    with http.http_failures("Prefect's server"):
        answer = await api.request(method, path, json=body)
    if not answer.is_success:
        raise PrefectRefusal(answer)
    return answer.json() if answer.content else None


async def ask_again(api: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    for n_tried in range(1, TRIES):
        try:
            return await ask(api, method, path, body)
        except PREFECT_ERRORS as error:
            if not is_passing(error):
                raise
        await asyncio.sleep(BACKOFF.pause_s(n_tried))
    return await ask(api, method, path, body)


def client_options(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of `http.client` for a server; `environ` is as for Prefect's client.

    Raises:
        OSError: the file with certificates cannot be used.
        ValueError: the headers are not a JSON object.
    """
    url = url.strip().rstrip("/")
    headers = headers_from(environ)
    tokens = CsrfTokens(f"{url}/csrf-token", headers)
    verify = _verify(environ)
    return {"url": url, "headers": headers, "verify": verify, "auth_flow": tokens.auth_flow}


def headers_from(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers, as Prefect's client makes them.

    >>> headers_from({"PREFECT_API_KEY": "k"}), headers_from({})
    ({'Authorization': 'Bearer k'}, {})
    >>> headers_from({"PREFECT_API_AUTH_STRING": "ada:secret", "PREFECT_API_KEY": "k"})
    {'Authorization': 'Basic YWRhOnNlY3JldA=='}
    >>> headers_from({"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Team": "a"}'})
    {'X-Team': 'a'}
    """
    headers: dict[str, str] = {}
    if auth_string := environ.get(CLIENT_VARIABLE, "").strip():
        headers = basic_auth_headers(auth_string)
    elif api_key := environ.get("PREFECT_API_KEY", "").strip():
        headers = {"Authorization": f"Bearer {api_key}"}
    custom = http.json_object(environ.get(CUSTOM_HEADERS, "").strip().encode() or b"{}")
    if custom is None:
        raise ValueError(f'{CUSTOM_HEADERS} is not JSON such as {{"name": "value"}}')
    return headers | {str(name): str(value) for name, value in custom.items()}


def _verify(environ: Mapping[str, str]) -> ssl.SSLContext | bool:
    unverified = environ.get("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "").strip().lower()
    if unverified in ("1", "true", "yes", "on", "t", "y"):
        return False
    file = environ.get("PREFECT_API_SSL_CERT_FILE", "").strip()
    return ssl.create_default_context(cafile=file) if file else True


class CsrfTokens:
    """Asks for a CSRF token once the server refuses a request without one."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._client_headers = headers
        self._own = {"Prefect-Csrf-Client": str(uuid.uuid4())}
        self._asking = asyncio.Lock()

    async def auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        sent = self._own
        request.headers.update(sent)
        answer = yield request
        if answer.status_code != FORBIDDEN or b"CSRF token" not in await answer.aread():
            return
        async with self._asking:  # a new token ends the one before
            if self._own is sent:
                client = {"client": sent["Prefect-Csrf-Client"]}
                headers = self._client_headers
                answer = yield type(request)("GET", self._url, params=client, headers=headers)
                if answer.is_success:
                    token = http.json_object(await answer.aread()) or {}
                    self._own = {**sent, "Prefect-Csrf-Token": str(token.get("token"))}
        request.headers.update(self._own)
        yield request


async def check_prefect_api(environ: Mapping[str, str]) -> None:
    """Check that Prefect's API answers.

    Raises:
        TrackingError: it does not.
    """
    url = environ["PREFECT_API_URL"].strip().rstrip("/")
    try:
        options = client_options(url, environ)
        with http.http_failures(f"Prefect's API at {url}"):
            async with http.client(**options) as client:
                answer = await client.get("/health")
    except (http.HttpFailure, OSError, ValueError) as error:
        raise TrackingError(
            f"{error}. Start it with `prefect server start`, correct PREFECT_API_URL, "
            f"or use `--local` to run without it."
        ) from error
    if answer.is_redirect:  # the keys would go to another server
        to = answer.headers.get("location")
        raise TrackingError(f"Prefect's API at {url} redirects to '{to}'. Correct PREFECT_API_URL.")
