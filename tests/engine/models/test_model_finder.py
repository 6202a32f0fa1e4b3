import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.errors import InvalidName, ModelBroken, ModelNotFound
from paddock.engine.gguf import FILE_SAMPLING, SAMPLING_KEYS
from paddock.engine.llama.build import find_build
from paddock.engine.models.model_creation import create_model
from paddock.engine.models.model_defaults import merged_sampling
from paddock.engine.models.model_finder import ModelFinder, sampling_params
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_recipe import read_recipe
from paddock.engine.models.modelfile import parse_modelfile
from paddock.engine.models.well_known import MEASURED
from paddock.engine.request import ChatRequest, ModelSpec, resolve_sampling
from paddock.engine.tuning.tuned_copies import OPENVINO, TunedCopy, copy_place
from tests.fakes.gguf import LLAMA, Value, write_gguf


def finder(tmp_path: Path) -> ModelFinder:
    return ModelFinder(tmp_path / "models", tmp_path / "cache")


def store(tmp_path: Path, host: str, namespace: str, model: str, tag: str) -> str:
    """Put the bundled embedding model into a store in Ollama's layout; gives its digest."""
    source = finder(tmp_path).locate("all-minilm").path
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    blobs = tmp_path / "models" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, blobs / f"sha256-{digest}")
    manifest = tmp_path / "models" / "manifests" / host / namespace / model / tag
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
    return digest


def test_the_default_models_are_found_without_a_store(tmp_path: Path) -> None:
    assert finder(tmp_path).names() == ("all-minilm", "smollm2:135m")
    facts = finder(tmp_path).find("smollm2:135m")
    assert (facts.role, facts.n_ctx_train_tokens, facts.n_ctx_tokens) == ("chat", 8192, 4096)
    assert "64 of 100" in MEASURED[facts.identity]
    facts = finder(tmp_path).find("all-minilm")
    assert (facts.role, facts.n_ctx_tokens) == ("embed", 512)


@pytest.mark.parametrize(
    ("host", "namespace", "ref"),
    [
        ("registry.ollama.ai", "library", "mini"),
        ("registry.ollama.ai", "library", "mini:latest"),
        ("registry.ollama.ai", "library", "library/mini"),
        ("registry.ollama.ai", "somebody", "somebody/mini"),
        ("localhost:5000", "team", "localhost:5000/team/mini:latest"),
    ],
)
def test_a_store_of_ollama_is_used_in_place(
    tmp_path: Path, host: str, namespace: str, ref: str
) -> None:
    digest = store(tmp_path, host, namespace, "mini", "latest")
    assert finder(tmp_path).find(ref).digest == digest
    assert finder(tmp_path).locate(ref).origin == "store"


def test_a_missing_model_is_named_with_the_known_ones_and_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        finder(tmp_path).find("llama3.2:3b")
    assert str(caught.value) == (
        "model 'llama3.2:3b' is not on this machine. Known: 'all-minilm', 'smollm2:135m'. "
        "Bring it with `paddock pull llama3.2:3b`, or name the path of a GGUF file."
    )


def test_a_truncated_model_is_left_out_of_the_list_and_told_apart(tmp_path: Path) -> None:
    digest = store(tmp_path, "registry.ollama.ai", "library", "cut", "latest")
    blob = tmp_path / "models" / "blobs" / f"sha256-{digest}"
    blob.write_bytes(blob.read_bytes()[:1_000_000])
    with pytest.raises(ModelBroken, match="truncated"):
        finder(tmp_path).find("cut")
    assert [found.name for found, _ in finder(tmp_path).list()] == ["smollm2:135m", "all-minilm"]
    assert [Path(error.path).name for error in finder(tmp_path).broken()] == [blob.name]


def test_a_digest_is_read_again_only_when_the_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    shutil.copy(finder(tmp_path).locate("all-minilm").path, path)
    first = finder(tmp_path).find(str(path)).digest
    cache = tmp_path / "cache" / "digests.json"
    cache.write_text(cache.read_text().replace(first, "f" * 64))
    assert finder(tmp_path).find(str(path)).digest == "f" * 64
    path.touch()
    assert finder(tmp_path).find(str(path)).digest == first


