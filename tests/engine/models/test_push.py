"""Push and pull against a real registry, over a wire that is cut."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.models.manifests import (
    CONFIG_TYPE,
    MODEL_TYPE,
    TEMPLATE_TYPE,
    ManifestLayer,
    make_manifest,
)
from paddock.engine.models.model_names import ModelName, parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.push import push
from paddock.engine.models.transfer import ProgressLine, TransferOptions
from paddock.engine.models.transfer_errors import HostUnreachable
from paddock.engine.system.records import replace
from tests.engine.models.pulling import QUICK, model_of, pulled, statuses
from tests.fakes.docker_registry import DockerRegistry, docker_registry
from tests.fakes.far_side import digest_of, gguf
from tests.fakes.wires import cutting_wire

BIG = gguf(2_000_000)
PUSHED = replace(QUICK, push_bytes=300_000, stall_s=3.0, min_part_bytes=400_000)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def make(store: ModelStore, name: str, model: bytes = BIG, source: str = "") -> ModelName:
    def layer(kind: str, content: bytes, source: str = "") -> ManifestLayer:
        return ManifestLayer(kind, store.blobs.add(content), len(content), source)

    layers = [layer(MODEL_TYPE, model, source), layer(TEMPLATE_TYPE, b"{{ .Prompt }}")]
    manifest = make_manifest(layer(CONFIG_TYPE, b'{"model_format":"gguf"}'), layers)
    return store.put_manifest(parse_name(name), manifest)


def pushed(
    store: ModelStore, name: ModelName | str, options: TransferOptions = PUSHED
) -> list[ProgressLine]:
    async def main() -> list[ProgressLine]:
        return [line async for line in push(store, name, options=options)]

    return asyncio.run(main())


def test_a_model_goes_to_a_registry_and_comes_back(
    registry: DockerRegistry, store: ModelStore, tmp_path: Path
) -> None:
    name = make(store, f"{registry.host}/team/whole:v1")
    lines = pushed(store, name)
    short = [
        digest_of(content).removeprefix("sha256:")[:12]
        for content in (BIG, b"{{ .Prompt }}", b'{"model_format":"gguf"}')
    ]
    assert statuses(lines) == [
        "retrieving manifest",
        "pushing model",
        *(f"pushing {digest}" for digest in short),
        "pushing manifest",
        "success",
    ]
    last = [line for line in lines if line.digest == digest_of(BIG)][-1]
    assert (last.total, last.completed) == (len(BIG), len(BIG))
    other = ModelStore(tmp_path / "other")
    pulled(other, name, PUSHED)
    assert model_of(other, name) == BIG
    ours, theirs = store.manifest(name), other.manifest(name)
    assert ours is not None
    assert theirs is not None
    assert ours.raw == theirs.raw
    assert other.check() == []


def test_what_the_registry_has_is_not_sent_again(
    registry: DockerRegistry, store: ModelStore
) -> None:
    name = make(store, f"{registry.host}/team/twice:v1", gguf(100_000, seed=2))
    pushed(store, name)
    before = len(registry.requests())
    assert pushed(store, name)[-1].status == "success"
    again = registry.requests()[before:]
    assert [line.split()[0] for line in again] == ["HEAD", "HEAD", "HEAD", "PUT"]


@pytest.mark.parametrize("says_it", [True, False])
def test_a_copy_is_mounted_not_sent(
    registry: DockerRegistry, store: ModelStore, says_it: bool
) -> None:
    seed = 3 + says_it
    first = make(store, f"{registry.host}/team/first{seed}:v1", gguf(100_000, seed=seed))
    pushed(store, first)
    target = f"{registry.host}/others/copy{seed}:v1"
    if says_it:
        make(store, target, gguf(100_000, seed=seed), source=str(first))
    else:
        store.copy(first, parse_name(target))
    before = len(registry.requests())
    pushed(store, target)
    requests = registry.requests()[before:]
    assert sum(" 201" in line and "mount=" in line for line in requests) == 3
    assert not [line for line in requests if line.startswith("PATCH")]


def test_a_cut_upload_is_gone_on_with(
    registry: DockerRegistry, store: ModelStore, tmp_path: Path
) -> None:
    model = gguf(2_000_000, seed=5)
    with cutting_wire(registry.port) as wire:
        name = make(store, f"127.0.0.1:{wire.port}/team/cut:v1", model)
        wire.cuts = [500_000, 900_000, 400_000]
        assert pushed(store, name)[-1].status == "success"
        assert wire.n_cut == 3
        other = ModelStore(tmp_path / "other")
        pulled(other, name, PUSHED)
        assert model_of(other, name) == model


def test_a_registry_without_tls_is_told_from_one_that_is_not_there(
    registry: DockerRegistry, store: ModelStore
) -> None:
    make(store, f"{registry.host}/team/plain:v2", gguf(3_000, seed=8))
    with pytest.raises(HostUnreachable) as caught:
        pushed(store, f"{registry.host}/team/plain:v2", replace(PUSHED, insecure=False))
    assert str(caught.value) == (
        f"{registry.host} cannot be reached: it does not speak TLS. Use `--insecure` "
        f'(`"insecure": true`) if you trust every machine on the way.'
    )
