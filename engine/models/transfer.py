"""Pulls, pushes and creations: their options, progress lines and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddock.engine.errors import EngineError, StoreFull


class TransferError(EngineError):
    """A pull or push that failed."""


class NotPublished(TransferError):
    """The server has no such model, file or blob."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}: file does not exist{f'. {advice}' if advice else ''}")


class HostUnreachable(TransferError):
    """No connection to a host could be made."""

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
    """The server answered with an error."""

    def __init__(self, host: str, status: int, why: str, advice: str | None = None) -> None:
        self.status = status
        advice = _status_advice(status) if advice is None else advice
        reason = f": {why.rstrip('.')}" if why else ""
        super().__init__(". ".join(filter(None, (f"{host} answered {status}{reason}", advice))))


class HostNotTrusted(TransferError):
    """The host is not among the trusted ones."""

    def __init__(self, host: str, trusted: Sequence[str]) -> None:
        self.host = host
        super().__init__(
            f"{host} is not among the trusted hosts ({', '.join(trusted)}). "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class NotEncrypted(TransferError):
    """The URL is http://, which was not allowed."""

    def __init__(self, url: str) -> None:
        super().__init__(f"insecure protocol http: {url} is not encrypted. {INSECURE_ADVICE}")


class RedirectsToPrivateHost(TransferError):
    """A public server redirects to a private network."""

    def __init__(self, before: str, host: str) -> None:
        self.host = host
        super().__init__(
            f"{before} redirects to {host}, which is this machine or in a private network. "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class ProxyUnusable(TransferError):
    """A proxy in the environment cannot be used."""

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


MIB = 1024 * 1024

# Only Ollama's registry identifies users by a signature.
OLLAMA_REGISTRIES = frozenset({"registry.ollama.ai", "ollama.com"})


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """User and password for a registry's token server."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """Options of one pull or push. Proxies come from the environment (`HTTPS_PROXY` and so on)."""

    insecure: bool = False
    """Use plain http for registries, and allow redirects to it."""
    trusted_hosts: tuple[str, ...] = ()
    """Allowed hosts, as `host`, `host:port` or `*.domain`; empty: every host."""
    accepts_paths: bool = False
    """Whether files of this machine may be imported; only for users of this machine."""
    is_offline: bool = False
    """Send nothing: only models on this machine exist."""
    prunes: bool = True
    """Remove the layers that only the replaced manifest needed."""
    keep: tuple[str, ...] = ()
    """Digests that are never removed."""
    credentials: Mapping[str, RegistryCredentials] | None = None
    """By registry's host; None: those of `docker login` or `podman login`."""
    ollama_key: Path | None = None
    """The key for Ollama's registry; None: `~/.ollama/id_ed25519`."""
    ollama_hosts: frozenset[str] = OLLAMA_REGISTRIES
    """The registries that require a signature by this key."""
    hub: str | None = None
    """Hugging Face's URL; None: `HF_ENDPOINT`, else huggingface.co."""
    n_parts: int = 4
    """Parts of one blob that are downloaded in parallel."""
    min_part_bytes: int = 64 * MIB
    """A smaller blob is downloaded in one part: another connection costs more than it saves."""
    push_bytes: int = 16 * MIB
    """Bytes of one upload request, all of which are sent again after a cut."""
    connect_s: float = 10.0
    stall_s: float = 30.0
    """A connection without data for so long is closed and opened again."""
    n_retries: int = 6
    """Failures in a row, without a byte between them, before the transfer fails."""
    first_wait_s: float = 0.5
    """Before the first retry; doubled each time, up to `longest_wait_s`."""
    longest_wait_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """One progress line; sizes in bytes."""

    status: str
    """In Ollama's words: `pulling manifest`, `writing manifest`, `success`, …"""
    digest: str = ""
    """`sha256:…` of the blob in transfer; empty: the line is not about one blob."""
    total: int | None = None
    completed: int | None = None


ReportProgress = Callable[[ProgressLine], None]
