import hashlib
import json
import multiprocessing
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paddock.engine.errors import EngineError, ManifestBroken, ModelNotFound, StoreReadOnly
from paddock.engine.models.manifests import (
    CONFIG_TYPE,
    MODEL_TYPE,
    TEMPLATE_TYPE,
    ManifestLayer,
    make_manifest,
)
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_store import ModelStore
from tests.optional import present
from tests.waiting import PATIENCE_S


def put(store: ModelStore, name: str, *contents: bytes) -> list[str]:
    """Make a model of these blobs, the first its config; gives their digests."""
    digests = [store.blobs.add(content) for content in contents]
    sizes = [len(content) for content in contents]
    kinds = [CONFIG_TYPE, MODEL_TYPE, *[TEMPLATE_TYPE] * len(contents)]
    layers = [ManifestLayer(*layer) for layer in zip(kinds, digests, sizes, strict=False)]
    store.put_manifest(parse_name(name), make_manifest(layers[0], layers[1:]))
    return digests


def shorts(store: ModelStore) -> list[str]:
    return [name.short for name in store.names()]


def test_a_model_lies_where_ollama_has_it(store: ModelStore) -> None:
    put(store, "a", b"{}", b"weights")
    put(store, "localhost:5000/team/b:v1", b"{}", b"weights")
    lies = sorted(
        str(path.relative_to(store.root / "manifests"))
        for path in (store.root / "manifests").rglob("*")
        if path.is_file()
    )
    assert lies == ["localhost:5000/team/b/v1", "registry.ollama.ai/library/a/latest"]
    assert shorts(store) == ["localhost:5000/team/b:v1", "a:latest"]


def test_a_name_is_found_in_any_case_and_keeps_its_first_spelling(store: ModelStore) -> None:
    put(store, "Mistral:7B", b"{}", b"one")
    assert store.find(parse_name("mistral:7b")) == parse_name("Mistral:7B")
    assert store.manifest(parse_name("MISTRAL:7b")) is not None
    put(store, "mistral:7b", b"{}", b"two")
    put(store, "mistral:8x", b"{}", b"two")
    assert shorts(store) == ["Mistral:7B", "Mistral:8x"]


def test_pruning_removes_what_no_one_names_once_it_is_old(store: ModelStore) -> None:
    put(store, "a", b"{}", b"weights")
    loose = store.blobs.add(b"uploaded a moment ago")
    assert store.prune() == []
    yesterday = time.time() - 2 * 24 * 3600
    os.utime(store.blobs.path(loose), (yesterday, yesterday))
    assert store.prune(keep=[loose]) == []
    assert store.prune() == [loose]
    assert len(store.blobs.digests()) == 2


