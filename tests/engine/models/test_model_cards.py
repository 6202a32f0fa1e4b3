"""What is told of a model, by its manifest and its file's header, without loading it."""

from pathlib import Path

import pytest

from paddock.engine.chat.known_templates import CHATML
from paddock.engine.errors import ModelBroken, RecipeRefused
from paddock.engine.gguf import SUPPRESSED
from paddock.engine.models.manifests import (
    CONFIG_TYPE,
    LICENSE_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    TEMPLATE_TYPE,
    ManifestLayer,
    make_manifest,
)
from paddock.engine.models.model_cards import (
    ModelDetails,
    describe_model,
    list_cards,
    weight_count_text,
)
from paddock.engine.models.model_creation import copy_model, create_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_recipe import ModelRecipe, read_recipe
from paddock.engine.models.modelfile import parse_modelfile
from paddock.engine.models.transfer import ProgressLine
from paddock.engine.request import Message
from paddock.engine.system.records import replace
from tests.fakes.gguf import LLAMA, Value, write_gguf
from tests.optional import present

JINJA = (
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if enable_thinking %}<think>{% endif %}</think>"
)


def make(
    finder: ModelFinder, name: str, values: dict[str, Value], recipe: ModelRecipe | None
) -> Path:
    """Make a model of a small file; gives the file."""
    path = write_gguf(finder.models_dir.parent / f"{name}.gguf", {**LLAMA, **values})
    if recipe is not None:
        create_model(finder.store, finder, recipe, lambda _: None)
    return path


def test_a_copy_under_the_packaged_name_is_listed_once(finder: ModelFinder) -> None:
    copy_model(finder.store, finder, parse_name("all-minilm"), parse_name("all-minilm"))
    listed = {card.name: card.origin for card in list_cards(finder)}
    assert listed == {"all-minilm:latest": "store", "smollm2:135m": "package"}


def test_a_stored_model_tells_what_its_modelfile_said(finder: ModelFinder, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {**LLAMA, "general.file_type": 15})
    text = (
        "FROM ./m.gguf\nTEMPLATE " + JINJA + '\nSYSTEM """Be\nbrief."""\nPARAMETER stop "a b"\n'
        "PARAMETER stop c\nPARAMETER temperature 0.5\nPARAMETER num_ctx 512\n"
        "MESSAGE user hi\nMESSAGE assistant ho\nLICENSE MIT\nLICENSE Apache\nREQUIRES 0.9.0\n"
    )
    recipe = read_recipe("eva/mine", parse_modelfile(text), tmp_path)
    create_model(finder.store, finder, recipe, lambda _: None)
    manifest = present(finder.store.manifest(parse_name("eva/mine")))
    card = describe_model(finder, "Eva/Mine")
    assert (card.name, card.digest) == ("eva/mine:latest", manifest.digest)
    assert card.size_bytes == manifest.size_bytes > path.stat().st_size
    assert card.details.quantization_level == "Q4_K_M"
    assert card.capabilities == ("completion", "tools", "thinking", "decision")
    assert card.license == "MIT\nApache"
    assert (card.system, card.template, card.requires) == ("Be\nbrief.", JINJA, "0.9.0")
    assert card.messages == (Message("user", "hi"), Message("assistant", "ho"))
    assert card.parameters.splitlines() == [
        "num_ctx                        512",
        'stop                           "a b"',
        'stop                           "c"',
        "temperature                    0.5",
    ]
    again = read_recipe("other", parse_modelfile(card.modelfile), tmp_path)
    create_model(finder.store, finder, again, lambda _: None)
    other = describe_model(finder, "other")
    assert (other.template, other.system, other.parameters, other.messages, other.license) == (
        card.template,
        card.system,
        card.parameters,
        card.messages,
        card.license,
    )


