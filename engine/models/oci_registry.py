"""Client of an OCI registry: manifests, blobs, and authentication.

Protocols: github.com/opencontainers/distribution-spec, `spec.md`, and
distribution.github.io/distribution/spec/auth/token. A token goes to the registry alone; a password
to the token server that the registry names.

Credentials are read as `docker login` and `podman login` write them; credential helpers are not
started, because that would run a foreign program. Ollama's registry wants a signature with
`~/.ollama/id_ed25519` (github.com/ollama/ollama, auth/auth.go, `Sign`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from .manifests import MANIFEST_TYPE, Manifest, parse_manifest
from .model_names import ModelName
from .transfer import NotEncrypted, NoUsableModel, RegistryCredentials, TransferRefused
from .transfer_client import TransferClient, check_response, host_of, parse_url, url_origin


def credential_files() -> list[Path]:
    """Return where such files lie, the most particular first."""
    found = [Path(os.environ[name]) for name in ("REGISTRY_AUTH_FILE",) if os.environ.get(name)]
    folder = os.environ.get("DOCKER_CONFIG")
    found.append((Path(folder) if folder else Path.home() / ".docker") / "config.json")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "containers" / "auth.json")
    return found


def read_credentials(files: Iterable[Path]) -> dict[str, RegistryCredentials]:
    """Return what these files know, by host; the first that knows a host counts."""
    known: dict[str, RegistryCredentials] = {}
    for file in files:
        for host, found in _read_credentials_file(file).items():
            known.setdefault(host, found)
    return known


def _read_credentials_file(file: Path) -> dict[str, RegistryCredentials]:
    try:
        auths = json.loads(file.read_text("utf-8"))["auths"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # nobody logged in, or a file of another kind
    read = {_host_of_entry(address): _decode_credentials(entry) for address, entry in auths}
    return {host: found for host, found in read.items() if found is not None}


def _host_of_entry(address: str) -> str:
    """Return the host of an entry: some are written as `https://host/v1/`."""
    return address.partition("://")[2].split("/")[0] if "://" in address else address.split("/")[0]


def _decode_credentials(entry: object) -> RegistryCredentials | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("auth"), str):
        return None
    try:
        text = base64.b64decode(entry["auth"], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, colon, password = text.partition(":")
    return RegistryCredentials(user, password.rstrip("\0")) if colon else None


def ollama_key_file() -> Path:
    """Return where Ollama keeps it."""
    return Path.home() / ".ollama" / "id_ed25519"


def sign_token_request(url: httpx.URL, file: Path) -> tuple[httpx.URL, str] | None:
    """Return the address to ask, marked with time and a number for this once, and the signature.

    None: there is no such key, so we are nobody.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_ssh_private_key,
    )

    try:
        key = load_ssh_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, Ed25519PrivateKey):
        return None
    nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    marked = url.copy_merge_params({"ts": str(int(time.time())), "nonce": nonce})
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    return (
        marked,
        f"{public.decode()}:{base64.b64encode(key.sign(signed_message(marked))).decode()}",
    )


def signed_message(url: httpx.URL) -> bytes:
    """Return what is signed: the method, the address, and the digest of an empty body."""
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    return f"GET,{url},{empty}".encode()


_CHALLENGE_PAIR = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class AuthChallenge:
    """What a 401 asks for."""

    realm: str
    service: str
    scopes: tuple[str, ...]


