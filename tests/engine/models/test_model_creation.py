"""Models are made in Ollama's layout and words, whole or not at all."""

import json
import math
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.errors import EngineError, StoreFull
from paddock.engine.gguf import read_header
from paddock.engine.models import model_creation
from paddock.engine.models.model_cards import describe_model
from paddock.engine.models.model_creation import create_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_recipe import ModelRecipe
from paddock.engine.models.transfer import ProgressLine
from paddock.engine.request import Message
from paddock.engine.system.records import replace
from tests.engine.models.creating import config, digest_of, made, refusal, statuses
from tests.fakes.adapter import write_adapter
from tests.fakes.gguf import LLAMA, split_gguf, write_gguf
from tests.optional import present

JINJA = "{% for m in messages %}{{ m.content }}|{% endfor %}"


def layers(finder: ModelFinder, name: str) -> dict[str, bytes]:
    manifest = present(finder.store.manifest(parse_name(name)))
    return {
        layer.media_type.rsplit(".", 1)[-1]: finder.store.blobs.read(layer.digest)
        for layer in manifest.layers
    }


def test_a_file_becomes_a_model_as_ollama_would_write_it(
    finder: ModelFinder, weights: Path
) -> None:
    lines = made(finder, ModelRecipe("mine", files={"m.gguf": weights}, system="Be brief."))
    model, system = digest_of(weights.read_bytes()), digest_of(b"Be brief.")
    size = weights.stat().st_size
    assert lines == [
        ProgressLine("parsing GGUF"),
        ProgressLine("copying file", total=size, completed=size),
        ProgressLine(f"creating new layer {model}"),
        ProgressLine(f"creating new layer {system}"),
        ProgressLine("writing manifest"),
        ProgressLine("success"),
    ]
    manifest = present(finder.store.manifest(parse_name("mine")))
    assert manifest.config is not None
    assert finder.store.blobs.read(manifest.config.digest).decode() == (
        '{"model_format":"gguf","model_family":"llama","model_families":["llama"],'
        '"model_type":"512","file_type":"F16","architecture":"amd64","os":"linux",'
        f'"rootfs":{{"type":"layers","diff_ids":["{model}","{system}"]}}}}\n'
    )
    assert manifest.config.media_type == "application/vnd.docker.container.image.v1+json"
    assert [layer.media_type for layer in manifest.layers] == [
        "application/vnd.ollama.image.model",
        "application/vnd.ollama.image.system",
    ]
    assert finder.store.check() == []


def test_a_model_is_made_from_another_and_says_so(finder: ModelFinder, weights: Path) -> None:
    base = ModelRecipe(
        "base",
        files={"m.gguf": weights},
        template=JINJA,
        system="Be brief.",
        licenses=("MIT",),
        parameters={"temperature": 0.5, "stop": ["a", "b"]},
        messages=(Message("user", "hi"),),
        parser="p",
    )
    made(finder, base)
    lines = made(
        finder,
        ModelRecipe(
            "mine",
            base="BASE",
            system="Be <kind>.",
            licenses=("Apache", "MIT"),
            parameters={"stop": ["c"], "num_ctx": 1024},
            messages=(Message("assistant", "ho"),),
        ),
    )
    assert statuses(lines)[-2:] == ["writing manifest", "success"]
    contents = layers(finder, "mine")
    assert contents["template"].decode() == JINJA
    assert contents["system"] == b"Be <kind>."
    assert contents["params"] == b'{"num_ctx":1024,"stop":["c"],"temperature":0.5}\n'
    assert contents["messages"] == b'[{"role":"assistant","content":"ho"}]\n'
    manifest = present(finder.store.manifest(parse_name("mine")))
    assert len(manifest.all_of("application/vnd.ollama.image.license")) == 2
    assert manifest.layers[0].source == "base:latest"
    assert config(finder, "mine")["parser"] == "p"
    assert config(finder, "mine")["rootfs"]["diff_ids"] == [
        layer.digest for layer in manifest.layers
    ]


def test_the_packaged_model_can_be_the_base_with_its_own_parameters(finder: ModelFinder) -> None:
    made(finder, ModelRecipe("my-reviewer", base="smollm2:135m", system="You review."))
    assert json.loads(layers(finder, "my-reviewer")["params"]) == {"repeat_penalty": 1.1}
    facts = finder.find("my-reviewer")
    assert facts.digest == finder.find("smollm2:135m").digest
    assert (facts.params, facts.system) == ({"repeat_penalty": 1.1}, "You review.")
    assert config(finder, "my-reviewer")["model_type"] == "134.52M"
    assert config(finder, "my-reviewer")["file_type"] == "Q4_1"