def test_a_manifest_of_ollamas_registry_is_read(finder: ModelFinder, tmp_path: Path) -> None:
    raw = write_gguf(tmp_path / "m.gguf").read_bytes()
    config = (
        b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],'
        b'"model_type":"3.2B","file_type":"Q4_K_M","architecture":"amd64","os":"linux",'
        b'"rootfs":{"type":"layers","diff_ids":[]}}'
    )
    params = b'{"stop":["<|start_header_id|>","<|end_header_id|>","<|eot_id|>"],"num_keep":24}'
    go = b"{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ end }}"
    parts = ((MODEL_TYPE, raw), (LICENSE_TYPE, b"LLAMA 3.2"), (PARAMS_TYPE, params),
             (TEMPLATE_TYPE, go))  # fmt: skip
    layers = [ManifestLayer(kind, finder.store.blobs.add(text), len(text)) for kind, text in parts]
    head = ManifestLayer(CONFIG_TYPE, finder.store.blobs.add(config), len(config))
    finder.store.put_manifest(parse_name("llama3.2:3b"), make_manifest(head, layers))
    card = describe_model(finder, "llama3.2:3b")
    assert card.details == ModelDetails("gguf", "llama", ("llama",), "3.2B", "Q4_K_M", 2048, 64)
    assert card.parameters.splitlines()[0] == 'stop                           "<|start_header_id|>"'
    assert finder.find("llama3.2:3b").params == {
        "stop": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    }
    # What `show` prints can be created, though a Go template of no known family is refused else
    again = read_recipe("again", parse_modelfile(card.modelfile), tmp_path)
    lines: list[ProgressLine] = []
    create_model(finder.store, finder, again, lines.append)
    assert describe_model(finder, "again").template == card.template == go.decode()
    assert [line.status for line in lines[-3:]] == [
        "the template is in Go's language: the model's file's own is used, or its family's",
        "writing manifest",
        "success",
    ]
    with pytest.raises(RecipeRefused, match="template error: the chat template is written in Go"):
        create_model(finder.store, finder, replace(again, template=f"{again.template}!"), print)
    chatml = "{{ range .Messages }}<|im_start|>{{ .Role }} {{ .Content }}<|im_end|>{{ end }}"
    by_family = replace(again, template=f"{chatml}<|im_start|>assistant")
    create_model(finder.store, finder, by_family, lambda _: None)
    assert describe_model(finder, "again").template == CHATML


def test_a_model_that_fills_in_by_its_tokens_says_so_as_editors_look_for_it(
    finder: ModelFinder,
) -> None:
    tokens = ["a", "b", "c", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    path = make(
        finder, "m", {"tokenizer.ggml.tokens": tokens, "tokenizer.chat_template": "x"}, None
    )
    card = describe_model(finder, str(path))
    assert card.capabilities == ("completion", "insert", "decision")
    assert card.template == (
        "{{- if .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}<|fim_middle|>"
        "{{- else }}x{{- end }}"
    )


def test_what_a_file_says_of_decoding_is_told(finder: ModelFinder, tmp_path: Path) -> None:
    never = list(range(100, 130))
    values: dict[str, Value] = {"general.sampling.temp": 0.6, "general.sampling.mirostat": 2}
    write_gguf(tmp_path / "m.gguf", {**LLAMA, **values, SUPPRESSED: never, "x.many": never})
    text = parse_modelfile("FROM ./m.gguf\nPARAMETER top_k 5\nPARAMETER num_ctx 512\n")
    create_model(finder.store, finder, read_recipe("mine", text, tmp_path), lambda _: None)
    card = describe_model(finder, "mine")
    assert card.parameters.split() == ["temperature", "0.6", "num_ctx", "512", "top_k", "5"]
    assert "temperature" not in card.modelfile, "a model made from it has the file"
    assert (card.model_info[SUPPRESSED], card.model_info["x.many"]) == (never, [])
    assert card.model_info["general.sampling.mirostat"] == 2
    row = next(card for card in list_cards(finder) if card.name == "mine:latest")
    assert row.of_file == {"temperature": 0.6, "suppress_tokens": 30}


def test_a_broken_file_is_listed_by_its_config_and_said_to_be_broken(
    finder: ModelFinder, tmp_path: Path
) -> None:
    weights = write_gguf(tmp_path / "m.gguf")
    create_model(finder.store, finder, ModelRecipe("mine", files={"m": weights}), lambda _: None)
    blob = finder.locate("mine").path
    blob.write_bytes(blob.read_bytes()[:-9])
    row = next(card for card in list_cards(finder) if card.name == "mine:latest")
    assert (row.capabilities, row.details.family) == ((), "llama")
    with pytest.raises(ModelBroken, match="truncated"):
        describe_model(finder, "mine")
    blob.unlink()
    with pytest.raises(ModelBroken) as caught:
        describe_model(finder, "mine")
    assert caught.value.path == str(blob)


def test_weights_are_counted_as_ollama_does() -> None:
    numbers = (999, 22_565_376, 134_515_008, 7_241_732_096, 8_000_000_000, 4500)
    assert [weight_count_text(number) for number in numbers] == [
        "999", "22.57M", "134.52M", "7.2B", "8B", "4K",
    ]  # fmt: skip


def test_a_model_that_decides_by_layers_of_its_own_says_so_and_is_refused(
    finder: ModelFinder,
) -> None:
    path = make(finder, "kev", {"llama.decision.type": "kev"}, None)
    assert describe_model(finder, str(path)).capabilities == ("decision",)
    with pytest.raises(ModelBroken, match=r"it decides by layers \('kev'\) that are not computed"):
        finder.find(str(path))
