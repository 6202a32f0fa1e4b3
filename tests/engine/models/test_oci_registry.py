import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from paddock.engine.models.oci_registry import (
    credential_files,
    parse_challenge,
    read_credentials,
    signed_message,
)
from paddock.engine.models.transfer import RegistryCredentials
from tests.engine.models.pulling import a_store, named, pulled
from tests.fakes.far_side import FarSide, far_side, gguf


@pytest.fixture
def far() -> Iterator[FarSide]:
    with far_side() as side:
        side.token = "t"
        side.publish("team/mini", "v1", model=gguf(3_000))
        yield side


def test_ollamas_registry_is_told_who_we_are_by_ollamas_own_key(
    far: FarSide, tmp_path: Path
) -> None:
    key = Ed25519PrivateKey.generate()
    file = tmp_path / "id_ed25519"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    store = a_store(tmp_path)
    pulled(store, named(far), ollama_key=file, ollama_hosts=frozenset({far.host}))
    request = far.asked("/token")[0]
    public, signature = request.headers["authorization"].split(":")
    ours = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert public == ours.decode().split()[1]
    url = httpx.URL(far.url + request.target)
    assert {"ts", "nonce", "service", "scope"} <= set(url.params)
    key.public_key().verify(
        base64.b64decode(signature), signed_message(url)
    )  # raises if it is wrong


def test_other_registries_get_no_signature(far: FarSide, tmp_path: Path) -> None:
    pulled(a_store(tmp_path), named(far), ollama_key=tmp_path / "none")
    assert "authorization" not in far.asked("/token")[0].headers


def test_what_a_login_left_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    auths = {"reg.example:5000": entry("anna:a:b"), "https://old.example/v1/": entry("bert:x")}
    auths |= {"helper.example": {}, "bad.example": {"auth": "%"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    known = read_credentials(credential_files())
    assert known["reg.example:5000"] == RegistryCredentials("anna", "a:b")
    assert known["old.example"] == RegistryCredentials("bert", "x")
    assert not {"helper.example", "bad.example"} & set(known)
    assert "a:b" not in repr(known)


@pytest.mark.parametrize("header", ["", "Basic realm=x", "Bearer", "Bearer service=x", "Negotiate"])
def test_a_challenge_that_is_none_is_none(header: str) -> None:
    assert parse_challenge(header) is None
