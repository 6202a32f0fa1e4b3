from __future__ import annotations

import hashlib
import json

import pytest

from paddock.engine.models.manifests import (
    CONFIG_TYPE,
    LICENSE_TYPE,
    MODEL_TYPE,
    ManifestLayer,
    go_json,
    make_manifest,
    parse_manifest,
)

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def test_a_manifest_is_written_byte_for_byte_as_ollama_does() -> None:
    made = make_manifest(
        ManifestLayer(CONFIG_TYPE, A, 3), [ManifestLayer(MODEL_TYPE, B, 5, "smol:latest")]
    )
    assert made.raw.decode() == (
        '{"schemaVersion":2,'
        '"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        '"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
        f'"digest":"{A}","size":3}},'
        '"layers":[{"mediaType":"application/vnd.ollama.image.model",'
        f'"digest":"{B}","size":5,"from":"smol:latest"}}]}}\n'
    )
    assert made.digest == hashlib.sha256(made.raw).hexdigest()


def test_what_was_written_is_read_back() -> None:
    made = make_manifest(
        ManifestLayer(CONFIG_TYPE, A, 3),
        [ManifestLayer(MODEL_TYPE, B, 5), ManifestLayer(LICENSE_TYPE, C, 7)],
    )
    assert parse_manifest(made.raw) == made
    assert made.size_bytes == 15
    assert made.first_of(LICENSE_TYPE) == ManifestLayer(LICENSE_TYPE, C, 7)
    assert made.first_of("none") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"{}", b'{"layers":{}}', b'{"layers":[1]}', b'{"layers":[{}]}',
        b'{"layers":[{"digest":"x","size":-1}]}', b'{"layers":[{"digest":"x","size":"1"}]}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_with_the_reason(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it |^a layer|is not a layer"):
        parse_manifest(raw)


def test_json_is_escaped_as_go_does() -> None:
    assert go_json({"a": "<&>\u2028"}) == b'{"a":"\\u003c\\u0026\\u003e\\u2028"}\n'
    assert json.loads(go_json({"a": "<&>\u2028é"})) == {"a": "<&>\u2028é"}
