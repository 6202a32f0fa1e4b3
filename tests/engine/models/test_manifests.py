import hashlib
import json
from pathlib import Path

import pytest

from paddock.engine.errors import ModelBroken
from paddock.engine.models.manifests import (
    CONFIG_TYPE,
    MESSAGES_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    SYSTEM_TYPE,
    Manifest,
    ManifestLayer,
    ModelConfig,
    StoredModel,
    go_json,
    make_manifest,
    parse_config,
    parse_manifest,
    read_stored_model,
)
from paddock.engine.models.model_store import ModelStore

A, B = (f"sha256:{letter * 64}" for letter in "ab")


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


def manifest_of(store: ModelStore, *parts: tuple[str, bytes]) -> Manifest:
    layers = [ManifestLayer(kind, store.blobs.add(raw), len(raw)) for kind, raw in parts]
    config = next((layer for layer in layers if layer.media_type == CONFIG_TYPE), None)
    return make_manifest(config, [layer for layer in layers if layer.media_type != CONFIG_TYPE])


def test_a_config_keeps_what_is_not_known_here() -> None:
    raw = b'{"model_format":"gguf","capabilities":["tools"],"renderer":"r","os":"linux","new":1}'
    config = parse_config(raw)
    assert config.unknown_fields == {"capabilities": ["tools"], "new": 1}
    again = json.loads(config.dump([ManifestLayer(MODEL_TYPE, "sha256:ab", 1)]))
    assert again["new"] == 1
    assert list(again)[-3:] == ["architecture", "os", "rootfs"]
    assert again["rootfs"] == {"type": "layers", "diff_ids": ["sha256:ab"]}
    assert parse_config(config.dump([])) == config


@pytest.mark.parametrize(
    ("contents", "own"),
    [
        (StoredModel(Path("m")), None),
        (StoredModel(Path("m"), template=""), None),
        (StoredModel(Path("m"), template="{{ .Prompt }}"), "{{ .Prompt }}"),
        (
            StoredModel(Path("m"), template="{{ .System }}{{ .Prompt }}"),
            "{{ .System }}{{ .Prompt }}",
        ),
        (
            StoredModel(Path("m"), ModelConfig(renderer="qwen3-coder"), template="{{ .Messages }}"),
            None,
        ),
    ],
)
def test_a_template_goes_before_the_files_own_unless_there_is_a_renderer(
    contents: StoredModel, own: str | None
) -> None:
    assert contents.own_template == own


@pytest.mark.parametrize(
    ("kind", "raw", "why"),
    [
        (CONFIG_TYPE, b"{", "the config: "),
        (CONFIG_TYPE, b"[]", "the config: it is not a JSON object"),
        (PARAMS_TYPE, b"[1]", "the parameters are not an object"),
        (PARAMS_TYPE, b"nonsense", "it is not JSON: "),
        (MESSAGES_TYPE, b"[" * 100_000, "it is not JSON: "),
    ],
)
def test_a_blob_of_nonsense_is_named(store: ModelStore, kind: str, raw: bytes, why: str) -> None:
    manifest = manifest_of(store, (MODEL_TYPE, b"w"), (kind, raw))
    with pytest.raises(ModelBroken) as caught:
        read_stored_model(store.blobs, manifest)
    assert caught.value.path == str(store.blobs.path(store.blobs.add(raw)))
    assert caught.value.why.startswith(why)


def test_a_model_without_weights_for_llama_cpp_is_refused(store: ModelStore) -> None:
    with pytest.raises(ModelBroken, match="no model file in the GGUF format"):
        read_stored_model(store.blobs, manifest_of(store, (SYSTEM_TYPE, b"a")))
    bad = make_manifest(None, [ManifestLayer(MODEL_TYPE, "sha256:../x", 1)])
    with pytest.raises(ModelBroken, match="which is no digest"):
        read_stored_model(store.blobs, bad)
