from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.errors import InvalidName
from paddock.engine.models.model_names import (
    FileSource,
    HubSource,
    RegistrySource,
    UrlSource,
    choose_model_files,
    choose_projector,
    model_name_of_file,
    parse_name,
    parse_source,
    quantisation_label,
)
from paddock.engine.models.transfer import NoUsableModel


@dataclass(frozen=True)
class File:
    name: str


def files(*names: str) -> list[File]:
    return [File(name) for name in names]


@pytest.mark.parametrize(
    ("text", "kind", "name", "asked"),
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
def test_what_a_person_writes_is_understood(text: str, kind: type, name: str, asked: str) -> None:
    source = parse_source(text)
    assert (type(source), source.name.short, str(source)) == (kind, name, asked)


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


def test_the_asked_quantisation_is_taken_whatever_its_case() -> None:
    listed = files("m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-f16.gguf")
    assert choose_model_files(listed, "q8_0", "r")[0].name == "m-Q8_0.gguf"
    assert choose_model_files(listed, "F16", "r")[0].name == "m-f16.gguf"
    assert choose_model_files(listed, "m-F16.GGUF", "r")[0].name == "m-f16.gguf"


def test_without_a_wish_it_is_q4_k_m_or_the_first() -> None:
    assert (
        choose_model_files(files("m-Q2_K.gguf", "m-Q4_K_M.gguf"), "", "r")[0].name
        == "m-Q4_K_M.gguf"
    )
    assert (
        choose_model_files(files("README.md", "m-Q2_K.gguf", "m-Q8_0.gguf"), "", "r")[0].name
        == "m-Q2_K.gguf"
    )
    assert (
        choose_model_files(files("imatrix.gguf", "mmproj-F16.gguf", "m.gguf"), "", "r")[0].name
        == "m.gguf"
    )


def test_a_wish_that_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(NoUsableModel) as caught:
        choose_model_files(
            files("m-Q2_K.gguf", "m-Q8_0.gguf", "mmproj.gguf"), "Q4_0", "huggingface.co/o/r"
        )
    assert str(caught.value) == "huggingface.co/o/r: it has no Q4_0; it has Q2_K, Q8_0"
    with pytest.raises(
        NoUsableModel, match="there is no GGUF file in it; look for a repository named"
    ):
        choose_model_files(files("model.safetensors"), "", "huggingface.co/o/r")


def test_a_split_model_comes_with_all_its_parts_where_there_is_no_whole_one() -> None:
    split = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"]
    assert choose_model_files(files(*split, "m-Q2_K.gguf"), "", "r")[0].name == "m-Q2_K.gguf"
    assert [one.name for one in choose_model_files(files(*split), "Q8_0", "r")] == split
    with pytest.raises(
        NoUsableModel,
        match=r"00001-of-00002\.gguf: 'Q8_0/m-Q8_0-00002-of-00002\.gguf', a part of it,",
    ):
        choose_model_files(files(split[0]), "Q8_0", "r")


def test_a_projector_comes_along_at_half_precision() -> None:
    listed = files("m-Q8_0.gguf", "mmproj-m-F32.gguf", "mmproj-m-f16.gguf")
    found = choose_projector(listed)
    assert found is not None
    assert found.name == "mmproj-m-f16.gguf"
    assert choose_projector(files("m-Q8_0.gguf")) is None


def test_labels_are_read_from_names() -> None:
    told = {
        "Qwen3-30B-A3B-UD-Q4_K_XL.gguf": "UD-Q4_K_XL",
        "gpt-oss-20b-mxfp4.gguf": "MXFP4",
        "gemma-3-4b-it-q4_0.gguf": "Q4_0",
        "bge-small-en-v1.5-f32.gguf": "F32",
        "BF16/model-BF16-00001-of-00002.gguf": "BF16",
        "all-minilm-l6-v2.gguf": "",
        "SmolLM2-135M-Instruct.Q4_1.gguf": "Q4_1",
        "model-IQ3_XXS.gguf": "IQ3_XXS",
    }
    assert {name: quantisation_label(name) for name in told} == told


@given(st.one_of(st.text(max_size=300), st.from_regex(r"(hf:|https?://|hf\.co/|\./)?\S{0,60}")))
def test_whatever_is_written_is_a_source_or_an_invalid_name(text: str) -> None:
    try:
        source = parse_source(text)
    except InvalidName:
        return
    assert parse_name(source.name.full) == source.name
    assert str(source)


@given(st.text(max_size=100))
def test_every_files_name_gives_a_models_name_or_an_invalid_one(file: str) -> None:
    with suppress(InvalidName):
        name = model_name_of_file(f"{file}.gguf")
        assert parse_name(name.full) == name
