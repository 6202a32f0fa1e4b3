"""A name stands for what is on disk now, whatever changed it."""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from paddock.engine.errors import ModelNotFound
from paddock.engine.models.model_defaults import (
    merged_sampling,
    with_model_defaults,
    with_model_messages,
)
from paddock.engine.models.model_facts_cache import ModelFactsCache
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Message, ModelFacts, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace

MANIFEST = Path("manifests/registry.ollama.ai/library/mine/latest")


class World:
    """A store, and a catalogue that has been asked already."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.finder = ModelFinder(self.root, folder / "cache")
        settings = PoolSettings(models_dir=self.root, cache_dir=folder / "cache")
        self.catalogue = ModelFactsCache(self.finder, settings)

    def digest(self, ref: str) -> str:
        return asyncio.run(self.catalogue.facts(ref)).digest

    def blob(self, tail: bytes = b"") -> str:
        """Put a model into the store; gives its digest. Bytes behind the tensors change nothing."""
        raw = self.finder.locate("all-minilm").path.read_bytes() + tail
        digest = hashlib.sha256(raw).hexdigest()
        path = self.root / "blobs" / f"sha256-{digest}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return digest

    def name(self, digest: str) -> None:
        """Write a manifest of `mine` that names a blob."""
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
        path = self.root / MANIFEST
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(".aside")
        aside.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": [layer]}))
        aside.replace(path)


def test_a_name_that_is_made_changed_and_deleted_is_seen_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(ModelNotFound):
        world.digest("mine")
    first, second = world.blob(), world.blob(b"\0" * 64)
    world.name(first)
    assert world.digest("mine") == world.digest("Mine:latest") == first
    world.name(second)
    assert world.digest("mine") == second
    (world.root / MANIFEST).unlink()
    with pytest.raises(ModelNotFound):
        world.digest("mine")


def test_a_path_through_links_is_the_file_that_they_lead_to_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    raw, link = world.finder.locate("all-minilm").path.read_bytes(), tmp_path / "here" / "m.gguf"
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        (tmp_path / "there" / f"v{number}.gguf").write_bytes(raw + bytes([number]))
    link.symlink_to("../there/current.gguf")
    current, digests = tmp_path / "there" / "current.gguf", []
    for number in (1, 2):
        current.unlink(missing_ok=True)
        current.symlink_to(f"v{number}.gguf")
        digests.append(world.digest(str(link)))
    assert digests[0] != digests[1]


def test_a_damaged_list_of_digests_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    shutil.copy(World(tmp_path).finder.locate("all-minilm").path, path)
    expected = World(tmp_path).digest(str(path))
    for entry in (5, {"size": 1}, None, [1]):
        (tmp_path / "cache" / "digests.json").write_text(json.dumps({str(path): entry}))
        assert World(tmp_path).digest(str(path)) == expected


FACTS = ModelFacts(
    "m", "/m.gguf", "d", 1, "llama", "chat", 2048, 2048,
    params={"temperature": 0.3, "top_k": 7, "min_p": 0.2},
    template="{{ .Prompt }}!",
    system="You are a llama.",
    messages=(Message("user", "Hum."), Message("assistant", "Hmm.")),
)  # fmt: skip
ASKED = Message("user", "Spit?")


def contents_of(*messages: Message) -> list[str]:
    return [message.content for message in messages]


def test_what_is_more_specific_goes_first_among_sampling_values() -> None:
    spec = ModelSpec("m", params={"top_k": 8, "top_p": 0.5})
    defaults = {"min_p": 0.1, "top_p": 0.4, "top_k": 1, "seed": 5, "temperature": 0.8}
    request = ChatRequest(spec, (), {"top_p": 0.6}, defaults=defaults)
    sampling = merged_sampling(request, FACTS)
    assert (sampling.top_p, sampling.top_k, sampling.temperature) == (0.6, 8, 0.3)
    assert (sampling.min_p, sampling.seed, sampling.repeat_penalty) == (0.2, 5, 1.0)


def test_a_model_says_its_own_words_before_a_conversation() -> None:
    request = with_model_defaults(ChatRequest(ModelSpec("m"), (ASKED,)), FACTS)
    assert contents_of(*request.messages) == ["You are a llama.", "Hum.", "Hmm.", "Spit?"]
    assert request.template == "{{ .Prompt }}!"
    own = with_model_defaults(replace(request, messages=(ASKED,), template="mine"), FACTS)
    assert own.template == "mine"


def test_a_system_turn_of_the_request_takes_the_place_of_the_models() -> None:
    turns = with_model_messages((Message("system", "You are a cow."), ASKED), FACTS)
    assert contents_of(*turns) == ["You are a cow.", "Hum.", "Hmm.", "Spit?"]
    late = with_model_messages((ASKED, Message("system", "Now moo."), ASKED), FACTS)
    assert contents_of(*late) == ["You are a llama.", "Hum.", "Hmm.", "Spit?", "Now moo.", "Spit?"]


def test_a_raw_prompt_stays_bare_and_earlier_tokens_have_the_messages_already() -> None:
    raw = ChatRequest(ModelSpec("m"), (), prompt="Once")
    assert with_model_defaults(raw, FACTS) is raw
    insert = replace(raw, suffix="end")
    assert with_model_defaults(insert, FACTS) is insert
    later = with_model_defaults(ChatRequest(ModelSpec("m"), (ASKED,), prompt_tokens=(1, 2)), FACTS)
    assert contents_of(*later.messages) == ["You are a llama.", "Spit?"]
    assert with_model_defaults(ChatRequest(ModelSpec("m"), ()), FACTS).messages == ()


def test_a_projector_that_comes_changes_or_goes_makes_another_model_of_it(tmp_path: Path) -> None:
    world, path = World(tmp_path), tmp_path / "folder" / "mine.gguf"
    path.parent.mkdir()
    shutil.copy(world.finder.locate("all-minilm").path, path)
    projector = path.with_name("mmproj-mine.gguf")

    def facts() -> ModelFacts:
        return asyncio.run(world.catalogue.facts(str(path)))

    blind = facts()
    projector.write_bytes(b"GGUF")
    seeing = facts()
    projector.write_bytes(b"GGUF, another")
    seeing_otherwise = facts()
    projector.unlink()
    assert [blind.projector, seeing.projector] == [None, str(projector)]
    assert len({facts.identity for facts in (blind, seeing, seeing_otherwise)}) == 3
    assert facts() == blind
