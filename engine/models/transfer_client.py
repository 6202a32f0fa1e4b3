"""HTTP client for pulls and pushes: proxies, trusted hosts, retries, safe redirects.

Redirects are followed one by one, and each host is checked before a request: `Authorization` is
never sent to another origin, no redirect leaves https, and none goes from a public server to a
private network or to this machine.

Progress resets the count of failures, so a long download over a bad line ends, while a server that
sends nothing is given up after some tries.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Protocol, Self

import httpx

from paddock.engine.system import http, tasks
from paddock.engine.system.distribution import own_version
from paddock.engine.system.hosts import BadHost, is_public, read_host
from paddock.engine.system.http import retry_after_s
from paddock.engine.system.records import Struct, field
from paddock.engine.system.retry import Backoff

from .transfer import ProgressLine, ReportProgress, TransferOptions
from .transfer_errors import (
    INSECURE_ADVICE,
    HostNotTrusted,
    HostUnreachable,
    NotEncrypted,
    ProxyUnusable,
    RedirectsToPrivateHost,
    TransferError,
    TransferInterrupted,
    TransferRefused,
)

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of errors that may pass by themselves."""

_MAX_RETRY_AFTER_S = 60.0

# Of manifests, tokens and errors; a server that sends without an end fills no memory.
_MOST_BODY_BYTES = 16 * 1024**2
_BODY_S = 120.0
_OF_BODY = ("content-encoding", "content-length", "transfer-encoding")

# OpenSSL's errors for a server that answers in plain text.
_NO_TLS_REASONS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")

# A missing network should be reported within seconds, not after every retry.
_N_CONNECT_TRIES = 3


class TransferRetries:
    """Counts failures of one transfer with one host, and waits before retries."""

    def __init__(self, host: str, options: TransferOptions, *, was_there: bool = False) -> None:
        self.host = host
        self.n_failures = 0
        self._options = options
        self._backoff = Backoff(options.first_wait_s, options.longest_wait_s)
        self._was_there = was_there
        """Whether the host has answered before, so that a failed connection may pass."""

    def reset_failures(self) -> None:
        self.n_failures = 0
        self._was_there = True

    async def wait(self, error: httpx.HTTPError) -> None:
        """Wait before the next try.

        Raises:
            HostUnreachable, TransferInterrupted: there is no next try.
        """
        self.n_failures += 1
        never_met = (
            isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
            and not self._was_there
        )
        if not isinstance(error, httpx.TransportError) or _is_permanent(error):
            raise plain_reason(error, self.host, self._options) from error
        if self.n_failures > (_N_CONNECT_TRIES - 1 if never_met else self._options.n_retries):
            raise plain_reason(error, self.host, self._options) from error
        await asyncio.sleep(self._backoff.pause_s(self.n_failures))

    async def wait_for(self, response: httpx.Response, *, is_passing: bool | None = None) -> bool:
        """Wait if another try may change this response; False: it is final.

        `is_passing`: whether it may; None: by its status.
        """
        if is_passing is None:
            is_passing = response.status_code in TRANSIENT_STATUSES
        if not is_passing or self.n_failures >= self._options.n_retries:
            return False
        self.n_failures += 1
        retry_s = retry_after_s(response.headers.get("retry-after"), _MAX_RETRY_AFTER_S) or 0.0
        await asyncio.sleep(max(self._backoff.pause_s(self.n_failures), retry_s))
        return True


def plain_reason(error: httpx.HTTPError, host: str, options: TransferOptions) -> TransferError:
    text = str(error).strip()
    if isinstance(error, httpx.ProxyError):
        return HostUnreachable(host, f"the proxy answered: {text}")
    if isinstance(error, httpx.ConnectTimeout):
        return HostUnreachable(host, f"no answer within {options.connect_s:g} s")
    if any(word in text for word in _NO_TLS_REASONS):
        return HostUnreachable(host, "it does not speak TLS", INSECURE_ADVICE)
    if isinstance(error, httpx.ConnectError):
        return HostUnreachable(host, _refusal_reason(error, text))
    if isinstance(error, httpx.TimeoutException):
        return TransferInterrupted(host, f"nothing came for {options.stall_s:g} s")
    return TransferInterrupted(host, text or "the connection was cut")


def _refusal_reason(error: httpx.ConnectError, text: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"its certificate is not trusted ({text}); add a company's own authority to the file "
            f"of SSL_CERT_FILE"
        )
    cause = _errno(error)
    if cause == errno.ECONNREFUSED or "All connection attempts failed" in text:
        return "nothing listens there"
    return text.partition("] ")[2] if text.startswith("[Errno") else text or "no connection"


