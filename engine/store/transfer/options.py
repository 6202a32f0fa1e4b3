"""How models are brought and sent: plain values, read elsewhere and passed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024

# Ollama's registry and no other: a signature tells who we are.
OLLAMA_HOSTS = frozenset({"registry.ollama.ai", "ollama.com"})


@dataclass(frozen=True, slots=True)
class Credentials:
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
    credentials: Mapping[str, Credentials] | None = None
    """By registry's host; None: what `docker login` or `podman login` left on this machine."""
    ollama_key: Path | None = None
    """What Ollama's own registry knows us by; None: `~/.ollama/id_ed25519`."""
    ollama_hosts: frozenset[str] = OLLAMA_HOSTS
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
