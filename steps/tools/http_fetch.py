"""Fetch from hosts that the author allows, and from no others.

A name is resolved once and the request goes to that address, so that it cannot change between check
and request (DNS rebinding). Addresses of this machine and of private networks must be allowed
themselves (`hosts.Pattern`). Redirects follow the same rules.

Where the environment names a proxy (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, except for hosts of
`NO_PROXY`), the proxy resolves the name; a name that this machine resolves to a private network is
refused too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from paddock.engine.system.hosts import (
    Address,
    BadHost,
    is_reachable,
    parse_address,
    read_authority,
    read_pattern,
)
from paddock.engine.system.http import decoded, read_start
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import one_line, shorten
from paddock.pipelines.schema_validation import is_nested_too_deep
from paddock.steps.base import StepError, ToolResult
from paddock.steps.readers import documents
from paddock.steps.readers.text_encoding import is_known_encoding

from .tool import ToolContext, tool_refusal, tool_result

_CONNECT_S, _READ_S = 10.0, 20.0
_REQUEST_S = 600.0  # for a whole answer, however its bytes trickle
_MOST_REDIRECTS = 5
_MOST_PAGES, _MOST_LIST_BYTES = 10_000, 256 * 1024**2
_REDIRECTS = (301, 302, 303, 307, 308)
_AGENT = "paddock"
_SHOWN_CHARS = 300


class NotFetched(Exception):
    """The message is a plain sentence."""


class FetchTarget(Struct, frozen=True):
    """An allowed URL, with its host name and address."""

    url: str
    host: str
    address: str
    """The address; with a proxy, the host name."""
    port: int | None
    proxy: str | None = None


class Fetched(Struct, frozen=True):
    url: str
    """Of the last server."""
    answer: httpx.Response
    """Without its body."""
    body: bytes


class FetchRequest(Struct, frozen=True):
    url: str
    hosts: Sequence[str]
    max_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)


async def fetch(request: FetchRequest, within: ToolContext) -> ToolResult:
    """Fetch a page or data.

    Raises:
        StepError: the server cannot be reached, or has an error; a retry may succeed.
    """
    try:
        fetched = await fetch_bytes(request)
    except NotFetched as error:
        return tool_refusal(str(error))
    result = await asyncio.to_thread(_response_result, fetched, request.max_bytes)
    if result.is_error or _content_kind(fetched.answer) != "text/html":
        return result
    named = fetched.answer.charset_encoding or ""
    encoding = named if is_known_encoding(named) else "auto"
    try:
        text = await documents.web_page_text(
            fetched.body, encoding, fetched.url, readers=within.readers, log=within.log
        )
    except StepError:  # the page cannot be parsed
        return result
    return tool_result(text, text)


async def fetch_rows(request: FetchRequest, items: str, next_page: str) -> list[Any] | ToolResult:
    """Return what a server lists as JSON, of all pages, or why it cannot be used.

    `items` is the field of a page with its rows; empty: a page is a list. `next_page` is the one
    with the address of the next: of that the path counts, as a server behind a proxy may know
    itself by another name.

    Raises:
        StepError: as `fetch`.
    """
    rows, seen, page, n_bytes = list[Any](), set[str](), request.url, 0
    while page not in seen:
        if len(seen) == _MOST_PAGES or n_bytes > _MOST_LIST_BYTES:
            most = f"{_MOST_PAGES:,} pages or {_MOST_LIST_BYTES:,} bytes"
            return tool_refusal(f"the list '{request.url}' has more than {most}.")
        seen.add(page)
        try:
            fetched = await fetch_bytes(replace(request, url=page))
        except NotFetched as error:
            return tool_refusal(str(error))
        result = await asyncio.to_thread(_response_result, fetched, request.max_bytes)
        n_bytes += len(fetched.body)
        if result.is_error:
            return result
        whole = result.value if isinstance(result.value, Mapping) else {}
        found = whole.get(items) if items else result.value
        if not isinstance(found, list):
            return tool_refusal(f"'{page}' has no list '{items}'.")
        rows += found
        if not (following := whole.get(next_page)):
            return rows
        try:
            target = urlsplit(urljoin(page, str(following)))
        except ValueError:
            shown = shorten(str(following), _SHOWN_CHARS)
            return tool_refusal(f"'{page}' names '{shown}' as the next page, which is no address.")
        page = urlsplit(request.url)._replace(path=target.path, query=target.query).geturl()
    return tool_refusal(f"'{request.url}' lists '{page}' twice.")


async def fetch_bytes(request: FetchRequest) -> Fetched:
    """Fetch a URL, one byte more than allowed at the most; no other server is shown its headers.

    Raises:
        NotFetched: the host is not allowed.
        StepError: the server cannot be reached, or is too slow.
    """
    try:
        async with asyncio.timeout(_REQUEST_S):
            return await _fetch_redirected(request)
    except TimeoutError:
        what = f"'{request.url}' cannot be fetched: it took more than {_REQUEST_S:.0f} s."
        raise StepError(what, kind="io") from None


async def _fetch_redirected(request: FetchRequest) -> Fetched:
    url, headers = request.url, request.headers
    for _ in range(_MOST_REDIRECTS + 1):
        target = await allowed_target(url, request.hosts)
        try:
            async with (
                http_client(target.proxy) as client,
                client.stream("GET", **pinned_request(target, headers)) as answer,
            ):
                if answer.status_code in _REDIRECTS and "location" in answer.headers:
                    try:  # relative to the URL that was requested
                        target_url = urljoin(url, str(answer.headers["location"]))
                        is_same = _origin(target_url) == _origin(url)
                    except ValueError:
                        raise NotFetched(f"'{url}' redirects to what is no address.") from None
                    url, headers = target_url, headers if is_same else {}
                    continue
                most, coding = request.max_bytes, answer.headers.get("content-encoding", "")
                body = await read_start(answer, most + 1, is_raw=True)
                if (plain := decoded(body, coding, most)) is None:
                    what = f"'{target.url}' is compressed as '{coding}', and damaged or unknown."
                    raise NotFetched(what)
                return Fetched(target.url, answer, plain)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            why = f"the proxy said: {why}" if isinstance(error, httpx.ProxyError) else why
            what = f"'{target.url}' cannot be fetched: {why.rstrip('.')}."
            raise StepError(what, kind="io") from error
    raise NotFetched(f"'{url}' was redirected more than {_MOST_REDIRECTS} times.")


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)


async def allowed_target(url: str, hosts: Sequence[str]) -> FetchTarget:
    """Check a URL and resolve its host.

    Raises:
        NotFetched: the host is not allowed, or is in a private network.
        StepError: there is no such server.
    """
    try:
        patterns = [read_pattern(name) for name in hosts]
        found = read_authority(url)
    except BadHost as error:
        raise NotFetched(f"{error}.") from None
    if found.has_user:
        raise NotFetched("a URL with a user name is not allowed.")
    host, at = found.host, found.port
    if not any(pattern.names(host, at) for pattern in patterns):
        raise NotFetched(f"'{host.name}' is not allowed; allowed: {', '.join(hosts)}.")
    proxy = proxy_of(found.scheme, host.name, at)
    places: list[str] = []
    try:
        async with asyncio.timeout(_CONNECT_S):
            loop = asyncio.get_running_loop()
            resolved = await loop.getaddrinfo(host.name, at, type=socket.SOCK_STREAM)
        places = [str(place[0]) for *_, place in resolved]
    except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
        if proxy is None:  # behind one, outside names often do not resolve
            raise StepError(f"the host '{host.name}' cannot be resolved.", kind="io") from error
    reachable = {
        place: is_reachable(literal, patterns, host)
        for place in places
        if (literal := parse_address(place.partition("%")[0])) is not None
    }
    if not (any(reachable.values()) if proxy is None else all(reachable.values())):
        raise NotFetched(  # a proxy may choose any of them
            f"'{host.name}' is in a private network, where only addresses that are allowed "
            f"themselves, such as 10.0.0.0/8, can be used."
        )
    first = next((place for place, is_allowed in reachable.items() if is_allowed), "")
    address = first if proxy is None else host.name
    parts = urlsplit(url.strip())
    port = parts.port
    netloc = host.written if port is None else f"{host.written}:{port}"
    url = parts._replace(netloc=netloc, fragment="").geturl()
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:  # it is too long
        raise NotFetched(f"'{shorten(url, _SHOWN_CHARS)}' is no address: {error}.") from None
    return FetchTarget(url, host.name, address, port, proxy)


def proxy_of(scheme: str, host: str, port: int) -> str | None:
    """Return the environment's proxy for a server; None: direct."""
    named = getproxies_environment()
    proxy, address = named.get(scheme) or named.get("all"), parse_address(host)
    networks = named.get("no", "").split(",")
    if not proxy or host.lower() == "localhost" or proxy_bypass(f"{host}:{port}", named):
        return None
    if address is not None and (
        address.is_loopback or any(_is_within(address, network.strip()) for network in networks)
    ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_within(address: Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except (ValueError, TypeError):
        return False


def pinned_request(target: FetchTarget, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what a client is asked with, so that it goes to the address that was checked."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    named = host if target.port is None else f"{host}:{target.port}"
    own = {"Host": named, "User-Agent": _AGENT, "Accept-Encoding": "identity"}
    url = httpx.URL(target.url).copy_with(host=target.address)
    return {"url": url, "headers": {**headers, **own}, "extensions": {"sni_hostname": target.host}}


@cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes 20 ms


def http_client(proxy: str | None) -> httpx.AsyncClient:
    """Return a client that uses nothing of the environment but this proxy, and SSL_CERT_FILE."""
    timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
    try:
        return httpx.AsyncClient(
            timeout=timeout, trust_env=False, proxy=proxy, verify=_tls_context()
        )
    except (httpx.InvalidURL, ValueError, ImportError) as error:
        remedy = "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: http:// and https:// proxies work."
        raise StepError("the proxy of the environment cannot be used.", remedy=remedy) from error


def _response_result(fetched: Fetched, max_bytes: int) -> ToolResult:
    url, answer, body = fetched.url, fetched.answer, fetched.body
    if len(body) > max_bytes:
        return tool_refusal(f"'{url}' has more than {max_bytes:,} bytes.")
    kind = _content_kind(answer)
    try:
        text = body.decode(answer.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):  # unknown, or one that replaces nothing, such as `idna`
        text = body.decode("utf-8", "replace")
    text = text.encode("utf-8", "replace").decode()  # `utf-7` makes halves of surrogate pairs
    if answer.status_code >= 500 or answer.status_code == 429:
        raise StepError(f"'{url}' answers with status {answer.status_code}.", kind="io")
    if answer.status_code >= 400:
        words = one_line(text, _SHOWN_CHARS)
        return tool_refusal(f"'{url}' answers with status {answer.status_code}: {words}")
    is_text = kind.startswith("text/") or kind.endswith(("json", "xml", "javascript")) or not kind
    if not is_text:
        return tool_refusal(f"'{url}' is not text but {kind}.")
    with suppress(ValueError, RecursionError):
        data = json.loads(text) if kind.endswith("json") else text
        if not is_nested_too_deep(data):
            return tool_result(data, text if isinstance(data, Mapping | list) else str(data))
    return tool_result(text, text)


def _content_kind(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", "").partition(";")[0].strip().lower())