def test_a_model_that_is_made_again_leaves_nothing_of_the_old_one(
    finder: ModelFinder, weights: Path
) -> None:
    made(finder, ModelRecipe("mine", files={"m.gguf": weights}, system="old"))
    made(finder, ModelRecipe("Mine", base="mine", system="new"))
    assert [name.short for name in finder.store.names()] == ["mine:latest"]
    assert layers(finder, "mine")["system"] == b"new"
    assert len(finder.store.blobs.digests()) == 3
    assert finder.store.check() == []


def test_projectors_and_adapters_are_known_by_their_headers(
    finder: ModelFinder, weights: Path, tmp_path: Path
) -> None:
    eyes = write_gguf(tmp_path / "mmproj.gguf", {"general.architecture": "clip"})
    lora = write_adapter(tmp_path / "lora.gguf", "blk.0.attn_q.weight", 8, 8, strength=1)
    recipe = ModelRecipe(
        "mine", files={"a.gguf": weights, "b.gguf": eyes}, adapters={"lora.gguf": lora}
    )
    made(finder, recipe)
    assert list(layers(finder, "mine")) == ["model", "projector", "adapter"]
    assert config(finder, "mine")["model_families"] == ["llama", "clip"]
    facts = finder.find("mine")
    assert facts.projector == str(finder.store.blobs.path(digest_of(eyes.read_bytes())))
    assert facts.adapters == (str(finder.store.blobs.path(digest_of(lora.read_bytes()))),)


def test_what_cannot_be_made_is_refused_in_ollamas_words(
    finder: ModelFinder, weights: Path, tmp_path: Path
) -> None:
    lora = write_adapter(tmp_path / "lora.gguf", "blk.0.attn_q.weight", 8, 8, strength=1)
    whole = ModelRecipe("mine", files={"m.gguf": weights})
    assert refusal(finder, ModelRecipe("mine")) == "neither 'from' or 'files' was specified"
    for path in ("../m.gguf", "/m.gguf", "a/../../b", "C:\\m.gguf", ""):
        assert (
            refusal(finder, replace(whole, files={path: weights})) == "file path must be relative"
        )
    for digest in ("sha256:12", "../x", ""):
        assert refusal(finder, replace(whole, files={"m": digest})) == "invalid digest format"
    two = replace(whole, adapters={"a": lora, "b": lora})
    assert refusal(finder, two) == "only one adapter is currently supported"
    assert refusal(finder, replace(whole, adapters={"a": weights})) == "a is not a LoRA adapter"
    only_adapter = ModelRecipe("mine", files={"lora.gguf": lora})
    assert refusal(finder, only_adapter) == "no files provided to convert"
    assert refusal(finder, replace(whole, requires="new")) == (
        "requires must be a valid semver (e.g. 0.14.0)"
    )
    assert refusal(finder, replace(whole, parameters={"top_k": "many"})) == (
        "parameter 'top_k' must be a whole number, not 'many'"
    )
    assert refusal(finder, replace(whole, parameters={"top_p": math.nan})) == (
        "parameter 'top_p' must be a number, not nan"
    )
    assert refusal(finder, replace(whole, template="{{ if .System }}")).startswith(
        "template error: "
    )
    assert refusal(finder, replace(whole, template="{% for %}")).startswith("template error: ")
    twice = replace(whole, files={"a.gguf": weights, "b.gguf": weights})
    assert refusal(finder, twice) == "b.gguf is a second model file; a model has one"
    assert refusal(finder, replace(whole, quantize="q9_z")).startswith(
        "unsupported quantization type 'q9_z' - supported types are Q8_0, Q6_K,"
    )


