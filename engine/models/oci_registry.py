"""Client of an OCI registry: manifests, blobs, login.

Protocol: github.com/opencontainers/distribution-spec, `spec.md`, and
distribution.github.io/distribution/spec/auth/token. A token is sent to the registry only, a
password to the token server that the registry names. Credentials are those of `docker login` and
`podman login`; credential helpers are not started, because they are arbitrary programs. Ollama's
registry requires a signature with `~/.ollama/id_ed25519` (github.com/ollama/ollama, auth/auth.go,
`Sign`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from paddock.engine.system import http
from paddock.engine.system.records import Struct

from .manifests import MANIFEST_TYPE, Manifest, parse_manifest
from .model_names import ModelName
from .transfer import RegistryCredentials
from .transfer_client import TransferClient, TransferRequest, host_of, parse_url, url_origin
from .transfer_errors import NotEncrypted, NoUsableModel, TransferRefused, check_response

# Registries that convert manifests offer both; Docker's form is preferred.
_ACCEPTED_TYPES = f"{MANIFEST_TYPE}, application/vnd.oci.image.manifest.v1+json;q=0.5"

_MAX_MANIFEST_BYTES = 4 * 1024 * 1024


class RegistryClient:
    """One model in one registry.

    Requests raise TransferRefused, HostUnreachable or TransferInterrupted.
    """

    def __init__(self, connection: TransferClient, name: ModelName) -> None:
        """Build the model's URLs; sends nothing.

        Raises:
            NotEncrypted: the name begins with http://, which is not allowed.
            TransferError: its host is invalid.
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
        return f"{self.base}/manifests/{self.name.tag}"

    def blob_url(self, digest: str) -> str:
        return f"{self.base}/blobs/{digest}"

    async def manifest(self) -> Manifest:
        """Return the model's manifest.

        Raises:
            NotPublished: there is no such model.
            NoUsableModel: the response is no manifest.
        """
        headers = {"Accept": _ACCEPTED_TYPES}
        request = TransferRequest("GET", self.manifest_url, headers, auth=self.auth)
        response = await self.connection.read(request)
        check_response(response, "pull model manifest")
        if len(response.content) > _MAX_MANIFEST_BYTES:
            raise NoUsableModel(self.manifest_url, "too large for a manifest")
        try:
            return parse_manifest(response.content)
        except ValueError as error:
            raise NoUsableModel(self.manifest_url, f"no manifest of a model: {error}") from None

    async def put_manifest(self, manifest: Manifest) -> None:
        headers = {"Content-Type": MANIFEST_TYPE}
        request = TransferRequest("PUT", self.manifest_url, headers, manifest.raw, self.auth)
        response = await self.connection.read(request)
        check_response(response, f"{self.name.host}/{self.repository}")

    async def has_blob(self, digest: str) -> bool:
        url = self.blob_url(digest)
        request = TransferRequest("HEAD", url, auth=self.auth, is_verified=True)
        response = await self.connection.read(request)
        if response.status_code == 404:
            return False
        check_response(response, digest)
        return True


def credential_files() -> list[Path]:
    found = [Path(os.environ[name]) for name in ("REGISTRY_AUTH_FILE",) if os.environ.get(name)]
    folder = os.environ.get("DOCKER_CONFIG")
    found.append((Path(folder) if folder else Path.home() / ".docker") / "config.json")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "containers" / "auth.json")
    return found


def read_credentials(files: Iterable[Path]) -> dict[str, RegistryCredentials]:
    """Return the credentials by their hosts; of several for one, those of the first file count."""
    known: dict[str, RegistryCredentials] = {}
    for file in files:
        found: dict[str, RegistryCredentials] = {}
        # No login, or a file of another kind
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            for address, entry in json.loads(file.read_text("utf-8"))["auths"].items():
                with suppress(ValueError, KeyError, TypeError, AttributeError):  # in a helper
                    text = base64.b64decode(entry["auth"], validate=True).decode("utf-8")
                    user, colon, password = text.partition(":")
                    # An address may be a URL such as `https://host/v1/`.
                    host = address.split("://")[-1].split("/")[0]
                    if colon:
                        found[host] = RegistryCredentials(user, password.rstrip("\0"))
        known = {**found, **known}
    return known


