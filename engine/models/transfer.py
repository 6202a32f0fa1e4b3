"""Pulls, pushes and creations: options, progress lines, and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddock.engine.errors import EngineError, StoreFull


class TransferError(EngineError):
    """A pull or a push that could not be done."""


class NotPublished(TransferError):
    """The other side has no such model, file or blob."""

    def __init__(self, what: str, advice: str = "") -> None:
        self.what = what
        super().__init__(f"{what}: file does not exist{f'. {advice}' if advice else ''}")


class HostUnreachable(TransferError):
    """No connection to a host could be made at all."""

    def __init__(self, host: str, why: str, advice: str = "") -> None:
        self.host = host
        self.why = why
        self.advice = advice or PROXY_ADVICE
        super().__init__(f"{host} cannot be reached: {why}. {self.advice}")


PROXY_ADVICE = "Behind a proxy, set HTTPS_PROXY."
OFFLINE_ADVICE = (
    "Behind a proxy, set HTTPS_PROXY; without a network, bring the GGUF file here and "
    "`paddock pull ./file.gguf`."
)
INSECURE_ADVICE = 'Say `--insecure` (`"insecure": true`) if you trust every machine on the way.'


class TransferInterrupted(TransferError):
    """Connections were made and cut, or stood still, too often; what arrived is kept."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        self.why = why
        super().__init__(
            f"the connection to {host} broke off too often: {why}. "
            f"Do it again, and it goes on from where it stopped."
        )


class TransferRefused(TransferError):
    """The other side answered, and said no."""

    def __init__(self, host: str, status: int, said: str, advice: str | None = None) -> None:
        self.host = host
        self.status = status
        self.said = said
        way_out = _status_advice(status) if advice is None else advice
        super().__init__(
            ". ".join(filter(None, (f"{host} answered {status}{_sentence_after(said)}", way_out)))
        )


class HostNotTrusted(TransferError):
    """A host that the settings do not name."""

    def __init__(self, host: str, trusted: Sequence[str]) -> None:
        self.host = host
        self.trusted = tuple(trusted)
        super().__init__(
            f"{host} is not among the trusted hosts ({', '.join(self.trusted)}). "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class NotEncrypted(TransferError):
    """Plain http, without leave."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"insecure protocol http: {url} is not encrypted. Say `--insecure` "
            f'(`"insecure": true`) if you trust every machine on the way.'
        )


class RedirectsToPrivateHost(TransferError):
    """A public server names one of a private network, where nothing is to be had for it."""

    def __init__(self, before: str, host: str) -> None:
        self.before = before
        self.host = host
        super().__init__(
            f"{before} leads to {host}, which is this machine or in a private network. "
            f"Add it to PADDOCK_TRUSTED_HOSTS if you trust it."
        )


class ProxyUnusable(TransferError):
    """The environment names a proxy that cannot be used."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"a proxy that the environment names cannot be used: {why}. "
            f"Look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; http:// and https:// proxies work."
        )


class NoUsableModel(TransferError):
    """Something was found that is no model for llama.cpp, and why."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = why
        super().__init__(f"{what}: {why}")


class SourceChanged(TransferError):
    """A file changed while it was brought, so its parts do not belong together."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"{url} changed while it was downloaded. Do it again.")


class NotEnoughDiskSpace(StoreFull):
    """The disk has less room than a model needs; nothing was begun."""

    def __init__(self, path: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(path, free_bytes)
        self.needed_bytes = needed_bytes
        self.args = (
            f"{path} has {free_bytes / 1e9:.1f} GB free, and {needed_bytes / 1e9:.1f} GB are to "
            f"come. Make room, or set PADDOCK_MODELS to another disk.",
        )


class DiskRanFull(StoreFull):
    """The disk was full in the middle; what arrived is kept for when there is room."""

    def __init__(self, path: str, free_bytes: int) -> None:
        super().__init__(path, free_bytes)
        self.args = (
            f"no room left in {path} ({free_bytes / 1e9:.1f} GB free). What arrived is kept: "
            f"make room and do it again, or set PADDOCK_MODELS to another disk.",
        )


def _sentence_after(said: str) -> str:
    return f": {said.rstrip('.')}" if said else ""


def _status_advice(status: int) -> str:
    if status in (401, 403):
        return (
            "It wants to know who asks: `docker login` or `podman login` to that host, and see "
            "that you may read or write this model."
        )
    return "It was asked too often; wait a while." if status == 429 else ""


MIB = 1024 * 1024

# Ollama's registry and no other: a signature tells who we are.
OLLAMA_REGISTRIES = frozenset({"registry.ollama.ai", "ollama.com"})


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """What a registry's token server is told of who asks."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """One pull or push. Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`, …)."""

    insecure: bool = False
    """Speak to registries by plain http, and follow redirects to it."""
    trusted_hosts: tuple[str, ...] = ()
    """Hosts that may be asked, as `host`, `host:port` or `*.domain`; empty: every host."""
    accepts_paths: bool = False
    """Whether a file of this machine may be taken; only for those who sit at it."""
    is_offline: bool = False
    """Ask nobody: what is here is there, the rest does not exist."""
    prunes: bool = True
    """Remove the layers that only the replaced manifest used."""
    keep: tuple[str, ...] = ()
    """Digests that are never removed, whoever names them."""
    credentials: Mapping[str, RegistryCredentials] | None = None
    """By registry's host; None: what `docker login` or `podman login` left on this machine."""
    ollama_key: Path | None = None
    """What Ollama's own registry knows us by; None: `~/.ollama/id_ed25519`."""
    ollama_hosts: frozenset[str] = OLLAMA_REGISTRIES
    """The registries that want such a key's signature."""
    hub: str | None = None
    """Hugging Face's address; None: `HF_ENDPOINT`, else huggingface.co."""
    n_parts: int = 4
    """Of one blob, brought at once."""
    min_part_bytes: int = 64 * MIB
    """A smaller blob comes in one piece: a second connection would not be worth its handshake."""
    push_bytes: int = 16 * MIB
    """Of one request, when a blob is sent: so much is sent again after a cut."""
    connect_s: float = 10.0
    stall_s: float = 30.0
    """A connection that brings nothing for so long is cut and made again."""
    n_retries: int = 6
    """Failures in a row, without one byte between them, before it is given up."""
    first_wait_s: float = 0.5
    """Before the first retry; it doubles each time, up to `longest_wait_s`."""
    longest_wait_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """One line. Sizes are bytes."""

    status: str
    """In Ollama's words: `pulling manifest`, `writing manifest`, `success`, …"""
    digest: str = ""
    """`sha256:…` of what is being moved; empty: the line is not about one blob."""
    total: int | None = None
    completed: int | None = None


ReportProgress = Callable[[ProgressLine], None]
