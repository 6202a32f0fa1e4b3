import json
from pathlib import Path

import pytest

from paddock.engine.errors import EngineError, InvalidName, ModelBroken
from paddock.engine.models.manifests import CONFIG_TYPE
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.transfer_errors import HostNotTrusted, NotPublished, NoUsableModel
from tests.engine.models.pulling import BIG, leftovers, model_of, pulled, statuses
from tests.fakes.far_side import FarSide, digest_of, far_side, gguf
from tests.optional import present


def test_a_file_of_this_machine_becomes_a_model(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "Mini-2B-Q8_0.gguf"
    path.write_bytes(BIG)
    lines = pulled(store, str(path), accepts_paths=True)
    assert statuses(lines) == [
        "pulling manifest",
        "pulling Mini-2B-Q8_0.gguf",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    name = parse_name("mini-2b:Q8_0")
    assert model_of(store, name) == BIG
    manifest = present(store.manifest(name))
    assert manifest.config is not None
    assert manifest.config.media_type == CONFIG_TYPE
    assert json.loads(store.blobs.read(manifest.config.digest)) == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "25K",
        "file_type": "F32",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(BIG)]},
    }
    assert store.check() == []


def test_who_asks_over_the_network_gets_no_file_of_this_machine(
    store: ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / "mini.gguf"
    path.write_bytes(BIG)
    with pytest.raises(InvalidName, match="files can only be imported on this machine itself"):
        pulled(store, str(path))


def test_a_file_that_is_no_model_is_refused_before_it_is_copied(
    store: ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / "mini.gguf"
    with pytest.raises(NotPublished, match="file does not exist"):
        pulled(store, str(path), accepts_paths=True)
    path.write_bytes(BIG[:-10])
    with pytest.raises(ModelBroken, match="truncated"):
        pulled(store, str(path), accepts_paths=True)
    assert not store.blobs.folder.exists()


def test_a_url_of_a_file_becomes_a_model_in_parts_that_resume(
    far: FarSide, store: ModelStore
) -> None:
    far.files["/models/Mini-2B.Q8_0.gguf"] = BIG
    far.etags["/models/Mini-2B.Q8_0.gguf"] = '"one"'
    far.cuts = [7_000] * 5
    lines = pulled(store, f"{far.url}/models/Mini-2B.Q8_0.gguf?download=true")
    assert statuses(lines) == [
        "pulling manifest",
        "pulling Mini-2B.Q8_0.gguf",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert model_of(store, parse_name("mini-2b:Q8_0")) == BIG
    assert far.sent() == len(BIG) + 4, "no byte came twice but the first ones, looked at before"
    assert len({request.headers.get("range", "").partition("-")[0] for request in far.seen}) > 5
    assert leftovers(store) == []


def test_a_file_that_changes_on_the_way_is_not_put_together_of_two(
    far: FarSide, store: ModelStore
) -> None:
    path = "/mini.gguf"
    far.files[path], far.etags[path] = BIG, '"one"'
    far.cuts = [7_000] * 5 + [0] * 100
    with pytest.raises(EngineError):
        pulled(store, far.url + path)
    far.cuts = []
    newer = gguf(100_000, seed=1)
    far.files[path], far.etags[path] = newer, '"two"'
    pulled(store, far.url + path)
    assert model_of(store, parse_name("mini")) == newer


def test_what_is_no_gguf_is_known_by_its_first_bytes(far: FarSide, store: ModelStore) -> None:
    far.files["/mini.gguf"] = b"<!DOCTYPE html>" + b"x" * 100_000
    with pytest.raises(NoUsableModel, match=r"this is not a GGUF file \(it begins with b'<!DO'\)"):
        pulled(store, f"{far.url}/mini.gguf")
    far.settle()
    assert far.sent() == 4


def test_without_a_digest_every_host_on_the_way_must_be_trusted(
    far: FarSide, store: ModelStore
) -> None:
    with far_side() as elsewhere:
        elsewhere.files["/mini.gguf"] = BIG
        far.redirects["/mini.gguf"] = f"{elsewhere.url}/mini.gguf"
        with pytest.raises(HostNotTrusted) as caught:
            pulled(store, f"{far.url}/mini.gguf", trusted_hosts=(far.host,))
        assert caught.value.host == elsewhere.host
        assert elsewhere.seen == []
        both = (far.host, elsewhere.host)
        assert pulled(store, f"{far.url}/mini.gguf", trusted_hosts=both)[-1].status == "success"
