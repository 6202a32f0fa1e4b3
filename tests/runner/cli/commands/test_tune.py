"""`paddock tune` in words: what it makes, lists, undoes and refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.engine.gguf import TYPE_NAMES
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.profile import ProfileStore
from paddock.engine.settings import PoolSettings
from paddock.engine.tuning.tuned_copies import TunedCopyStore, TuningVerdict
from paddock.engine.tuning.tuner import example_texts
from paddock.runner.cli import doctor, model_tables
from paddock.runner.cli.commands.model_commands import tuning_notes
from paddock.runner.cli.commands.tune import document_texts
from paddock.runner.settings import read_settings
from paddock.steps.base import StepError
from tests.engine.backends.test_speed_estimates import profile
from tests.engine.tuning.test_tuned_copies import copy_in
from tests.fakes import tiny
from tests.runner.cli.commands.shell import invoke


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep copies and records out of the home of the person who runs the tests."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PADDOCK_NUM_THREAD", "1")
    return tmp_path


def digest(home: Path) -> str:
    return ModelFinder(home / "models", home / "cache").find_original("smollm2:135m").digest


def test_copies_are_listed_and_undone(home: Path) -> None:
    assert invoke("tune").stderr == (
        "No model has a tuned copy, and none is known to profit from one.\n"
    )
    finder = ModelFinder(home / "models", home / "cache")
    finder.tuned.keep(copy_in(home, digest(home)))
    assert invoke("tune").stdout == (
        "NAME           FORMAT   ID             PROMPTS   ANSWERS   AGREEMENT   MORE\n"
        "smollm2:135m   Q8_0     eeeeeeeeeeee   2.0 x     1.4 x     95.4 %      2 B\n"
    )
    (tuned,) = json.loads(invoke("tune", "--json").stdout)["tuned"]
    assert (tuned["name"], tuned["tuned_from"], tuned["prompts"]) == (
        "smollm2:135m", digest(home), 2.0
    )  # fmt: skip
    (row,) = (
        model
        for model in model_tables.local_models(
            PoolSettings(models_dir=home / "models", cache_dir=home / "cache")
        )
        if model.name == "smollm2:135m"
    )
    assert "tuned: Q8_0" in model_tables.model_table([row])
    found = list(doctor.tuned_copy_findings(read_settings(home)))
    assert found[0].text.startswith("smollm2:135m is served by its tuned copy: Q8_0, prompts 2.0")

    assert invoke("tune", "smollm2:135m", "--undo").stdout == (
        "Removed the tuned copy of smollm2:135m; the original serves again.\n"
    )
    (refused,) = doctor.tuned_copy_findings(read_settings(home))
    assert refused.text == "smollm2:135m has no tuned copy: `paddock tune --undo` refused one"
    shown = json.loads(invoke("show", "smollm2:135m", "--json").stdout)
    assert shown["tuned"] == "none: `paddock tune --undo` refused one"
    assert invoke("tune", "smollm2:135m", "--undo").stdout == (
        "smollm2:135m has no tuned copy, and gets none unless you ask for it.\n"
    )
    assert json.loads(invoke("tune", "smollm2:135m", "--undo", "--json").stdout) == {
        "name": "smollm2:135m",
        "removed": False,
    }


def test_what_would_help_is_recommended_but_never_done(home: Path) -> None:
    pool = read_settings(home).pool
    ProfileStore(pool.cache_dir).keep(profile(pool))
    assert invoke("tune").stdout == (
        "A tuned copy of smollm2:135m would read prompts about 1.9 times as fast: "
        "paddock tune smollm2:135m\n"
    )
    (found,) = doctor.tuned_copy_findings(read_settings(home))
    assert (found.level, found.remedy) == ("ok", "paddock tune smollm2:135m")
    assert not (home / "models" / "blobs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("smollm2:135m", "--format", "q9"),
            "'q9' is not a format of tensors.\n"
            "  Known: BF16, F16, F32, IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, "
            "Q5_K, Q6_K, Q8_0.\n",
        ),
        (("--undo",), "Name a model: `paddock tune MODEL`. `paddock list` shows them.\n"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments: tuple[str, ...], words: str) -> None:
    result = invoke("tune", *arguments)
    assert (result.exit_code, result.stderr) == (2, words)


def test_a_reranker_is_not_tuned(home: Path) -> None:
    path = str(tiny.reranker(home / "ranker.gguf"))
    result = invoke("tune", path)
    words = f"'{path}' is a reranker; only chat and embedding models are tuned.\n"
    assert (result.exit_code, result.stderr) == (2, words)


def test_own_documents_are_read_from_files_and_folders(home: Path) -> None:
    folder = home / "letters"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("hidden")
    (folder / "a.txt").write_text("The roof leaks.")
    (folder / "b.html").write_text("<p>The gutters, too.</p>")
    (folder / "c.txt").write_text("  ")
    (folder / "d.zip").write_bytes(b"PK\x03\x04 no document")
    found = document_texts([folder, folder / "a.txt"])
    assert [text.strip() for text in found] == [
        "The roof leaks.", "The gutters, too.", "The roof leaks."
    ]  # fmt: skip
    with pytest.raises(StepError):
        document_texts([folder / "d.zip"])
    for path, words in (
        (folder / "c.txt", f"There is no text in '{folder / 'c.txt'}'."),
        (folder / "e.txt", f"There is no file or folder '{folder / 'e.txt'}'."),
    ):
        result = invoke("tune", "smollm2:135m", "--on", str(path))
        assert (result.exit_code, result.stderr) == (2, f"{words}\n")


def test_the_text_of_the_comparison_comes_with_the_package() -> None:
    found = example_texts()
    assert len(found) >= 8
    assert sum(len(text.split()) for text in found) > 3000
    assert "Q8_0" in TYPE_NAMES.values()


def test_ps_says_which_models_are_computed_by_copies_and_which_would_gain(home: Path) -> None:
    pool = read_settings(home).pool
    store = TunedCopyStore(pool.cache_dir)
    made = copy_in(home, "a" * 64)
    store.keep(made)
    text = "it would read documents 1.92 times as fast on this machine"
    store.keep_verdict("b" * 64, TuningVerdict("tiny:latest", "here", text, is_advice=True))
    loaded = [{"name": "smollm2:135m", "tuned_from": "a" * 64}, {"name": "tiny:latest"}]
    assert tuning_notes(pool, loaded) == [
        "smollm2:135m is computed by its tuned copy: Q8_0, prompts 2.0 times as fast, top-1 "
        "agreement 95.4 %, 2 B more",
        "tiny:latest has no tuned copy: it would read documents 1.92 times as fast on this "
        "machine; `paddock tune tiny:latest` makes one",
    ]
    assert tuning_notes(pool, [{"name": "other:latest"}]) == []


def test_a_copy_within_the_bound_of_near_is_marked_everywhere(home: Path) -> None:
    finder = ModelFinder(home / "models", home / "cache")
    made = replace(copy_in(home, digest(home)), is_near=True, divergence=0.0021)
    finder.tuned.keep(made)
    pool = read_settings(home).pool
    loaded = [{"name": "smollm2:135m", "tuned_from": made.original}]
    summary = "Q8_0 (near), prompts 2.0 times as fast, top-1 agreement 95.4 %, 2 B more"
    assert tuning_notes(pool, loaded) == [f"smollm2:135m is computed by its tuned copy: {summary}"]
    found = list(doctor.tuned_copy_findings(read_settings(home)))
    assert found[0].text == f"smollm2:135m is served by its tuned copy: {summary}"
    assert json.loads(invoke("show", "smollm2:135m", "--json").stdout)["tuned"] == (
        f"Q8_0 (near), {made.path}"
    )
    assert "Q8_0 (near)" in invoke("tune").stdout
    assert model_tables.tuned_copy_text(made)[2] == (
        "It is farther from exact arithmetic than the original, within the bound of `near`: a mean "
        "KL divergence of 0.0021."
    )
    assert finder.find("smollm2:135m").is_near
    exact = ModelFinder(home / "models", home / "cache", is_exact=True)
    assert exact.find("smollm2:135m").digest == made.original
    invoke("tune", "smollm2:135m", "--undo")
    assert not finder.find("smollm2:135m").is_near


def test_clean_removes_copies_and_refusals_of_models_that_are_gone(home: Path) -> None:
    store = TunedCopyStore(read_settings(home).pool.cache_dir)
    gone, kept = copy_in(home, "a" * 64), copy_in(home, digest(home), "f" * 64)
    store.keep(gone)
    store.keep(kept)
    store.keep_verdict("b" * 64, TuningVerdict("gone", "", "it was slow"))
    result = invoke("clean", str(home), "--json")
    assert json.loads(result.stdout)["copies"] == ["smollm2:135m"]
    assert [entry.original for entry in store.all()] == [kept.original]
    assert not Path(gone.path).exists()
    assert list(store.verdicts()) == []


def test_clean_removes_images_that_were_long_not_looked_at(home: Path) -> None:
    file = home / "cache" / "images" / "projector" / "image"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(2000))
    result = invoke("clean", str(home), "--dry-run", "--older-than", "0s")
    assert "Would remove 1 image as a projector computed them, 2 kB.\n" in result.stderr
    assert json.loads(invoke("clean", str(home), "--json").stdout)["images"] == 0
    assert file.exists()
    invoke("clean", str(home), "--older-than", "0s")
    assert not file.exists()
