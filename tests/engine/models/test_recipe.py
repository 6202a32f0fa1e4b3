from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engine.models.modelfile import (
    ModelfileError,
    ModelRecipe,
    parse_modelfile,
    read_recipe,
)
from paddock.engine.request import Message


def read(text: str, folder: Path) -> ModelRecipe:
    return read_recipe("mine", parse_modelfile(text), folder)


def test_a_modelfile_is_read_as_a_recipe(tmp_path: Path) -> None:
    text = (
        "FROM smollm2\nTEMPLATE a\nTEMPLATE b\nSYSTEM s\nPARAMETER stop x\nPARAMETER stop y\n"
        "PARAMETER top_k 5\nPARAMETER top_k 6\nPARAMETER mirostat 2\nPARAMETER use_mmap 1\n"
        "MESSAGE user hi\nMESSAGE assistant ho\nLICENSE one\nLICENSE two\nREQUIRES 1.2.3"
    )
    assert read(text, tmp_path) == ModelRecipe(
        name="mine",
        base="smollm2",
        template="b",
        system="s",
        licenses=("one", "two"),
        parameters={"stop": ["x", "y"], "top_k": 6, "use_mmap": True},
        messages=(Message("user", "hi"), Message("assistant", "ho")),
        requires="1.2.3",
    )


def test_files_are_looked_for_beside_the_modelfile(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    (tmp_path / "lora.gguf").write_bytes(b"")
    recipe = read("FROM ./m.gguf\nADAPTER lora.gguf", tmp_path)
    assert recipe.files == {"m.gguf": tmp_path / "m.gguf"}
    assert recipe.adapters == {"lora.gguf": tmp_path / "lora.gguf"}
    assert recipe.base is None
    assert read(f"FROM {tmp_path}/m.gguf", tmp_path / "elsewhere").files == recipe.files


def test_a_folder_stands_for_the_gguf_files_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("mmproj.gguf", "m.gguf", "notes.txt"):
        (folder / name).write_bytes(b"")
    assert list(read("FROM ./model", tmp_path).files) == ["m.gguf", "mmproj.gguf"]


def test_a_name_is_a_name_though_a_folder_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    assert read("FROM smollm2", tmp_path).base == "smollm2"
    assert read("FROM " + "x" * 5000, tmp_path).base == "x" * 5000


def test_files_that_are_not_there_or_of_another_format_are_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "model.safetensors").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    text = "FROM ./gone.gguf\nFROM ./hf\nFROM ./empty\nADAPTER lora"
    with pytest.raises(ModelfileError) as caught:
        read_recipe("mine", parse_modelfile(text), tmp_path, path="M")
    assert str(caught.value) == (
        "M:1: there is no file './gone.gguf'\n"
        "M:2: './hf' holds weights in another format than GGUF; convert them with llama.cpp's "
        "convert_hf_to_gguf.py first\n"
        "M:3: './empty' is a folder without a GGUF file\n"
        "M:4: there is no file 'lora'"
    )
