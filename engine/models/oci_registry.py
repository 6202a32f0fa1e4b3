"""Client of an OCI registry: manifests and blobs; `registry_login` answers its challenges.

Protocol: github.com/opencontainers/distribution-spec, `spec.md`.
"""

from __future__ import annotations

from .manifests import MANIFEST_TYPE, Manifest, parse_manifest
from .model_names import ModelName
from .registry_login import RegistryAuth
from .transfer_client import TransferClient, TransferRequest, parse_url
from .transfer_errors import NotEncrypted, NoUsableModel, check_response

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
