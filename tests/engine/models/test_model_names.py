import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.errors import InvalidName
from paddock.engine.models.model_names import ModelName, parse_name, quantisation_label
from paddock.engine.models.pull_sources import (
    FileSource,
    HubSource,
    RegistrySource,
    UrlSource,
    parse_source,
)

FIRST = string.ascii_letters + string.digits + "_"


def part(signs: str, longest: int = 80) -> st.SearchStrategy[str]:
    rest = st.text(FIRST + signs, max_size=longest - 1)
    return st.builds(str.__add__, st.sampled_from(FIRST), rest)


NAMES = st.builds(ModelName, part("-.", 350), part("-"), part("-."), part("-."))


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("smol", "registry.ollama.ai/library/smol:latest", "smol:latest"),
        ("smol:135m", "registry.ollama.ai/library/smol:135m", "smol:135m"),
        ("library/smol", "registry.ollama.ai/library/smol:latest", "smol:latest"),
        ("eva/smol:x", "registry.ollama.ai/eva/smol:x", "eva/smol:x"),
        ("hf.co/o/r-GGUF:Q4_K_M", "hf.co/o/r-GGUF:Q4_K_M", "hf.co/o/r-GGUF:Q4_K_M"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
        ("http://h:1/a/b:c", "h:1/a/b:c", "h:1/a/b:c"),
        ("_x", "registry.ollama.ai/library/_x:latest", "_x:latest"),
        ("Registry.Ollama.AI/Library/A", "Registry.Ollama.AI/Library/A:latest", "A:latest"),
    ],
)
def test_what_a_name_leaves_out_is_the_defaults(text: str, full: str, short: str) -> None:
    name = parse_name(text)
    assert (name.full, name.short) == (full, short)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", "a/", "/a", "a:", ":a", "a//b", "../a", "a/../b", "..", ".", "a:..", "-a",
        "a b", "a\n", "a\0", "é", "a:é", "a/b/c/d", "n.s/a", "a" * 81,
        "a:" + "b" * 81, "x" * 10_000,
        "h" * 351 + "/a/b", "a:b:c", "a@b", "a+b", "ftp://h/a/b", "http://a/b", "http://", "a\\b",
        "~/a", "c:/x",
    ],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name(text)
    assert caught.value.text == text
    assert len(str(caught.value)) < 400


def test_the_refusal_says_which_part_is_wrong_and_how_names_are_written() -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name("team.a/model")
    assert str(caught.value) == (
        "invalid model name 'team.a/model': its namespace cannot be 'team.a'. Names are "
        "[host/][namespace/]model[:tag], of letters, digits, '_', '-' and '.'."
    )


@given(NAMES)
def test_every_name_is_read_back_from_both_of_its_forms(name: ModelName) -> None:
    assert parse_name(name.full) == name
    assert parse_name(name.short).key == name.key


@given(st.text(max_size=60) | st.text(FIRST + "-.:/\\~", max_size=60))
def test_whatever_is_read_as_a_name_is_a_place_four_steps_below_the_manifests(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidName:
        return
    path = PurePosixPath("manifests").joinpath(*name.parts)
    assert len(path.parts) == 5
    assert not {"..", "."} & set(path.parts)


@pytest.mark.parametrize(
    ("text", "kind", "name", "written"),
    [
        ("smollm2:135m", RegistrySource, "smollm2:135m", "registry.ollama.ai/library/smollm2:135m"),
        (
            "localhost:5000/t/m",
            RegistrySource,
            "localhost:5000/t/m:latest",
            "localhost:5000/t/m:latest",
        ),
        ("http://reg/t/m:v", RegistrySource, "reg/t/m:v", "reg/t/m:v"),
        ("hf:o/r", HubSource, "hf.co/o/r:latest", "huggingface.co/o/r"),
        ("hf:o/r:Q8_0", HubSource, "hf.co/o/r:Q8_0", "huggingface.co/o/r"),
        ("hf.co/o/R-GGUF:Q4_K_M", HubSource, "hf.co/o/R-GGUF:Q4_K_M", "huggingface.co/o/R-GGUF"),
        ("huggingface.co/o/r", HubSource, "huggingface.co/o/r:latest", "huggingface.co/o/r"),
        ("https://huggingface.co/o/r", HubSource, "hf.co/o/r:latest", "huggingface.co/o/r"),
        (
            "https://huggingface.co/o/r/resolve/main/sub/m-Q6_K.gguf?download=true",
            HubSource,
            "hf.co/o/r:Q6_K",
            "huggingface.co/o/r",
        ),
        ("hf.co/o/r:m-Q6_K.gguf", HubSource, "hf.co/o/r:m-Q6_K.gguf", "huggingface.co/o/r"),
        (
            "https://e.org/a%20b/My%20Model-7B.Q5_K_S.gguf",
            UrlSource,
            "my-model-7b:Q5_K_S",
            "https://e.org/a%20b/My%20Model-7B.Q5_K_S.gguf",
        ),
        ("./Mini.gguf", FileSource, "mini:latest", "Mini.gguf"),
        ("/srv/m/Mini-F16.gguf", FileSource, "mini:F16", "/srv/m/Mini-F16.gguf"),
        ("file:///srv/m/Q8_0.gguf", FileSource, "q8_0:latest", "/srv/m/Q8_0.gguf"),
    ],
)
def test_what_a_person_writes_is_understood(text: str, kind: type, name: str, written: str) -> None:
    source = parse_source(text)
    assert (type(source), source.name.short, str(source)) == (kind, name, written)


def test_a_name_can_be_given_where_the_source_has_none() -> None:
    for text in ("hf:o/r", "https://e.org/x.gguf", "./x.gguf"):
        assert parse_source(text, "team/mine:1").name.short == "team/mine:1"
    with pytest.raises(InvalidName, match="a model of a registry keeps its name"):
        parse_source("smollm2", "mine")


@pytest.mark.parametrize(
    "text",
    [
        "hf:o",
        "hf:",
        "hf.co/o/r/x",
        "https://u:p@e.org/x.gguf",
        "ftp://e.org/x",
        "hf:../..",
        "ü",
        "http://[x",
        "~nobody99/x.gguf",
        "https://e.org:99999/x.gguf",
        "https:///x.gguf",
    ],
)
def test_what_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_source(text)
    assert "u:p" not in str(caught.value)


def test_labels_are_read_from_names() -> None:
    labels = {
        "Qwen3-30B-A3B-UD-Q4_K_XL.gguf": "UD-Q4_K_XL",
        "gpt-oss-20b-mxfp4.gguf": "MXFP4",
        "gemma-3-4b-it-q4_0.gguf": "Q4_0",
        "bge-small-en-v1.5-f32.gguf": "F32",
        "BF16/model-BF16-00001-of-00002.gguf": "BF16",
        "all-minilm-l6-v2.gguf": "",
        "SmolLM2-135M-Instruct.Q4_1.gguf": "Q4_1",
        "model-IQ3_XXS.gguf": "IQ3_XXS",
    }
    assert {name: quantisation_label(name) for name in labels} == labels


@given(st.one_of(st.text(max_size=300), st.from_regex(r"(hf:|https?://|hf\.co/|\./)?\S{0,60}")))
def test_whatever_is_written_is_a_source_or_an_invalid_name(text: str) -> None:
    try:
        source = parse_source(text)
    except InvalidName:
        return
    assert parse_name(source.name.full) == source.name
    assert str(source)
