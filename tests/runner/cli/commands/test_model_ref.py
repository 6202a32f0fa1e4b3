"""The models that commands are given: names, and paths of GGUF files."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from paddock.runner.cli import model_arguments
from paddock.runner.cli.exit_status import CommandError
from tests.runner.cli.commands.shell import paddock_here as paddock


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a real model, whose parent is the home folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(str(files("paddock.examples") / "models/all-minilm-l6-v2.gguf"), here / "vec.gguf")
    return here


@pytest.mark.parametrize("ref", ["vec.gguf", "./vec.gguf", "../here/vec.gguf", "~/here/vec.gguf"])
def test_a_path_is_read_as_a_shell_reads_it(ref: str, folder: Path) -> None:
    assert model_arguments.resolve_model_ref(ref) == str(folder / "vec.gguf")


def test_what_is_a_name_stays_one() -> None:
    for name in ("smollm2:135m", "team/mini:v1.gguf", "hf.co/team/Mini-GGUF:Q8_0"):
        assert model_arguments.resolve_model_ref(name) == name
    assert (
        model_arguments.resolve_model_ref("hf:team/Mini-GGUF/mini-Q8_0.gguf")
        == "hf.co/team/Mini-GGUF:Q8_0"
    )


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("./vek.gguf",
         "no such file: './vek.gguf'.\n  Known: 'vec.gguf'. Did you mean 'vec.gguf'?"),
        ("none/vec.gguf", "no such file: 'none/vec.gguf'."),
        ("../here", "'../here': this is a folder, and a model is one file; it has 'vec.gguf'."),
        ("./letter", "'./letter': this is not a GGUF file."),
    ],
)  # fmt: skip
def test_a_path_that_leads_to_no_model_is_told_by_chat_embed_and_show(
    ref: str, words: str, folder: Path
) -> None:
    (folder / "letter").write_text("Dear all")
    with pytest.raises(CommandError) as caught:
        model_arguments.resolve_model_ref(ref)
    assert str(caught.value) == words


def test_chat_embed_and_show_take_a_file(folder: Path, tmp_path: Path) -> None:
    environ = {"PADDOCK_HOME": str(tmp_path / "home"), "PADDOCK_HOST": "127.0.0.1:1"}
    shown = paddock("show", "./vec.gguf", environ=environ, cwd=folder)
    assert "bert" in shown.out and str(folder / "vec.gguf") in shown.out
    embedded = paddock("embed", "./vec.gguf", "ferry", environ=environ, cwd=folder)
    assert len(json.loads(embedded.out)) == 384
    talked = paddock("chat", "./vec.gguf", "ferry", environ=environ, cwd=folder)
    assert (talked.status, talked.err.splitlines()[0]) == (
        1,
        f"'{folder}/vec.gguf' is not a chat model.",
    )
    for command in ("chat", "embed", "show"):
        none = paddock(command, "x.gguf", *["x"][: command != "show"], environ=environ, cwd=folder)
        assert (none.status, none.err.splitlines()[0]) == (2, "no such file: 'x.gguf'.")