def test_a_projector_is_found_in_the_manifest_or_next_to_the_file(tmp_path: Path) -> None:
    digest = store(tmp_path, "registry.ollama.ai", "library", "eyed", "latest")
    assert finder(tmp_path).find("eyed").projector is None
    blob = tmp_path / "models" / "blobs" / f"sha256-{'e' * 64}"
    blob.write_bytes(b"GGUF")
    manifest = next((tmp_path / "models" / "manifests").glob("*/*/eyed/latest"))
    layers = json.loads(manifest.read_text())
    kind = "application/vnd.ollama.image.projector"
    layers["layers"].append({"mediaType": kind, "digest": f"sha256:{'e' * 64}"})
    manifest.write_text(json.dumps(layers))
    assert finder(tmp_path).find("eyed").projector == str(blob)
    folder = tmp_path / "repo"
    folder.mkdir()
    model = folder / "Gemma-3-4b-it-Q4_K_M.gguf"
    shutil.copy(tmp_path / "models" / "blobs" / f"sha256-{digest}", model)
    (folder / "mmproj-model-f16.gguf").write_bytes(b"GGUF")
    found = finder(tmp_path).find(str(model)).projector
    assert found == str(folder / "mmproj-model-f16.gguf")
    (folder / "mmproj-gemma-3-4b.gguf").write_bytes(b"GGUF")
    (folder / "other-1b.gguf").write_bytes(b"GGUF")
    found = finder(tmp_path).find(str(model)).projector
    assert found == str(folder / "mmproj-gemma-3-4b.gguf")


def test_a_parameter_that_cannot_be_used_is_no_reason_to_refuse_requests() -> None:
    params = {"temperature": "hot", "seed": 7, "stop": "x", "top_k": 1.5, "penalize_newline": True}
    assert sampling_params(params) == {"seed": 7, "stop": ("x",)}


def test_a_name_is_found_in_any_case_and_never_taken_for_a_path(tmp_path: Path) -> None:
    assert finder(tmp_path).locate("SmolLM2:135M").name == "smollm2:135m"
    with pytest.raises(ModelNotFound):
        finder(tmp_path).locate("mine:x.gguf")
    with pytest.raises(ModelNotFound):
        finder(tmp_path).named(parse_name("a.gguf"))
    with pytest.raises(InvalidName):
        finder(tmp_path).find("a b")


def test_a_model_with_an_ir_has_the_sizes_of_both_files(tmp_path: Path) -> None:
    models = finder(tmp_path)
    original = models.find("smollm2:135m")
    (tmp_path / "ir.bin").write_bytes(b"tuned")
    ir = str(tmp_path / "ir.bin")
    tuned = TunedCopy(
        "smollm2:135m", original.digest, "", copy_place(), "", "f" * 64, ir, OPENVINO, 5
    )
    models.tuned.keep(tuned)
    found = models.find("smollm2:135m")
    assert (found.path, found.size_bytes) == (original.path, original.size_bytes)
    assert (found.ir, found.ir_bytes, found.digest) == (ir, 5, "f" * 64)


def test_a_deleted_model_goes_with_its_blobs_and_its_tuned_copy(tmp_path: Path) -> None:
    models = finder(tmp_path)
    original = store(tmp_path, "registry.ollama.ai", "library", "mini", "latest")
    copy = models.store.blobs.add(b"tuned").removeprefix("sha256:")
    path = str(models.store.blobs.path(f"sha256:{copy}"))
    tuned = TunedCopy("mini:latest", original, "", copy_place(), "", copy, path, "Q8_0", 5)
    models.tuned.keep(tuned)
    assert models.needed_digests() == {copy}
    assert models.store.prune(min_age_s=0, keep=models.needed_digests()) == []
    assert models.delete("Mini") == [f"sha256:{original}"]
    assert models.tuned.find(original) is None
    assert models.store.blobs.digests() == ()
    with pytest.raises(ModelNotFound):
        models.delete("smollm2:135m")


