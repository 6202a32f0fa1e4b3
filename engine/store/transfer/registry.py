"""Speak with a registry of models: manifests and blobs under names, as Ollama's server does.

The protocol is the containers' (github.com/opencontainers/distribution-spec, `spec.md`).
"""

from __future__ import annotations

from paddock.engine.store.manifests import MANIFEST, Manifest, parse_manifest
from paddock.engine.store.names import ModelName

from .answers import check_answer
from .connection import Connection, address
from .errors import NotEncrypted, Unusable
from .tokens import Tokens

# Registries that convert offer both; the models' own form is the first.
_ACCEPTED = f"{MANIFEST}, application/vnd.oci.image.manifest.v1+json;q=0.5"

_MAX_MANIFEST_BYTES = 4 * 1024 * 1024


class Registry:
    """One model's place in one registry."""

    def __init__(self, connection: Connection, name: ModelName) -> None:
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
        self.auth = Tokens(connection, address(self.base))

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
            "GET", self.manifest_url, headers={"Accept": _ACCEPTED}, auth=self.auth
        )
        check_answer(response, "pull model manifest")
        if len(response.content) > _MAX_MANIFEST_BYTES:
            raise Unusable(self.manifest_url, "too large for a manifest")
        try:
            return parse_manifest(response.content)
        except ValueError as error:
            raise Unusable(self.manifest_url, f"no manifest of a model: {error}") from None

    async def put_manifest(self, manifest: Manifest) -> None:
        """Publish the model: from now on it is what its tag means.

        Raises:
            Refused, Unreachable, Interrupted: it was not published.
        """
        response = await self.connection.read(
            "PUT",
            self.manifest_url,
            headers={"Content-Type": MANIFEST},
            content=manifest.raw,
            auth=self.auth,
        )
        check_answer(response, f"{self.name.host}/{self.repository}")

    async def has_blob(self, digest: str) -> bool:
        """Tell whether the registry has a blob in this repository.

        Raises:
            Refused, Unreachable, Interrupted: it cannot be told.
        """
        response = await self.connection.read(
            "HEAD", self.blob_url(digest), auth=self.auth, is_verified=True
        )
        if response.status_code == 404:
            return False
        check_answer(response, digest)
        return True
