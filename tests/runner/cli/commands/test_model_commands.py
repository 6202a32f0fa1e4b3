"""Models here: listed, copied, removed, checked, pruned; by a service, and without one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.gguf import write_gguf
from tests.live import live_service
from tests.runner.cli.commands.shell import invoke


@pytest.fixture(params=["here", "service"])
def root(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A home with one model, `tiny`; with a running service that has it, or with none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    write_gguf(tmp_path / "tiny.gguf")
    assert invoke("pull", "./tiny.gguf").exit_code == 0
    if request.param == "here":
        yield tmp_path
        return
    with live_service(tmp_path) as service:
        monkeypatch.setenv("PADDOCK_HOST", service.url)
        yield tmp_path


def names() -> set[str]:
    return {model["name"] for model in json.loads(invoke("list", "--json").stdout)["models"]}


def test_models_are_copied_listed_and_removed(root: Path) -> None:
    assert "tiny:latest" in names()
    assert invoke("cp", "tiny", "second").exit_code == 0
    assert {"tiny:latest", "second:latest"} <= names()
    removed = invoke("rm", "tiny", "second")
    assert (removed.exit_code, removed.stderr) == (0, "Removed 'tiny'.\nRemoved 'second'.\n")
    assert not {"tiny:latest", "second:latest"} & names()
    assert list((root / "models/blobs").glob("sha256-*")) == []


def test_a_model_is_shown_as_a_whole_and_in_parts(root: Path) -> None:
    assert "    context length    2048" in invoke("show", "tiny").stdout
    assert invoke("show", "tiny", "--modelfile").stdout.startswith("# Modelfile written by")
    info = json.loads(invoke("show", "tiny", "--json").stdout)["model_info"]
    assert info["general.architecture"] == "llama"
    assert "token_embd.weight" in invoke("show", "tiny", "--verbose").stdout
    both = invoke("show", "tiny", "--system", "--license")
    assert (both.exit_code, both.stderr) == (2, "Only one part can be shown at a time.\n")
    missing = invoke("show", "absent")
    assert missing.exit_code == 1
    assert "absent" in missing.stderr


def test_a_model_is_made_by_a_modelfile(root: Path) -> None:
    modelfile = root / "Modelfile"
    modelfile.write_text("FROM ./tiny.gguf\nSYSTEM Be brief.\nPARAMETER temperature 0.2\n")
    made = invoke("create", "mine")
    assert (made.exit_code, made.stdout) == (
        0,
        "Made 'mine:latest'.\nNext: paddock chat mine:latest\n",
    )
    assert invoke("show", "mine", "--system").stdout == "Be brief.\n"
    assert invoke("show", "mine", "--parameters").stdout.split() == ["temperature", "0.2"]
    other = "FROM mine\nSYSTEM Be long.\n"  # as a shell of Windows writes it
    (root / "Other").write_text(other, "utf-16")
    assert invoke("create", "other", "-f", "Other").exit_code == 0
    assert invoke("show", "other", "--system").stdout == "Be long.\n"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (None, 2, "There is no file 'Modelfile'.\n  Name it: `paddock create NEW -f FILE`.\n"),
        ("FORM tiny\nPARAMETER top_k many\n", 1, "Modelfile:1: "),
        ("FROM ./gone.gguf\n", 1, "Modelfile:1: there is no file './gone.gguf'\n"),
    ],
)
def test_a_modelfile_that_cannot_be_used_is_told(
    root: Path, text: str | None, status: int, words: str
) -> None:
    if text is not None:
        (root / "Modelfile").write_text(text)
    result = invoke("create", "mine", "--json")
    assert result.exit_code == status
    assert result.stderr.startswith(words)
    assert json.loads(result.stdout) == {"ok": False, "error": result.stderr.rstrip("\n")}


def test_a_corrupt_blob_is_named(root: Path) -> None:
    fine = invoke("check")
    assert (fine.exit_code, fine.stdout) == (
        0,
        f"{root / 'models'}: every blob has the digest of its name.\n",
    )
    blob = max((root / "models/blobs").glob("sha256-*"), key=lambda path: path.stat().st_size)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    found = invoke("check", "tiny", "--json")
    assert found.exit_code == 1
    assert str(blob) in found.stderr
    (fault,) = json.loads(found.stdout)["faults"]
    assert (fault["kind"], fault["models"]) == ("corrupt", ["tiny:latest"])