@pytest.mark.parametrize(
    ("of_file", "parameters", "expected"),
    [
        ({"temp": 0.6}, "", {"temperature": 0.6}),
        ({"temp": 0.0, "top_k": np.int32(20)}, "", {"temperature": 0, "top_k": 20}),
        ({"temp": 1}, "", {"temperature": 1}),
        ({"top_p": 0.95, "min_p": 0.05}, "", {"top_p": 0.95, "min_p": 0.05}),
        (
            {"penalty_last_n": np.int32(-1), "penalty_repeat": 1.05},
            "",
            {"repeat_last_n": -1, "repeat_penalty": 1.05},
        ),
        ({"temp": 0.6, "top_k": 20}, "temperature 0.2", {"temperature": 0.2, "top_k": 20}),
        ({"top_k": np.int32(-1)}, "", {"top_k": -1}),
        ({"temp": -1.0, "top_p": 1.5, "penalty_repeat": 0.0, "min_p": 0.1}, "", {"min_p": 0.1}),
        ({"temp": math.nan, "top_p": math.inf, "top_k": "many", "min_p": True}, "", {}),
        ({"mirostat": 2, "xtc_probability": 0.5, "sequence": "temp;top_k", "typ_p": 0.5}, "", {}),
    ],
)
def test_sampling_values_of_the_file_hold_where_the_modelfile_has_none(
    tmp_path: Path, of_file: dict[str, Value], parameters: str, expected: dict[str, float]
) -> None:
    values = {f"general.sampling.{key}": value for key, value in of_file.items()}
    write_gguf(tmp_path / "m.gguf", {**LLAMA, **values})
    text = "FROM ./m.gguf" + (f"\nPARAMETER {parameters}" if parameters else "")
    found = finder(tmp_path)
    recipe = read_recipe("mine", parse_modelfile(text), tmp_path)
    create_model(found.store, found, recipe, lambda _: None)
    assert finder(tmp_path).find("mine").params == expected
    assert finder(tmp_path).find("mine").params == expected, "as it was kept"
    ours = {"temperature": 0.8, "top_k": 40}
    chat = ChatRequest(ModelSpec("mine"), (), {"min_p": 0.3}, defaults=ours)
    sampling = merged_sampling(chat, found.find("mine"))
    assert sampling == resolve_sampling({"min_p": 0.3}, expected, ours)


@pytest.mark.parametrize(
    ("of_request", "of_modelfile", "of_file", "expected"),
    [(0.9, 0.2, 0.6, 0.9), (None, 0.2, 0.6, 0.2), (None, None, 0.6, 0.6), (None, None, None, 0.8)],
)
def test_a_value_is_the_requests_else_the_modelfiles_else_the_files_else_ours(
    tmp_path: Path,
    of_request: float | None,
    of_modelfile: float | None,
    of_file: float | None,
    expected: float,
) -> None:
    values: dict[str, Value] = {"general.sampling.temp": of_file} if of_file else {}
    write_gguf(tmp_path / "m.gguf", {**LLAMA, **values})
    own = f"\nPARAMETER temperature {of_modelfile}" if of_modelfile else ""
    found = finder(tmp_path)
    recipe = read_recipe("mine", parse_modelfile(f"FROM ./m.gguf{own}"), tmp_path)
    create_model(found.store, found, recipe, lambda _: None)
    params = {"temperature": of_request} if of_request else {}
    chat = ChatRequest(ModelSpec("mine"), (), params, defaults={"temperature": 0.8})
    assert merged_sampling(chat, found.find("mine")).temperature == expected


def test_each_sampling_value_that_llama_cpp_reads_of_a_file_is_obeyed_or_named() -> None:
    written = b"".join(path.read_bytes() for path in find_build().files)
    known = {key.decode() for key in re.findall(rb"general\.sampling\.([a-z_]+)", written)}
    obeyed = {key.removeprefix(SAMPLING_KEYS) for key in FILE_SAMPLING}
    others = {
        "sequence",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "xtc_probability",
        "xtc_threshold",
    }
    assert known == obeyed | others
