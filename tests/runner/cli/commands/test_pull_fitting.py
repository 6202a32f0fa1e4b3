"""A model that will not fit this machine is told early."""

import json
from pathlib import Path

import pytest

from paddock.engine.models.well_known import WELL_KNOWN, Machine, MachineSpeed
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.runner.cli.commands import model_transfers
from tests.fakes.far_side import far_side, gguf
from tests.runner.cli.commands.shell import invoke


def test_a_layer_larger_than_the_machine_is_told_while_it_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        model_transfers, "_largest_memory", lambda: (8_000_000_000, "this machine's memory")
    )
    watch = model_transfers.FitWarning(PoolSettings(models_dir=tmp_path, cache_dir=tmp_path))
    watch.on_size(5_000_000_000)
    assert capsys.readouterr().err == ""
    watch.on_size(40_000_000_000)
    watch.on_size(41_000_000_000)
    watch.on_pulled("nobody")
    assert capsys.readouterr().err == (
        "WARNING: the model has 40.0 GB, and this machine's memory has 8.0 GB: it will not fit. "
        "Ctrl-C stops.\n"
    )


def test_models_lists_what_fits_and_pull_alone_takes_the_proposed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    machine = Machine(8 * 10**9, is_gpu=False, speed=MachineSpeed(2e11, 3e10))
    monkeypatch.setattr(model_transfers, "_this_machine", lambda: machine)
    shown = invoke("models")
    assert shown.exit_code == 0
    (starred,) = [line.split() for line in shown.stdout.splitlines() if line.startswith("*")]
    assert starred[:5] == ["*", "llama3.2:3b", "2.0", "GB", "3.2B"]
    assert "qwen3:14b" not in shown.stdout
    listing = json.loads(invoke("models", "--json").stdout)
    assert listing["proposed"] == "llama3.2:3b"
    assert next(model["name"] for model in listing["models"] if not model["fits"]) == "llama3.1:8b"
    embeds, chats = listing["here"]
    assert chats == {"name": "smollm2:135m", "capabilities": ["completion", "decision"]}
    read = {script: round(share, 1) for script, share in embeds["scripts"].items()}
    # WordPiece drops the vowels of Korean and Hindi, and knows no word of Thai
    scripts = ("Greek", "Hebrew", "Latin", "Arabic", "Han", "Devanagari", "Hangul", "Thai")
    assert [read[script] for script in scripts] == [1, 1, 1, 0.7, 0.6, 0.5, 0.4, 0.1]
    assert "all-minilm:latest   embedding; letters known: Greek 100%, Hebrew 100%" in shown.stdout

    requested: list[str] = []

    def transfer(request: model_transfers._TransferRequest, *_: object) -> int:
        requested.append(request.model)
        return 1

    monkeypatch.setattr(model_transfers, "_transfer", transfer)
    pulled = invoke("pull")
    assert requested == ["llama3.2:3b"]
    assert "llama3.2:3b fits this machine: 2.0 GB, licence Llama 3 Community." in pulled.stderr


def test_pull_alone_brings_the_proposed_model_from_a_registry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    with far_side() as far:
        far.publish("team/mini", "v1", model=gguf(100_000), template=b"{{ .Prompt }}")
        here = replace(WELL_KNOWN[0], name=f"{far.host}/team/mini:v1")
        monkeypatch.setattr(model_transfers, "propose", lambda _: here)
        pulled = invoke("pull", "--insecure")
        assert pulled.exit_code == 0, pulled.stderr
    listed = invoke("list")
    assert f"{far.host}/team/mini:v1" in listed.stdout