def _errno(error: BaseException) -> int | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return None


def _is_permanent(error: httpx.HTTPError) -> bool:
    return isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)) or (
        any(word in str(error) for word in ("CERTIFICATE_VERIFY_FAILED", *_NO_TLS_REASONS))
    )


async def progress_lines(
    work: Callable[[ReportProgress], Awaitable[None]],
) -> AsyncGenerator[ProgressLine, None]:
    """Run `work` and yield what it reports; its error is raised after the last line.

    If the caller stops early, the work is cancelled and awaited. A pending line is replaced by the
    next one about the same blob, so a slow reader costs no memory.
    """
    waiting: list[ProgressLine] = []
    news = asyncio.Event()

    def report(line: ProgressLine) -> None:
        if waiting and line.total is not None and waiting[-1].status == line.status:
            waiting[-1] = line
        else:
            waiting.append(line)
        news.set()

    task = asyncio.ensure_future(work(report))
    task.add_done_callback(lambda _: news.set())
    try:
        while not (task.done() and not waiting):
            await news.wait()
            news.clear()
            while waiting:
                yield waiting.pop(0)
            if task.done():
                news.set()
        await task
    finally:
        await tasks.end(task)


UrlOrigin = tuple[str, str, int | None]
"""Scheme, host and port (None: the scheme's usual one)."""

RequestBody = Callable[[], AsyncIterator[bytes]]
"""Returns a request's body; called for each try."""

_MAX_REDIRECTS = 10


class HostAuth(Protocol):
    @property
    def origin(self) -> UrlOrigin:
        """The origin that it is sent to."""

    @property
    def header(self) -> str | None:
        """The value of `Authorization`; None: there is none yet."""

    async def answer(self, response: httpx.Response) -> bool:
        """Update the header for a 401's challenge; False: that is impossible."""


class TransferRequest(Struct, frozen=True):
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | RequestBody | None = None
    auth: HostAuth | None = None
    is_verified: bool = False
    """A digest verifies the content, so a trusted host may redirect to any other; else every host
    must be trusted."""
    named_by: httpx.URL | None = None
    """The URL of the response that named this one, which then counts as a redirect from there."""