def sign_token_request(url: httpx.URL, file: Path) -> tuple[httpx.URL, str] | None:
    """Return a token server's URL with time and nonce, and its signature; None: no key."""
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
    """Return the signed text: the method, the URL, and the digest of an empty body."""
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    return f"GET,{url},{empty}".encode()


_CHALLENGE_PAIR = re.compile(r'(\w+)="([^"]*)"')


class AuthChallenge(Struct, frozen=True):
    realm: str
    service: str
    scopes: tuple[str, ...]


class RegistryAuth:
    """Authorization for one registry; see `transfer_client.HostAuth`."""

    def __init__(self, connection: TransferClient, base: httpx.URL) -> None:
        self.header: str | None = None
        self.origin = url_origin(base)
        self._connection = connection
        self._base = base
        self._host = host_of(base)
        self._lock = asyncio.Lock()

    async def answer(self, response: httpx.Response) -> bool:
        async with self._lock:
            if response.request.headers.get("Authorization") != self.header:
                return True  # another request got a new token meanwhile
            offered = response.headers.get("www-authenticate", "")
            challenge = parse_challenge(offered)
            known = self._connection.options.credentials
            if known is None:
                known = await asyncio.to_thread(lambda: read_credentials(credential_files()))
            credentials = known.get(self._host)
            if challenge is not None:
                self.header = f"Bearer {await self._fetch_token(challenge, credentials)}"
                return True
            if "basic" in offered.lower() and credentials is not None and self.header is None:
                self.header = _basic_auth(credentials)
                return True
            return False

    async def _fetch_token(
        self, challenge: AuthChallenge, credentials: RegistryCredentials | None
    ) -> str:
        query: dict[str, list[str]] = {"service": [challenge.service]} if challenge.service else {}
        query["scope"] = list(challenge.scopes)
        try:
            url = httpx.URL(challenge.realm).copy_merge_params(query)
        except httpx.InvalidURL as error:
            raise TransferRefused(
                self._host, 401, f"its token server has no address: {error}"
            ) from error
        headers = {"Authorization": _basic_auth(credentials)} if credentials is not None else {}
        options = self._connection.options
        if credentials is None and self._host in options.ollama_hosts:
            file = options.ollama_key or Path.home() / ".ollama" / "id_ed25519"
            url, signature = await asyncio.to_thread(sign_token_request, url, file) or (url, None)
            headers = {"Authorization": signature} if signature else {}
        request = TransferRequest("GET", str(url), headers, named_by=self._base)
        response = await self._connection.read(request)
        check_response(response, f"token of {self._host}")
        value = http.json_object(response.content) or {}
        token = value.get("token") or value.get("access_token")
        if not token:
            raise TransferRefused(self._host, 401, "its token server gave no token")
        return str(token)


def parse_challenge(header: str) -> AuthChallenge | None:
    """Parse `Bearer realm="…",service="…",scope="…"`; None: it is no such challenge.

    >>> parse_challenge('Bearer realm="https://a/t",service="r",scope="repository:x/y:pull"')
    AuthChallenge(realm='https://a/t', service='r', scopes=('repository:x/y:pull',))
    >>> parse_challenge('Basic realm="x"')
    """
    at = header.lower().find("bearer ")
    if at < 0:
        return None
    pairs = dict(_CHALLENGE_PAIR.findall(header[at:]))
    if not pairs.get("realm"):
        return None
    return AuthChallenge(
        pairs["realm"], pairs.get("service", ""), tuple(pairs.get("scope", "").split())
    )


def _basic_auth(credentials: RegistryCredentials) -> str:
    pair = f"{credentials.user}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