class RegistryAuth:
    """Who we are to one registry; see `connection.Auth`."""

    def __init__(self, connection: TransferClient, base: httpx.URL) -> None:
        self.header: str | None = None
        self.origin = url_origin(base)
        self._connection = connection
        self._base = base
        self._host = host_of(base)
        self._lock = asyncio.Lock()

    async def answer(self, response: httpx.Response) -> bool:
        """Get a token for this challenge; False: it asks for nothing that we have.

        Raises:
            Refused, Unreachable, Interrupted: the token server gave none.
        """
        async with self._lock:
            if response.request.headers.get("Authorization") != self.header:
                return True  # somebody else got a new one meanwhile
            asked = response.headers.get("www-authenticate", "")
            challenge = parse_challenge(asked)
            ours = await self._credentials()
            if challenge is not None:
                self.header = f"Bearer {await self._fetch(challenge, ours)}"
                return True
            if "basic" in asked.lower() and ours is not None and self.header is None:
                self.header = _basic_auth(ours)
                return True
            return False

    async def _credentials(self) -> RegistryCredentials | None:
        known = self._connection.options.credentials
        if known is None:
            known = await asyncio.to_thread(lambda: read_credentials(credential_files()))
        return known.get(self._host)

    async def _fetch(self, challenge: AuthChallenge, ours: RegistryCredentials | None) -> str:
        query: dict[str, list[str]] = {"service": [challenge.service]} if challenge.service else {}
        query["scope"] = list(challenge.scopes)
        try:
            url = httpx.URL(challenge.realm).copy_merge_params(query)
        except httpx.InvalidURL as error:
            raise TransferRefused(
                self._host, 401, f"its token server has no address: {error}"
            ) from error
        headers = {"Authorization": _basic_auth(ours)} if ours is not None else {}
        options = self._connection.options
        if ours is None and self._host in options.ollama_hosts:
            file = options.ollama_key or ollama_key_file()
            url, signature = await asyncio.to_thread(sign_token_request, url, file) or (url, None)
            headers = {"Authorization": signature} if signature else {}
        response = await self._connection.read(
            "GET", str(url), headers=headers, named_by=self._base
        )
        check_response(response, f"token of {self._host}")
        try:
            told = response.json()
            return str(told.get("token") or told["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise TransferRefused(self._host, 401, "its token server gave no token") from error


def parse_challenge(header: str) -> AuthChallenge | None:
    """Read `Bearer realm="…",service="…",scope="…"`; None: there is none.

    >>> parse_challenge('Bearer realm="https://a/t",service="r",scope="repository:x/y:pull"')
    Challenge(realm='https://a/t', service='r', scopes=('repository:x/y:pull',))
    >>> parse_challenge('Basic realm="x"')
    """
    at = header.lower().find("bearer ")
    if at < 0:
        return None
    told = dict(_CHALLENGE_PAIR.findall(header[at:]))
    if not told.get("realm"):
        return None
    return AuthChallenge(
        told["realm"], told.get("service", ""), tuple(told.get("scope", "").split())
    )


def _basic_auth(ours: RegistryCredentials) -> str:
    pair = f"{ours.user}:{ours.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


# Registries that convert offer both; the models' own form is the first.
_ACCEPTED_TYPES = f"{MANIFEST_TYPE}, application/vnd.oci.image.manifest.v1+json;q=0.5"

_MAX_MANIFEST_BYTES = 4 * 1024 * 1024


class RegistryClient:
    """One model's place in one registry."""

    def __init__(self, connection: TransferClient, name: ModelName) -> None:
        """Find the place; asks nobody.

        Raises:
            NotEncrypted: the name says http://, and that was not allowed.
            TransferError: its host cannot be one.
        """
        if name.scheme == "http" and not connection.options.insecure:
            raise NotEncrypted(f"http://{name.host}")
        scheme = "http" if connection.options.insecure and name.scheme != "https" else "https"
        self.connection = connection
        self.name = name
        self.repository = f"{name.namespace}/{name.model}"
        self.base = f"{scheme}://{name.host}/v2/{self.repository}"
        self.auth = RegistryAuth(connection, parse_url(self.base))

    @property
    def manifest_url(self) -> str:
        """Where the model's manifest is."""
        return f"{self.base}/manifests/{self.name.tag}"

    def blob_url(self, digest: str) -> str:
        """Where a blob is."""
        return f"{self.base}/blobs/{digest}"

    async def manifest(self) -> Manifest:
        """Ask for the model's manifest.

        Raises:
            NotPublished: there is no such model.
            Refused, Unreachable, Interrupted: no answer, or a no.
            Unusable: what came is no manifest.
        """
        response = await self.connection.read(
            "GET", self.manifest_url, headers={"Accept": _ACCEPTED_TYPES}, auth=self.auth
        )
        check_response(response, "pull model manifest")
        if len(response.content) > _MAX_MANIFEST_BYTES:
            raise NoUsableModel(self.manifest_url, "too large for a manifest")
        try:
            return parse_manifest(response.content)
        except ValueError as error:
            raise NoUsableModel(self.manifest_url, f"no manifest of a model: {error}") from None

    async def put_manifest(self, manifest: Manifest) -> None:
        """Publish the model: from now on it is what its tag means.

        Raises:
            Refused, Unreachable, Interrupted: it was not published.
        """
        response = await self.connection.read(
            "PUT",
            self.manifest_url,
            headers={"Content-Type": MANIFEST_TYPE},
            content=manifest.raw,
            auth=self.auth,
        )
        check_response(response, f"{self.name.host}/{self.repository}")

    async def has_blob(self, digest: str) -> bool:
        """Return whether the registry has a blob in this repository.

        Raises:
            Refused, Unreachable, Interrupted: it cannot be told.
        """
        response = await self.connection.read(
            "HEAD", self.blob_url(digest), auth=self.auth, is_verified=True
        )
        if response.status_code == 404:
            return False
        check_response(response, digest)
        return True