def test_an_adapter_for_another_kind_of_model_is_refused(
    finder: ModelFinder, weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lora.gguf"
    lora = write_adapter(path, "a.weight", 8, 8, strength=1, architecture="qwen2")
    recipe = ModelRecipe("mine", files={"m": weights}, adapters={"lora.gguf": lora})
    assert refusal(finder, recipe) == (
        "lora.gguf is an adapter for 'qwen2' models, and this one is 'llama'"
    )


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("m.gguf", b"something else" * 9, "supplied file was not in GGUF format"),
        ("m.bin", b"something else" * 9, "unknown type"),
        (
            "model.safetensors",
            struct.pack("<Q", 30) + b'{"a":{"dtype":"F16","shape":[]}}',
            "supplied file was not in GGUF format: model.safetensors: this is a safetensors file; "
            "convert it with llama.cpp's convert_hf_to_gguf.py",
        ),
        (
            "m.gguf",
            b"",
            "supplied file was not in GGUF format: m.gguf: too short for a model (0 bytes)",
        ),
    ],
)
def test_files_of_other_formats_are_refused_by_name(
    finder: ModelFinder, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(finder, ModelRecipe("mine", files={name: path})) == why


def test_a_split_model_is_made_of_all_its_parts_in_their_order(
    finder: ModelFinder, weights: Path, tmp_path: Path
) -> None:
    first, second = split_gguf(weights, tmp_path / "m.gguf")
    # Sent under names that tell nothing, the last part first.
    create_model(
        finder.store, finder, ModelRecipe("mine", files={"a": second, "b": first}), lambda _: None
    )
    facts = finder.find("mine")
    assert [Path(facts.path).read_bytes(), Path(facts.parts[0]).read_bytes()] == [
        first.read_bytes(), second.read_bytes()
    ]  # fmt: skip
    assert facts.size_bytes == first.stat().st_size + second.stat().st_size
    assert len(describe_model(finder, "mine").tensors) == len(read_header(weights).tensors)
    by_path = finder.find(str(first))
    assert by_path.digest == facts.digest and by_path.size_bytes == facts.size_bytes


def test_truncated_and_incomplete_files_are_refused(
    finder: ModelFinder, weights: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(weights.read_bytes()[:-100])
    assert refusal(finder, ModelRecipe("mine", files={"cut.gguf": cut})).startswith(
        "cut.gguf: the file is truncated: tensor 'token_embd.weight' ends at byte "
    )
    part = write_gguf(tmp_path / "p.gguf", {**LLAMA, "split.count": 3})
    assert refusal(finder, ModelRecipe("mine", files={"p.gguf": part})) == (
        "p.gguf: it is one of 3 parts of a split model, and part 2 is missing"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[ModelFinder]:
    """A store on a disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a full disk needs the right to mount one: {done.stderr.strip()}")
    yield ModelFinder(place, tmp_path / "cache")
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_model_and_nothing_half_of_the_new_one(
    small_disk: ModelFinder, weights: Path, loadable: Path
) -> None:
    made(small_disk, ModelRecipe("mine", files={"m.gguf": weights}, system="old"))
    before = small_disk.store.blobs.digests()
    for recipe in (
        ModelRecipe("mine", base="smollm2:135m"),
        ModelRecipe("mine", base="mine", system="new" * 400_000),
        ModelRecipe("mine", files={"trial.gguf": loadable}, quantize="q4_0"),
    ):
        with pytest.raises(StoreFull):
            made(small_disk, recipe)
        assert small_disk.store.blobs.digests() == before
        assert list(small_disk.store.blobs.folder.glob(".*")) == []
    assert small_disk.find("mine").system == "old"


@pytest.mark.parametrize(
    ("wish", "kind"), [("q8_0", "Q8_0"), ("q4_K_M", "Q4_K_M"), ("Q4_0", "Q4_0")]
)
def test_weights_are_written_in_another_format(
    finder: ModelFinder, loadable: Path, wish: str, kind: str
) -> None:
    lines = made(finder, ModelRecipe("mine", files={"trial.gguf": loadable}, quantize=wish))
    working = [line for line in lines if line.status == f"quantizing F16 model to {kind}"]
    assert working[0] == ProgressLine(f"quantizing F16 model to {kind}")
    assert working[-1].completed == working[-1].total != 0
    assert "verifying conversion" in statuses(lines)
    facts = finder.find("mine")
    assert read_header(Path(facts.path)).file_type == kind
    assert facts.size_bytes < loadable.stat().st_size
    assert config(finder, "mine")["file_type"] == kind
    assert f"creating new layer sha256:{facts.digest}" in statuses(lines)
    assert [path.name for path in (finder.store.root / "blobs").glob(".*")] == []
    assert len(finder.store.blobs.digests()) == 2


def test_the_format_that_it_has_already_is_no_work(finder: ModelFinder, weights: Path) -> None:
    lines = made(finder, ModelRecipe("mine", files={"m": weights}, quantize="f16"))
    assert not any("quantizing" in line.status for line in lines)
    assert finder.find("mine").digest == digest_of(weights.read_bytes()).removeprefix("sha256:")


def test_a_quantiser_that_dies_is_told_with_its_last_words_and_leaves_nothing(
    finder: ModelFinder, loadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os, sys; sys.stdin.buffer.read(16); sys.stderr.write('GGML_ASSERT'); os.abort()"
    )
    monkeypatch.setattr(model_creation, "_QUANTISER_COMMAND", ("python3", "-c", script))
    with pytest.raises(EngineError) as caught:
        made(finder, ModelRecipe("mine", files={"trial.gguf": loadable}, quantize="q8_0"))
    assert str(caught.value).endswith(
        "cannot be written in Q8_0: the process was killed by SIGABRT (GGML_ASSERT)"
    )
    assert finder.store.names() == []
    assert [path.name for path in (finder.store.root / "blobs").glob(".*")] == []
