"""Errors of pulls and pushes: a registry's 404, a refusal, a host that is away, a full disk."""

from __future__ import annotations

import json
from collections.abc import Sequence

import httpx

from paddock.engine.errors import EngineError, StoreFull


class TransferError(EngineError):
    """A pull or push that failed."""


class NotPublished(TransferError):
    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}: file does not exist{f'. {advice}' if advice else ''}")


class HostUnreachable(TransferError):
    def __init__(self, host: str, why: str, advice: str = "") -> None:
        self.host = host
        self.why = why
        self.advice = advice or PROXY_ADVICE
        super().__init__(f"{host} cannot be reached: {why}. {self.advice}")


PROXY_ADVICE = "Behind a proxy, set HTTPS_PROXY."
OFFLINE_ADVICE = (
    "Behind a proxy, set HTTPS_PROXY; without a network, copy the GGUF file here and run "
    "`paddock pull ./file.gguf`."
)
INSECURE_ADVICE = 'Use `--insecure` (`"insecure": true`) if you trust every machine on the way.'


class TransferInterrupted(TransferError):
    """Connections broke or stalled too often; what arrived is kept."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        super().__init__(
            f"the connection to {host} broke too often: {why}. "
            f"Try again; it continues where it stopped."
        )


class TransferRefused(TransferError):
    def __init__(self, host: str, status: int, why: str, advice: str | None = None) -> None:
        self.status = status
        advice = _status_advice(status) if advice is None else advice
        reason = f": {why.rstrip('.')}" if why else ""
        super().__init__(". ".join(filter(None, (f"{host} answered {status}{reason}", advice))))


class HostNotTrusted(TransferError):
    def __init__(self, host: str, trusted: Sequence[str]) -> None:
        self.host = host
        super().__init__(
            f"{host} is not among the trusted hosts ({', '.join(trusted)}). "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class NotEncrypted(TransferError):
    def __init__(self, url: str) -> None:
        super().__init__(f"insecure protocol http: {url} is not encrypted. {INSECURE_ADVICE}")


class RedirectsToPrivateHost(TransferError):
    def __init__(self, before: str, host: str) -> None:
        self.host = host
        super().__init__(
            f"{before} redirects to {host}, which is this machine or in a private network. "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class ProxyUnusable(TransferError):
    def __init__(self, why: str) -> None:
        super().__init__(
            f"a proxy in the environment cannot be used: {why}. "
            f"Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; http:// and https:// proxies work."
        )


class NoUsableModel(TransferError):
    """The source is no model for llama.cpp; says why."""

    def __init__(self, what: str, why: str) -> None:
        self.why = why
        super().__init__(f"{what}: {why}")


class SourceChanged(TransferError):
    """A file changed during its download, so its parts do not fit together."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url} changed while it was downloaded. Try again.")


class NotEnoughDiskSpace(StoreFull):
    """The disk has too little free space for a model; nothing was downloaded."""

    def __init__(self, path: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(path, free_bytes)
        self.needed_bytes = needed_bytes
        self.args = (
            f"{path} has {free_bytes / 1e9:.1f} GB free, but {needed_bytes / 1e9:.1f} GB are "
            f"needed. Free some space, or set PADDOCK_MODELS to another disk.",
        )


class DiskRanFull(StoreFull):
    """The disk became full during a download; what arrived is kept."""

    def __init__(self, path: str, free_bytes: int) -> None:
        super().__init__(path, free_bytes)
        self.args = (
            f"no space left in {path} ({free_bytes / 1e9:.1f} GB free). What arrived is kept: "
            f"free some space and try again, or set PADDOCK_MODELS to another disk.",
        )


def _status_advice(status: int) -> str:
    if status in (401, 403):
        return (
            "Log in to that host with `docker login` or `podman login`, and check that you may "
            "read or write this model."
        )
    return "There were too many requests; wait a while." if status == 429 else ""


_MAX_SENTENCE_CHARS = 300


def check_response(response: httpx.Response, what: str) -> None:
    """Raise an error unless the status is 2xx; its body must have been read.

    Raises:
        NotPublished: 404, 410.
        TransferRefused: any other status.
    """
    if response.status_code in (404, 410):
        raise NotPublished(what)
    if not response.is_success:
        host = response.url.netloc.decode("ascii")
        text = response.content.decode("utf-8", "replace")  # servers name any encoding
        raise TransferRefused(host, response.status_code, error_sentence(text))


def error_sentence(text: str) -> str:
    """Return the message in an error's body: JSON of a registry, or a line; empty for HTML.

    >>> error_sentence('{"errors":[{"code":"DENIED","message":"not yours"}]}')
    'not yours'
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return (
            ""
            if "<" in text
            else " ".join(text[: 4 * _MAX_SENTENCE_CHARS].split())[:_MAX_SENTENCE_CHARS]
        )
    try:
        first = value["errors"][0] if "errors" in value else value
        message = first.get("message") or first.get("error") or first.get("details") or ""
    except (LookupError, TypeError, AttributeError):
        return ""
    return str(message)[:_MAX_SENTENCE_CHARS]
