import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.gguf import read_header
from paddock.engine.models.hugging_face import HubFile, choose_model_files, choose_projector
from paddock.engine.models.manifests import MODEL_TYPE, PARAMS_TYPE, PROJECTOR_TYPE, TEMPLATE_TYPE
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.transfer_errors import (
    HostNotTrusted,
    NotPublished,
    NoUsableModel,
    TransferRefused,
)
from tests.engine.models.pulling import model_of, pulled, statuses
from tests.fakes.far_side import FarSide, digest_of, far_side, gguf
from tests.fakes.gguf import split_gguf
from tests.optional import present

Q4, Q8, EYES = gguf(50_000, seed=4), gguf(90_000, seed=8), gguf(3_000, architecture="clip")
COMMIT = "c" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FarSide]:
    """A stand-in for the hub: its listing, and files behind a redirect to another host."""
    whole = tmp_path / "big-F16.gguf"
    whole.write_bytes(gguf(50_000, seed=5))
    parts = {f"F16/{part.name}": part.read_bytes() for part in split_gguf(whole, whole)}
    with far_side() as side, far_side() as cdn:
        repository = {
            "README.md": b"# Mini",
            "mini-Q8_0.gguf": Q8,
            "mini-Q4_K_M.gguf": Q4,
            "mmproj-mini-f16.gguf": EYES,
            "template": b"{{ .Prompt }}",
            "params": b'{"temperature": 0.3}',
            **parts,
        }
        siblings = []
        for name, content in repository.items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": "b"}
            path = f"/team/Mini-GGUF/resolve/{COMMIT}/{name}"
            if name.endswith(".gguf"):
                sibling["lfs"] = {
                    "sha256": digest_of(content).removeprefix("sha256:"),
                    "size": len(content),
                    "pointerSize": 130,
                }
                cdn.files[f"/lfs/{name}"] = content
                side.redirects[path] = f"{cdn.url}/lfs/{name}?signed=1"
            else:
                side.files[path] = content
            siblings.append(sibling)
        listing = {"id": "team/Mini-GGUF", "sha": COMMIT, "siblings": siblings, "tags": []}
        side.files["/api/models/team/Mini-GGUF"] = json.dumps(listing).encode()
        side.cdn = cdn  # type: ignore[attr-defined]
        yield side


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_the_default_quantisation_comes_with_projector_template_and_parameters(
    hub: FarSide, store: ModelStore
) -> None:
    lines = pulled(store, "hf:team/Mini-GGUF", hub=hub.url, insecure=False)
    short = [digest_of(content).removeprefix("sha256:")[:12] for content in (Q4, EYES)]
    assert statuses(lines) == [
        "pulling manifest",
        "found mini-Q4_K_M.gguf at 127.0.0.1/team/Mini-GGUF",
        f"pulling {short[0]}",
        f"pulling {short[1]}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    name = parse_name("hf.co/team/Mini-GGUF:latest")
    assert model_of(store, name) == Q4
    manifest = present(store.manifest(name))
    assert [layer.media_type for layer in manifest.layers] == [
        MODEL_TYPE,
        PROJECTOR_TYPE,
        TEMPLATE_TYPE,
        PARAMS_TYPE,
    ]
    assert store.blobs.read(manifest.layers[3].digest) == b'{"temperature": 0.3}'
    assert store.check() == []


def test_a_quantisation_can_be_asked_for(hub: FarSide, store: ModelStore) -> None:
    pulled(store, "hf.co/team/Mini-GGUF:Q8_0", hub=hub.url)
    assert model_of(store, parse_name("hf.co/team/Mini-GGUF:Q8_0")) == Q8
    with pytest.raises(NoUsableModel, match="it has no Q5_0; it has Q8_0, Q4_K_M, F16"):
        pulled(store, "hf:team/Mini-GGUF:Q5_0", hub=hub.url)


def test_a_split_model_comes_with_all_its_parts(hub: FarSide, store: ModelStore) -> None:
    lines = pulled(store, "hf:team/Mini-GGUF:F16", hub=hub.url)
    assert any("-00001-of-00002.gguf and 1 more at " in status for status in statuses(lines))
    manifest = present(store.manifest(parse_name("hf.co/team/Mini-GGUF:F16")))
    kinds = [layer.media_type for layer in manifest.layers]
    assert kinds == [MODEL_TYPE, MODEL_TYPE, PROJECTOR_TYPE, TEMPLATE_TYPE, PARAMS_TYPE]
    parts = [
        read_header(store.blobs.path(layer.digest)).part for layer in manifest.all_of(MODEL_TYPE)
    ]
    assert parts == [0, 1]
    assert store.check() == []


def test_a_file_of_a_repository_can_be_asked_for(hub: FarSide, store: ModelStore) -> None:
    pulled(store, "hf:team/Mini-GGUF/mini-Q8_0.gguf", hub=hub.url)
    assert model_of(store, parse_name("hf.co/team/Mini-GGUF:Q8_0")) == Q8


def test_the_token_goes_to_the_hub_alone(
    hub: FarSide, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pulled(store, "hf:team/Mini-GGUF", hub=hub.url)
    cdn: FarSide = hub.cdn  # type: ignore[attr-defined]
    assert all(request.headers.get("authorization") == "Bearer hf_secret" for request in hub.seen)
    assert cdn.seen
    assert all("authorization" not in request.headers for request in cdn.seen)


def test_what_is_not_there_or_not_open_is_said(hub: FarSide, store: ModelStore) -> None:
    with pytest.raises(
        NotPublished, match=r"127\.0\.0\.1:\d+/team/None: file does not exist\. Check the"
    ):
        pulled(store, "hf:team/None", hub=hub.url)
    hub.statuses["/api/models/team/Mini-GGUF"] = [403]
    with pytest.raises(TransferRefused) as caught:
        pulled(store, "hf:team/Mini-GGUF", hub=hub.url)
    assert caught.value.status == 403
    with pytest.raises(HostNotTrusted):
        pulled(store, "hf:team/Mini-GGUF", hub=hub.url, trusted_hosts=("registry.ollama.ai",))


def hub_files(*names: str) -> list[HubFile]:
    return [HubFile(name, f"https://hub/{name}", 1, "") for name in names]


LISTED = ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-f16.gguf")


@pytest.mark.parametrize(
    ("wish", "names", "chosen"),
    [
        ("q8_0", LISTED, "m-Q8_0.gguf"),
        ("F16", LISTED, "m-f16.gguf"),
        ("m-F16.GGUF", LISTED, "m-f16.gguf"),
        ("", ("m-Q2_K.gguf", "m-Q4_K_M.gguf"), "m-Q4_K_M.gguf"),
        ("", ("README.md", "m-Q2_K.gguf", "m-Q8_0.gguf"), "m-Q2_K.gguf"),
        ("", ("imatrix.gguf", "mmproj-F16.gguf", "m.gguf"), "m.gguf"),
    ],
)
def test_the_asked_quantisation_is_taken_in_any_case_and_without_a_wish_q4_k_m_or_the_first(
    wish: str, names: tuple[str, ...], chosen: str
) -> None:
    assert choose_model_files(hub_files(*names), wish, "r")[0].name == chosen


def test_a_projector_comes_along_at_half_precision() -> None:
    listed = hub_files("m-Q8_0.gguf", "mmproj-m-F32.gguf", "mmproj-m-f16.gguf")
    found = present(choose_projector(listed))
    assert found.name == "mmproj-m-f16.gguf"
    assert choose_projector(hub_files("m-Q8_0.gguf")) is None