def test_nothing_is_pruned_while_a_manifest_cannot_be_read(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", b"{}", b"weights")
    loose = store.blobs.add(b"whose is it?")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if "manifests" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert store.prune([loose]) == []
    with pytest.raises(ManifestBroken, match="Permission denied"):
        store.manifest(parse_name("a"))


def test_even_a_broken_manifest_keeps_the_blobs_that_it_names(store: ModelStore) -> None:
    digest = store.blobs.add(b"weights")
    path = store.root / "manifests" / "h" / "n" / "m" / "t"
    path.parent.mkdir(parents=True)
    path.write_text('{"layers": [{"digest": "' + digest + '", "size"')
    assert store.prune([digest]) == []
    with pytest.raises(ManifestBroken) as caught:
        store.manifest(parse_name("h/n/m:t"))
    assert caught.value.path == str(path)
    assert shorts(store) == ["h/n/m:t"]
    assert store.delete(parse_name("h/n/m:t")) == [digest]


def test_corrupt_and_missing_blobs_are_found_and_named_with_their_models(store: ModelStore) -> None:
    config, model = put(store, "a", b"{}", b"weights")
    put(store, "b", b"{}", b"other")
    assert store.check() == []
    store.blobs.path(model).write_bytes(b"weightz")
    store.blobs.path(config).unlink()
    found = f"sha256:{hashlib.sha256(b'weightz').hexdigest()}"
    corrupt = (
        f"{store.blobs.path(model)} is corrupt: its content has the digest {found}, needed by "
    )
    missing = f"{store.blobs.path(config)} is missing, needed by "
    assert sorted(map(str, store.check())) == sorted(
        [f"{corrupt}a:latest", f"{missing}a:latest, b:latest"]
    )
    assert [fault.kind for fault in store.check(parse_name("b"))] == ["missing"]
    store.blobs.add(b"weights")
    store.blobs.add(b"{}")
    assert store.check() == []


def test_files_that_are_no_models_are_left_alone(store: ModelStore) -> None:
    put(store, "a", b"{}", b"weights")
    folder = store.root / "manifests" / "registry.ollama.ai" / "library"
    (folder / ".DS_Store").write_text("x")
    (folder / "a" / ".DS_Store").write_text("x")
    (folder / "a b").mkdir()
    (folder / "a b" / "latest").write_text("{}")
    assert shorts(store) == ["a:latest"]


@pytest.fixture
def read_only(store: ModelStore) -> Iterator[ModelStore]:
    """A store with one model, on a disk that cannot be written, even by root."""
    put(store, "a", b"{}", b"weights")
    place = str(store.root)
    for command in (["mount", "--bind", place, place], ["mount", "-o", "remount,ro,bind", place]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["umount", place], capture_output=True, check=False)
            pytest.skip(f"a read-only disk needs the right to mount: {done.stderr.strip()}")
    yield store
    subprocess.run(["umount", place], check=True)


def test_a_store_that_cannot_be_written_is_read_and_says_so(read_only: ModelStore) -> None:
    store = read_only
    assert store.manifest(parse_name("a")) is not None
    assert store.check() == []
    for attempt in (
        lambda: store.blobs.add(b"x"),
        lambda: store.delete(parse_name("a")),
        lambda: store.copy(parse_name("a"), parse_name("b")),
    ):
        with pytest.raises(StoreReadOnly) as caught:
            attempt()
        assert "Read-only file system. Set PADDOCK_MODELS" in str(caught.value)
    assert shorts(store) == ["a:latest"]


# Stores of newer Ollamas: names link to manifests among the blobs, and may list several.


def link(store: ModelStore, name: tuple[str, str, str, str], raw: bytes) -> str:
    digest = store.blobs.add(raw)
    path = store.root.joinpath("manifests-v2", *name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(store.blobs.path(digest))
    return digest


def test_a_name_that_links_to_its_manifest_is_read_copied_and_deleted(store: ModelStore) -> None:
    config, model = store.blobs.add(b"{}"), store.blobs.add(b"weights")
    made = make_manifest(
        ManifestLayer(CONFIG_TYPE, config, 2), [ManifestLayer(MODEL_TYPE, model, 7)]
    )
    manifest = link(store, ("ollama.com", "library", "a", "latest"), made.raw)
    assert shorts(store) == ["a:latest"]
    assert store.manifest(parse_name("a")) == made
    assert store.prune([manifest, config, model]) == []
    store.copy(parse_name("a"), parse_name("b"))
    assert store.delete(parse_name("a")) == [manifest] or store.blobs.has(model)
    assert shorts(store) == ["b:latest"]
    assert store.manifest(parse_name("b")) == made


def test_of_several_manifests_for_a_name_llama_cpps_is_taken(store: ModelStore) -> None:
    config = store.blobs.add(b"{}")
    children = []
    for runner in ("mlx", "llamacpp"):
        weights = f"weights for {runner}".encode()
        layer = ManifestLayer(MODEL_TYPE, store.blobs.add(weights), len(weights))
        child = store.blobs.add(make_manifest(ManifestLayer(CONFIG_TYPE, config, 2), [layer]).raw)
        children.append({"digest": child, "runner": runner})
    listed = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.ollama.manifest.list.v2+json",
        "manifests": children,
    }
    link(store, ("ollama.com", "library", "a", "latest"), json.dumps(listed).encode())
    manifest = present(store.manifest(parse_name("a")))
    model = present(manifest.first_of(MODEL_TYPE))
    assert store.blobs.read(model.digest) == b"weights for llamacpp"
    assert store.prune(store.blobs.digests()) == []
    assert len(store.delete(parse_name("a"))) == 6


# Several at once


def rewrite(root: Path, number: int) -> None:
    store = ModelStore(root)
    for turn in range(5):
        put(store, f"m{number}", b"{}", f"weights {number} {turn}".encode())
        store.copy(parse_name(f"m{number}"), parse_name("shared"))
        store.delete(parse_name(f"m{number}"))


def test_processes_that_change_a_store_at_once_leave_it_whole(store: ModelStore) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=rewrite, args=(store.root, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert shorts(store) == ["shared:latest"]
    assert store.check() == []
    store.prune(min_age_s=0)
    assert len(store.blobs.digests()) == 2


def test_a_lock_is_for_one_thread_at_a_time_and_says_whose_turn_it_is(store: ModelStore) -> None:
    order: list[str] = []

    def second() -> None:
        with store.lock("a download"):
            order.append("second")

    with store.lock("a download"):
        other = threading.Thread(target=second)
        other.start()
        with (
            pytest.raises(EngineError, match="another process is at a download"),
            store.lock("a download", wait_s=0),
        ):
            pass
        with store.lock("another download"):
            order.append("first")
    other.join(PATIENCE_S)
    assert order == ["first", "second"]


NAMES = st.sampled_from(["a", "A:latest", "b", "eva/a", "h:1/eva/a:x"])


class StoreRules(RuleBasedStateMachine):
    """Whatever is done in whatever order: every model stays whole, and nothing is kept for none."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = ModelStore(Path(self.folder.name))
        self.models: dict[str, set[str]] = {}

    def key(self, name: str) -> str:
        return parse_name(name).key

    @rule(name=NAMES, contents=st.lists(st.sampled_from([b"1", b"2", b"3", b"4"]), min_size=1))
    def make(self, name: str, contents: list[bytes]) -> None:
        digests = put(self.store, name, b"{}", *contents)
        self.store.prune(self.models.get(self.key(name), set()))
        self.models[self.key(name)] = set(digests)

    @rule(source=NAMES, other=NAMES)
    def copy(self, source: str, other: str) -> None:
        if self.key(source) in self.models:
            self.store.copy(parse_name(source), parse_name(other))
            self.store.prune(self.models.get(self.key(other), set()))
            self.models[self.key(other)] = self.models[self.key(source)]
        else:
            with pytest.raises(ModelNotFound):
                self.store.copy(parse_name(source), parse_name(other))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if self.models.pop(self.key(name), None) is None:
            with pytest.raises(ModelNotFound):
                self.store.delete(parse_name(name))
        else:
            self.store.delete(parse_name(name))

    @invariant()
    def every_model_is_whole_and_nothing_else_is_kept(self) -> None:
        assert {name.key for name in self.store.names()} == set(self.models)
        assert self.store.check() == []
        assert set(self.store.blobs.digests()) == set().union(*self.models.values())

    def teardown(self) -> None:
        self.folder.cleanup()


TestStoreRules = StoreRules.TestCase
TestStoreRules.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)