class TransferClient:
    def __init__(self, options: TransferOptions, report: ReportProgress | None = None) -> None:
        """Open nothing yet; `report` gets a line for each host that a server redirects to."""
        self.options = options
        self._report = report
        self._reported: set[str] = set()
        self._client: httpx.AsyncClient | None = None
        self._met: set[str] = set()
        """Hosts that have answered, so that retries may help."""

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            ProxyUnusable: a proxy in the environment cannot be used.
        """
        try:
            self._client = http.client(
                connect_s=self.options.connect_s, timeout_s=self.options.stall_s, n_idle=16
            )
        except (ValueError, ImportError) as error:
            raise ProxyUnusable(str(error)) from error
        # Ranges and digests refer to uncompressed bytes.
        self._client.headers["Accept-Encoding"] = "identity"
        self._client.headers["User-Agent"] = f"paddock/{own_version()}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def open(self, request: TransferRequest) -> AsyncIterator[httpx.Response]:
        """Send one request, following redirects and one challenge; yield the streamed response.

        Raises:
            HostNotTrusted, NotEncrypted, RedirectsToPrivateHost: nothing was sent there.
            httpx.TransportError: for `TransferRetries`.
        """
        target = parse_url(request.url)
        before = request.named_by
        auth = request.auth
        sent = dict(request.headers)
        was_challenged = False
        for n_hop in range(_MAX_REDIRECTS + 1):
            self.check(target, is_first=n_hop == 0, is_verified=request.is_verified)
            if before is not None:
                await self._check_hop(before, target)
            own = auth if auth is not None and auth.origin == url_origin(target) else None
            response = await self._send(request, target, sent, own)
            try:
                if response.status_code == 401 and own is not None and not was_challenged:
                    was_challenged = True
                    await with_body(response)
                    if await own.answer(response):
                        await response.aclose()
                        response = await self._send(request, target, sent, own)
                if not response.has_redirect_location:
                    yield response
                    return
                try:
                    redirect_target = parse_url(str(target.join(response.headers["location"])))
                except (httpx.InvalidURL, ValueError, TransferError) as error:
                    why = f"a redirect without a valid target: {error}"
                    raise TransferRefused(host_of(target), response.status_code, why) from error
                before, target = target, redirect_target
                if url_origin(before) != url_origin(target):
                    sent.pop("Authorization", None)
            finally:
                await response.aclose()
        raise TransferRefused(host_of(target), 310, f"more than {_MAX_REDIRECTS} redirects")

    async def ask(self, request: TransferRequest) -> httpx.Response:
        """Send a request once; return the response with its whole (small) body."""
        async with self.open(request) as response:
            return await with_body(response)

    async def read(self, request: TransferRequest) -> httpx.Response:
        """Send a request with retries; return the response with its whole (small) body.

        Raises:
            HostUnreachable, TransferInterrupted: every try failed.
        """
        return await self.ask_with_retries(request.url, lambda: self.ask(request))

    async def ask_with_retries(
        self, url: str, ask: Callable[[], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        host = host_of(parse_url(url))
        retries = TransferRetries(host, self.options, was_there=host in self._met)
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
        request: TransferRequest,
        url: httpx.URL,
        headers: Mapping[str, str],
        auth: HostAuth | None,
    ) -> httpx.Response:
        assert self._client is not None, "use the client inside `async with`"
        sent = dict(headers)
        if auth is not None and auth.header is not None:
            sent["Authorization"] = auth.header
        content = request.body() if callable(request.body) else request.body
        built = self._client.build_request(request.method, url, headers=sent, content=content)
        return await self._client.send(built, stream=True)

    def check(self, url: httpx.URL, *, is_first: bool = True, is_verified: bool = True) -> None:
        """Raise TransferError where requests to a host are not allowed."""
        if url.scheme not in ("http", "https") or not url.host:
            raise TransferError(f"{url}: only http:// and https:// URLs can be used")
        if url.scheme == "http" and not self.options.insecure:
            raise NotEncrypted(f"{url.scheme}://{host_of(url)}")
        if (is_first or not is_verified) and not is_trusted_host(url, self.options.trusted_hosts):
            raise HostNotTrusted(host_of(url), self.options.trusted_hosts)

    async def _check_hop(self, before: httpx.URL, target: httpx.URL) -> None:
        """Check the target of a redirect, and report another host.

        None goes from https to http, nor from a public server to this machine or a private network.
        """
        if before.scheme == "https" and target.scheme == "http":
            raise NotEncrypted(f"http://{host_of(target)}")
        if before.host == target.host:
            return
        named = bool(self.options.trusted_hosts) and is_trusted_host(
            target, self.options.trusted_hosts
        )
        if not named and await _is_private_host(target) and not await _is_private_host(before):
            raise RedirectsToPrivateHost(host_of(before), host_of(target))
        if self._report is not None and target.host not in self._reported:
            self._reported.add(target.host)
            self._report(ProgressLine(f"{host_of(before)} redirects to {host_of(target)}"))


async def with_body(response: httpx.Response) -> httpx.Response:
    """Return a streamed response with its whole (small) body, uncompressed.

    Raises:
        TransferError: the body is large.
        httpx.ReadTimeout: it does not end.
    """
    try:
        async with asyncio.timeout(_BODY_S):
            body = await http.read_body(response, _MOST_BODY_BYTES)
    except TimeoutError:
        raise httpx.ReadTimeout("the answer did not end", request=response.request) from None
    except http.AnswerTooLarge as error:
        raise TransferError(str(error)) from None
    headers = {name: value for name, value in response.headers.items() if name not in _OF_BODY}
    return httpx.Response(
        response.status_code, headers=headers, content=body, request=response.request
    )


async def _is_private_host(url: httpx.URL) -> bool:
    """Return whether a host is this machine or in a private network.

    A name that cannot be resolved, as behind a proxy, counts as public.
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
    return any(address is not None and not is_public(address) for address in addresses)


def parse_url(url: str) -> httpx.URL:
    try:
        read = httpx.URL(url)
        if read.host and (read.port is None or 0 < read.port < 65536):  # a bad host raises here
            return read
        why = "it needs a host and a valid port"
    except (httpx.InvalidURL, ValueError) as error:
        why = str(error)
    raise TransferError(f"{url[:200]} is no URL: {why}")


def url_origin(url: httpx.URL) -> UrlOrigin:
    """Return scheme, host and port, to which secrets belong."""
    return url.scheme, url.host, url.port


def host_of(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


def is_trusted_host(url: httpx.URL, trusted: tuple[str, ...]) -> bool:
    """Return whether the settings allow a host.

    >>> is_trusted_host(httpx.URL("https://cdn.example.org/x"), ("*.example.org",))
    True
    >>> is_trusted_host(httpx.URL("https://example.org.evil.net/x"), ("*.example.org",))
    False
    """
    names = {url.host.lower(), host_of(url).lower()}
    return not trusted or any(
        fnmatchcase(name, pattern.lower()) for name in names for pattern in trusted
    )
