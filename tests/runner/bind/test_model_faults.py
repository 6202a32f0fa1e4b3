"""Models that a pipeline names and that cannot be used, told at the place that names them."""

from pathlib import Path

import pytest

from paddock.engine.errors import ModelTooLarge
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, run, validate
from paddock.runner.bind.checks.requirements import ModelFaults
from paddock.runner.core.run_options import RunOptions
from tests.fakes.pool import FakePool
from tests.runner.world import run_arguments

STEP = "steps: [{uses: chat, with: {model: writer, prompt: Hi}}]\n"


def written(folder: Path, model: str, steps: str = STEP) -> Path:
    file = folder / "p.yaml"
    file.write_text(f"models:\n  writer: {model}\n{steps}")
    return file


def fault_of(file: Path) -> str:
    """Return the fault that validate, plan and run tell alike."""
    told = "\n".join(fault.render() for fault in validate(file).faults)
    for verb in (lambda: plan(file), lambda: run(file, options=RunOptions(local=True))):
        with pytest.raises(PipelineError) as caught:
            verb()
        assert str(caught.value) == told
    return told.replace(str(file.parent), "DIR")


def test_a_file_that_is_not_there_is_told_with_its_place(tmp_path: Path) -> None:
    assert fault_of(written(tmp_path, "{ref: ./missing.gguf}")) == (
        "DIR/p.yaml:2:17: no such file: './missing.gguf'.\n"
        "       2 |   writer: {ref: ./missing.gguf}\n"
        "         |                 ^^^^^^^^^^^^^^\n"
        "  Looked for in DIR. There is no GGUF file."
    )
    (tmp_path / "misting.gguf").write_bytes(b"GGUF")
    assert fault_of(written(tmp_path, "missing.gguf")).endswith(
        "  Looked for in DIR. Known: 'misting.gguf'. Did you mean 'misting.gguf'?"
    )


@pytest.mark.parametrize(
    ("ref", "what"),
    [
        ("letter.gguf", "this is not a GGUF file"),
        ("./models", "this is a folder, and a model is one file; it has 'a.gguf'"),
        ("big-00002-of-00003.gguf",
         "this is part 2 of 3; name the first, 'big-00001-of-00003.gguf'"),
        ("big-00001-of-00003.gguf",
         "this is the first of 3 parts, and 'big-00003-of-00003.gguf' is missing"),
    ],
)  # fmt: skip
def test_what_is_no_model_file_is_told_with_its_place(ref: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "letter.gguf").write_text("Dear all")
    for name in ("models/a", "big-00001-of-00003", "big-00002-of-00003"):
        file = tmp_path / f"{name}.gguf"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"GGUF")
    assert fault_of(written(tmp_path, ref)).startswith(f"DIR/p.yaml:2:11: '{ref}': {what}.\n")


def minilm(folder: Path) -> Path:
    return ModelFinder(folder / "models", folder / "cache").locate("all-minilm").path


def test_a_model_that_no_step_uses_may_be_missing(tmp_path: Path) -> None:
    file = written(tmp_path, "./missing.gguf", "steps: [{uses: files.scan, with: {root: .}}]\n")
    assert validate(file).ok


def test_a_model_that_only_an_inner_pipeline_uses_is_at_fault_there_alone(tmp_path: Path) -> None:
    written(tmp_path, "./missing.gguf").rename(tmp_path / "inner.yaml")
    steps = "steps: [{uses: pipeline, with: {file: inner.yaml}}]\n"
    (fault,) = validate(written(tmp_path, "./missing.gguf", steps)).faults
    assert fault.mark is not None and fault.mark.file.endswith("inner.yaml")


def test_models_that_are_not_here_are_told_with_their_places_all_at_once(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(minilm(tmp_path).read_bytes()[:100_000])
    steps = "".join(
        f"  - {{uses: chat, with: {{model: {name}, prompt: Hi}}}}\n"
        for name in ("writer", "cut", "odd", "vec")
    )
    extra_models = "  cut: cut.gguf\n  odd: {ref: a b}\n  vec: {ref: all-minilm}\n"
    file = written(tmp_path, "none-such:1b", f"{extra_models}steps:\n{steps}")
    assert validate(file).ok, "which names there are is the machine's matter"
    with pytest.raises(ModelFaults) as caught:
        plan(file)
    places = [str(fault.render().splitlines()[0]) for fault in caught.value.faults]
    assert [place.rpartition("p.yaml:")[2] for place in places] == [
        "2:11: model 'none-such:1b' is not on this machine.",
        "3:8: 'cut.gguf': the file is truncated: it ends at byte 100000 inside its header.",
        "4:14: invalid model name 'a b': its model cannot be 'a b'.",
        "5:14: model 'vec' has the role 'chat', but 'all-minilm' makes vectors.",
    ]
    with pytest.raises(ModelFaults) as again:
        run(file, options=RunOptions(local=True))
    assert str(again.value) == str(caught.value)


def test_a_model_that_does_not_fit_is_told_with_the_step_that_asks_for_it(tmp_path: Path) -> None:
    def too_large(request: ChatRequest) -> str:
        raise ModelTooLarge(request.model.ref, 9 << 30, 3 << 30)

    file = written(tmp_path, "smollm2:135m")
    report = run(file, None, *run_arguments(local=True, pool=FakePool(answer=too_large)))
    assert (report.status, str(report.message).replace(str(tmp_path), "DIR")) == (
        "failed",
        "DIR/p.yaml:3:16: model 'smollm2:135m' needs about 9216 MiB with its context, and 3072 MiB "
        "are free. Use a smaller model or a smaller `ctx`.",
    )
