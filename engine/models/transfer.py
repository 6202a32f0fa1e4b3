"""Pulls, pushes and creations: their options and progress lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from paddock.engine.system.records import SelectiveFields, Struct

MIB = 1024 * 1024
# Only Ollama's registry identifies users by a signature.
OLLAMA_REGISTRIES = frozenset({"registry.ollama.ai", "ollama.com"})


class RegistryCredentials(SelectiveFields, Struct, frozen=True):
    """User and password for a registry's token server."""

    hidden = ("password",)

    user: str
    password: str


class TransferOptions(Struct, frozen=True):
    """Options of one pull or push. Proxies come from the environment (`HTTPS_PROXY` and so on)."""

    insecure: bool = False
    """Use plain http for registries, and allow redirects to it."""
    trusted_hosts: tuple[str, ...] = ()
    accepts_paths: bool = False
    """Whether files of this machine may be imported; only for users of this machine."""
    is_offline: bool = False
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


class ProgressLine(Struct, frozen=True):
    """One progress line; sizes in bytes."""

    status: str
    """In Ollama's words: `pulling manifest`, `writing manifest`, `success`, …"""
    digest: str = ""
    """`sha256:…` of the blob in transfer; empty: the line is not about one blob."""
    total: int | None = None
    completed: int | None = None


ReportProgress = Callable[[ProgressLine], None]
