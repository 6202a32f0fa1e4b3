"""A model is brought: what is told, what is there afterwards, what is refused."""

import pytest

from paddock.engine.errors import DigestMismatch
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.transfer import ProgressLine
from paddock.engine.models.transfer_errors import NoUsableModel
from tests.engine.models.pulling import BIG, leftovers, model_of, named, pulled, statuses
from tests.fakes.far_side import FarSide, digest_of, gguf


def short(content: bytes) -> str:
    return digest_of(content).removeprefix("sha256:")[:12]


def test_the_lines_are_those_that_clients_of_ollama_know(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG, template=b"{{ .Prompt }}", config=b"{}")
    lines = pulled(store, named(far))
    assert statuses(lines) == [
        "pulling manifest",
        f"pulling {short(BIG)}",
        f"pulling {short(b'{{ .Prompt }}')}",
        f"pulling {short(b'{}')}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    of_model = [line for line in lines if line.digest == digest_of(BIG)]
    assert of_model[-1] == ProgressLine(f"pulling {short(BIG)}", digest_of(BIG), len(BIG), len(BIG))
    assert model_of(store, named(far)) == BIG
    assert store.check() == []
    assert leftovers(store) == []


def test_what_is_here_is_not_brought_again(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG, template=b"a")
    pulled(store, named(far))
    before = far.sent()
    lines = pulled(store, named(far))
    assert statuses(lines)[1:3] == [f"pulling {short(BIG)}", f"pulling {short(b'a')}"]
    assert far.sent() - before == len(far.files["/v2/team/mini/manifests/v1"])


def test_a_large_blob_comes_in_parts_side_by_side(far: FarSide, store: ModelStore) -> None:
    far.bytes_per_s = 100_000
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    blob = far.asked(digest_of(BIG))
    assert sorted(request.headers["range"] for request in blob)[0] == "bytes=0-20024"
    assert len(blob) == 5
    assert far.most_open == 4
    assert far.sent(digest_of(BIG)) == len(BIG)


def test_a_server_without_ranges_gives_the_whole(far: FarSide, store: ModelStore) -> None:
    far.knows_ranges = False
    far.publish("team/mini", "v1", model=BIG)
    pulled(store, named(far))
    assert model_of(store, named(far)) == BIG
    assert leftovers(store) == []


def test_a_wrong_digest_gives_no_blob_and_no_model(far: FarSide, store: ModelStore) -> None:
    far.publish("team/mini", "v1", model=BIG)
    wrong = gguf(100_000, seed=1)
    far.files[f"/v2/team/mini/blobs/{digest_of(BIG)}"] = wrong
    with pytest.raises(DigestMismatch) as caught:
        pulled(store, named(far))
    assert (caught.value.expected, caught.value.got) == (digest_of(BIG), digest_of(wrong))
    assert store.names() == []
    assert list(store.blobs.digests()) == []
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"lmgg" + b"\0" * 60, "an old GGML file"),
        (b"PK\x03\x04" + b"\0" * 60, "a PyTorch checkpoint"),
        (BIG[:-100], "the file is truncated"),
    ],
)
def test_what_is_no_whole_gguf_gets_no_name_and_leaves_nothing(
    far: FarSide, store: ModelStore, content: bytes, why: str
) -> None:
    far.publish("team/mini", "v1", model=content)
    with pytest.raises(NoUsableModel, match=why):
        pulled(store, named(far))
    assert store.names() == []
    assert list(store.blobs.digests()) == []


def test_a_model_for_another_engine_is_refused_before_it_is_brought(
    far: FarSide, store: ModelStore
) -> None:
    far.publish("team/mini", "v1", tensor=BIG)
    with pytest.raises(
        NoUsableModel, match=r"no GGUF model, but application/vnd\.ollama\.image\.t"
    ):
        pulled(store, named(far))
    assert far.sent(digest_of(BIG)) == 0


def test_a_newer_model_replaces_the_old_ones_blobs_but_not_those_of_others(
    far: FarSide, store: ModelStore
) -> None:
    old, new = gguf(3_000, seed=1), gguf(3_000, seed=2)
    far.publish("team/mini", "v1", model=old, template=b"shared", license=b"old only")
    pulled(store, named(far))
    far.publish("team/other", "v1", model=gguf(3_000, seed=3), template=b"shared")
    pulled(store, named(far, "team/other:v1"))
    far.publish("team/mini", "v1", model=new)
    lines = pulled(store, named(far))
    assert statuses(lines)[-3:] == ["writing manifest", "removing unused layers", "success"]
    assert not store.blobs.has(digest_of(old))
    assert not store.blobs.has(digest_of(b"old only"))
    assert store.blobs.has(digest_of(b"shared"))
    assert store.check() == []
