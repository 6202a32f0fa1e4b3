from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddock.engine.errors import ModelBroken
from paddock.engine.store.contents import Config, Contents, parse_config, read_contents
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import (
    CONFIG,
    MESSAGES,
    MODEL,
    PARAMS,
    PROMPT,
    SYSTEM,
    Layer,
    Manifest,
    make_manifest,
)


def manifest_of(store: Store, *parts: tuple[str, bytes]) -> Manifest:
    layers = [Layer(kind, store.add_blob(raw), len(raw)) for kind, raw in parts]
    config = next((layer for layer in layers if layer.media_type == CONFIG), None)
    return make_manifest(config, [layer for layer in layers if layer.media_type != CONFIG])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_config_keeps_what_is_not_known_here() -> None:
    raw = b'{"model_format":"gguf","capabilities":["tools"],"renderer":"r","os":"linux","new":1}'
    config = parse_config(raw)
    assert config.more == {"capabilities": ["tools"], "new": 1}
    again = json.loads(config.dump([Layer(MODEL, "sha256:ab", 1)]))
    assert again["new"] == 1
    assert list(again)[-3:] == ["architecture", "os", "rootfs"]
    assert again["rootfs"] == {"type": "layers", "diff_ids": ["sha256:ab"]}
    assert parse_config(config.dump([])) == config


def test_a_template_of_2023_and_several_systems_are_read(store: Store) -> None:
    manifest = manifest_of(
        store, (MODEL, b"w"), (PROMPT, b"{{ .Prompt }}!"), (SYSTEM, b"a"), (SYSTEM, b"b")
    )
    contents = read_contents(store.blobs, manifest)
    assert (contents.own_template, contents.system) == ("{{ .Prompt }}!", "a\nb")


@pytest.mark.parametrize(
    ("contents", "own"),
    [
        (Contents(Path("m")), None),
        (Contents(Path("m"), template=""), None),
        (Contents(Path("m"), template="{{ .Prompt }}"), "{{ .Prompt }}"),
        (Contents(Path("m"), template="{{ .System }}{{ .Prompt }}"), "{{ .System }}{{ .Prompt }}"),
        (Contents(Path("m"), Config(renderer="qwen3-coder"), template="{{ .Messages }}"), None),
    ],
)
def test_a_template_goes_before_the_files_own_unless_there_is_a_renderer(
    contents: Contents, own: str | None
) -> None:
    assert contents.own_template == own


@pytest.mark.parametrize(
    ("kind", "raw", "why"),
    [
        (CONFIG, b"{", "the config: "),
        (CONFIG, b"[]", "the config: it is not a JSON object"),
        (PARAMS, b"[1]", "the parameters are not an object"),
        (PARAMS, b"nonsense", "it is not JSON: "),
        (MESSAGES, b"[" * 100_000, "it is not JSON: "),
    ],
)
def test_a_blob_of_nonsense_is_named(store: Store, kind: str, raw: bytes, why: str) -> None:
    manifest = manifest_of(store, (MODEL, b"w"), (kind, raw))
    with pytest.raises(ModelBroken) as caught:
        read_contents(store.blobs, manifest)
    assert caught.value.path == str(store.blob_path(store.add_blob(raw)))
    assert caught.value.why.startswith(why)


def test_a_model_without_weights_for_llama_cpp_is_refused(store: Store) -> None:
    with pytest.raises(ModelBroken, match="no model file in the GGUF format"):
        read_contents(store.blobs, manifest_of(store, (SYSTEM, b"a")))
    bad = make_manifest(None, [Layer(MODEL, "sha256:../x", 1)])
    with pytest.raises(ModelBroken, match="which is no digest"):
        read_contents(store.blobs, bad)
