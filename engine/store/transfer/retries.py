"""Decide after a failure: wait and try again, or say in plain words what is wrong.

Knows no requests. Progress forgives earlier failures, so a long download over a bad line ends,
while a server that gives nothing is left after some tries.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping

import httpx

from .errors import SPEAKS_NO_TLS, Interrupted, TransferError, Unreachable
from .options import TransferOptions

# What may pass by itself: a timeout, too early, too often, and the server's own troubles.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses."""

_LONGEST_ASKED_S = 60.0  # who wants us to wait for longer is answered with an error

# What OpenSSL says of a server that answered in plain text.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")

# A machine without a network should know it within seconds, not after every retry.
_N_FIRST_TRIES = 3


class Retries:
    """The failures of one conversation with one host."""

    def __init__(self, host: str, options: TransferOptions, *, was_there: bool = False) -> None:
        self.host = host
        self.n_failures = 0
        self._options = options
        self._was_there = was_there
        """Whether the host is known to exist, so that not reaching it now will pass."""

    def forgive(self) -> None:
        """Note that something arrived."""
        self.n_failures = 0
        self._was_there = True

    async def wait(self, error: httpx.HTTPError) -> None:
        """Wait before the next try.

        Raises:
            Unreachable, Interrupted: there is to be no next try.
        """
        self.n_failures += 1
        never_met = _is_about_meeting(error) and not self._was_there
        if not isinstance(error, httpx.TransportError) or _is_final(error):
            raise plain(error, self.host, self._options) from error
        if self.n_failures > (_N_FIRST_TRIES - 1 if never_met else self._options.n_retries):
            raise plain(error, self.host, self._options) from error
        await asyncio.sleep(backoff_s(self.n_failures, self._options))

    async def wait_for(self, response: httpx.Response, *, is_passing: bool | None = None) -> bool:
        """Wait if this answer may become another one; False: it stands.

        `is_passing`: whether it may; None: by its status.
        """
        if is_passing is None:
            is_passing = response.status_code in PASSING
        if not is_passing or self.n_failures >= self._options.n_retries:
            return False
        self.n_failures += 1
        await asyncio.sleep(
            max(backoff_s(self.n_failures, self._options), asked_s(response.headers))
        )
        return True


def backoff_s(n_failures: int, options: TransferOptions) -> float:
    """Tell how long to wait after so many failures in a row (1: the first).

    >>> [backoff_s(n, TransferOptions()) for n in (1, 2, 3, 9)]
    [0.5, 1.0, 2.0, 10.0]
    """
    return float(min(options.first_wait_s * 2.0 ** (n_failures - 1), options.longest_wait_s))


def asked_s(headers: Mapping[str, str]) -> float:
    """Tell how long a server wants us to wait (`Retry-After` in seconds); 0: it does not say.

    >>> asked_s({"retry-after": "3"}), asked_s({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})
    (3.0, 0.0)
    """
    value = headers.get("retry-after", "").strip()
    return min(float(value), _LONGEST_ASKED_S) if value.isdecimal() else 0.0


def plain(error: httpx.HTTPError, host: str, options: TransferOptions) -> TransferError:
    """Say what happened as a person would."""
    text = str(error).strip()
    if isinstance(error, httpx.ProxyError):
        return Unreachable(host, f"the proxy said: {text}")
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(host, f"no answer within {options.connect_s:g} s")
    if any(word in text for word in _NO_TLS):
        return Unreachable(host, "it does not speak TLS", SPEAKS_NO_TLS)
    if isinstance(error, httpx.ConnectError):
        return Unreachable(host, _refusal(error, text))
    if isinstance(error, httpx.TimeoutException):
        return Interrupted(host, f"nothing came for {options.stall_s:g} s")
    return Interrupted(host, text or "the connection was cut")


def _refusal(error: httpx.ConnectError, text: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"its certificate is not trusted ({text}); a company's own authority goes into the "
            f"file that SSL_CERT_FILE names"
        )
    cause = _errno(error)
    if cause == errno.ECONNREFUSED or "All connection attempts failed" in text:
        return "nobody listens there"
    return text.partition("] ")[2] if text.startswith("[Errno") else text or "no connection"


def _errno(error: BaseException) -> int | None:
    """Give the system's number behind an error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return None


def _is_about_meeting(error: httpx.HTTPError) -> bool:
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))


def _is_final(error: httpx.HTTPError) -> bool:
    """Tell whether no waiting can help."""
    return isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)) or (
        any(word in str(error) for word in ("CERTIFICATE_VERIFY_FAILED", *_NO_TLS))
    )
