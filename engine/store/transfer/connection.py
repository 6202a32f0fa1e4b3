"""Speak HTTP with other machines: proxies, trusted hosts, redirects that carry no secrets.

Knows no registries. Redirects are followed here, one by one, so that each host is looked at before
it is asked: another origin never sees the `Authorization` that was meant for the first one, no
redirect leaves https, and none leads from a public server into a private network or this machine.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Protocol, Self

import httpx

from paddock.engine.store.progress import Progress, Report
from paddock.engine.system.distribution import own_version
from paddock.engine.system.hosts import BadHost, is_public, read_host

from .errors import HostNotTrusted, LeadsInside, NotEncrypted, ProxyBroken, Refused, TransferError
from .options import TransferOptions
from .retries import Retries

Origin = tuple[str, str, int | None]
"""Scheme, host and port (None: the scheme's usual one)."""

Body = Callable[[], AsyncIterator[bytes]]
"""Gives a request's body anew for each try."""

_N_REDIRECTS = 10


class Auth(Protocol):
    """Says who we are to one origin, and to no other one."""

    @property
    def origin(self) -> Origin:
        """Whom it may be said to."""

    @property
    def header(self) -> str | None:
        """The value of `Authorization`; None: nothing is known yet."""

    async def answer(self, response: httpx.Response) -> bool:
        """Learn from a 401; False: there is nothing more to say."""


class Connection:
    """An HTTP client for one pull or push; a context manager."""

    def __init__(self, options: TransferOptions, report: Report | None = None) -> None:
        """Open nothing yet; `report` hears of each other host that a server leads to."""
        self.options = options
        self._report = report
        self._reported: set[str] = set()
        self._client: httpx.AsyncClient | None = None
        self._met: set[str] = set()
        """Hosts that have answered, so that not reaching them is worth some patience."""

    async def __aenter__(self) -> Self:
        """Open.

        Raises:
            ProxyBroken: the environment names a proxy that cannot be used.
        """
        stall_s = self.options.stall_s
        try:
            self._client = httpx.AsyncClient(
                trust_env=True,
                follow_redirects=False,
                timeout=httpx.Timeout(stall_s, connect=self.options.connect_s, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                # Ranges and digests are of the bytes themselves, never of a compressed form.
                headers={"User-Agent": f"paddock/{own_version()}", "Accept-Encoding": "identity"},
            )
        except (ValueError, ImportError) as error:
            raise ProxyBroken(str(error)) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        auth: Auth | None = None,
        is_verified: bool = True,
        named_by: httpx.URL | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Ask once, through redirects and one challenge; gives the answer, its body still to come.

        `is_verified`: a digest tells whether the right thing came, so a trusted host may send us
        on to any other one. Else every host on the way must be trusted. `named_by`: the server that
        answered with this address, which then counts as a redirect of it.

        Raises:
            HostNotTrusted, NotEncrypted, LeadsInside: nothing was sent there.
            httpx.TransportError: for `Retries`.
        """
        target, before = address(url), named_by
        told = dict(headers or {})
        was_asked = False
        for n_hop in range(_N_REDIRECTS + 1):
            self.check(target, is_first=n_hop == 0, is_verified=is_verified)
            if before is not None:
                await self._check_hop(before, target)
            own = auth if auth is not None and auth.origin == origin(target) else None
            response = await self._send(method, target, told, body, own)
            try:
                if response.status_code == 401 and own is not None and not was_asked:
                    was_asked = True
                    await response.aread()
                    if await own.answer(response):
                        await response.aclose()
                        response = await self._send(method, target, told, body, own)
                if not response.has_redirect_location:
                    yield response
                    return
                before, target = target, _next(target, response)
                if origin(before) != origin(target):
                    told.pop("Authorization", None)
            finally:
                await response.aclose()
        raise Refused(host_of(target), 310, f"more than {_N_REDIRECTS} redirects")

    async def read(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        auth: Auth | None = None,
        is_verified: bool = False,
        named_by: httpx.URL | None = None,
    ) -> httpx.Response:
        """Ask for something small, trying again while it may help; gives the answer whole.

        Raises:
            Unreachable, Interrupted: it did not help.
        """
        told = dict(headers or {})
        if content is not None:
            told["Content-Length"] = str(len(content))
        body = None if content is None else _body(content)

        async def once() -> httpx.Response:
            async with self.open(
                method,
                url,
                headers=told,
                body=body,
                auth=auth,
                is_verified=is_verified,
                named_by=named_by,
            ) as response:
                await response.aread()
            return response

        return await self.retried(url, once)

    async def retried(
        self, url: str, ask: Callable[[], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        """Ask until there is an answer that will not change by waiting."""
        host = host_of(address(url))
        retries = Retries(host, self.options, was_there=host in self._met)
        while True:
            try:
                response = await ask()
            except httpx.HTTPError as error:
                await retries.wait(error)
                continue
            self._met.add(host)
            if not await retries.wait_for(response):
                return response

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: Body | None,
        auth: Auth | None,
    ) -> httpx.Response:
        assert self._client is not None, "a connection is used inside `async with`"
        told = dict(headers)
        if auth is not None and auth.header is not None:
            told["Authorization"] = auth.header
        content = body() if body is not None else None
        request = self._client.build_request(method, url, headers=told, content=content)
        return await self._client.send(request, stream=True)

    def check(self, url: httpx.URL, *, is_first: bool = True, is_verified: bool = True) -> None:
        """Look at a host before it is asked.

        Raises:
            TransferError: it may not be.
        """
        if url.scheme not in ("http", "https") or not url.host:
            raise TransferError(f"{url}: only http:// and https:// addresses can be asked")
        if url.scheme == "http" and not self.options.insecure:
            raise NotEncrypted(f"{url.scheme}://{host_of(url)}")
        if (is_first or not is_verified) and not is_trusted(url, self.options.trusted_hosts):
            raise HostNotTrusted(host_of(url), self.options.trusted_hosts)

    async def _check_hop(self, before: httpx.URL, target: httpx.URL) -> None:
        """Look at where one server sends us before it is asked, and report another host.

        Raises:
            NotEncrypted: from https to http, which no setting allows.
            LeadsInside: from a public server to this machine or into a private network.
        """
        if before.scheme == "https" and target.scheme == "http":
            raise NotEncrypted(f"http://{host_of(target)}")
        if before.host == target.host:
            return
        named = bool(self.options.trusted_hosts) and is_trusted(target, self.options.trusted_hosts)
        if not named and await _is_inside(target) and not await _is_inside(before):
            raise LeadsInside(host_of(before), host_of(target))
        if self._report is not None and target.host not in self._reported:
            self._reported.add(target.host)
            self._report(Progress(f"{host_of(before)} leads to {host_of(target)}"))


async def _is_inside(url: httpx.URL) -> bool:
    """Return whether a host is this machine's or a private network's, as seen from here.

    A name that leads nowhere from here, as behind a proxy, counts as public.
    """
    try:
        host = read_host(url.host)
    except BadHost:
        return False
    if host.address is not None or host.name == "localhost":
        return host.address is None or not is_public(host.address)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.name, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [read_host(str(place[0]).partition("%")[0]).address for *_, place in found]
    return any(one is not None and not is_public(one) for one in addresses)


def address(url: str) -> httpx.URL:
    """Read an address.

    Raises:
        TransferError: it is none.
    """
    try:
        read = httpx.URL(url)
        if read.host and (read.port is None or 0 < read.port < 65536):  # a bad host raises here
            return read
        why = "it needs a host, and a port that can be"
    except (httpx.InvalidURL, ValueError) as error:
        why = str(error)
    raise TransferError(f"{url[:200]} is no address: {why}")


def origin(url: httpx.URL) -> Origin:
    """Give what a secret belongs to."""
    return url.scheme, url.host, url.port


def host_of(url: httpx.URL) -> str:
    """Give a host as people write it, with its port if it is not the usual one."""
    return url.netloc.decode("ascii")


def is_trusted(url: httpx.URL, trusted: tuple[str, ...]) -> bool:
    """Tell whether the settings let a host be asked.

    >>> is_trusted(httpx.URL("https://cdn.example.org/x"), ("*.example.org",))
    True
    >>> is_trusted(httpx.URL("https://example.org.evil.net/x"), ("example.org", "*.example.org"))
    False
    """
    names = {url.host.lower(), host_of(url).lower()}
    return not trusted or any(fnmatchcase(name, one.lower()) for name in names for one in trusted)


def _next(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Give where a redirect leads.

    Raises:
        Refused: nowhere.
    """
    try:
        return address(str(url.join(response.headers["location"])))
    except (httpx.InvalidURL, ValueError, TransferError) as error:
        said = f"a redirect to nowhere: {error}"
        raise Refused(host_of(url), response.status_code, said) from error


def _body(content: bytes) -> Body:
    async def pieces() -> AsyncIterator[bytes]:
        yield content

    return pieces
